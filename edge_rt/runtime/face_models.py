"""The face models of this device: which bundles the worker opens, changed by restarting it.

They come only where the configuration says so. `faces = "trial_only"`: a model that stays in its
embedding space and passes the self-test goes on trial, and is left when the worker does not bear
it. `faces = "shadow"`: an embedder runs beside the live one first, and may be of another space,
into which everybody is taken along. A detector has no shadow.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.bundle import locate
from edge_rt.core.config import Config
from edge_rt.core.errors import (
    EdgeRtError,
    InputError,
    ManifestError,
    ModelError,
    StorageError,
)
from edge_rt.core.manifest import (
    MANIFEST_NAME,
    DetectManifest,
    EmbedManifest,
    distance_within,
    parse_manifest,
)
from edge_rt.core.update_record import Place, State
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.face_templates import tidy_templates
from edge_rt.runtime.update_journal import Journal

if TYPE_CHECKING:
    from edge_rt.runtime.face_watches import FaceShadow, FaceTrial, NoShadow

log = logging.getLogger(__name__)
Part = Literal["detect", "embed"]
TASKS: dict[Part, str] = {"detect": "face-detect", "embed": "face-embed"}
WORKER_S = 30.0  # a worker on the slowest board has loaded its models by then
LOOK_S = 0.1


class Folders:
    """The bundles that the worker opens, and its command line."""

    def __init__(self, state: Path, config: Config) -> None:
        self._state = state
        self._config = config
        self._chosen: dict[Part, Path] = {}

    def choose(self, part: Part, folder: Path | None) -> Path | None:
        """Open this one from the worker's next start on, None: the configured one; the former."""
        former = self._chosen.pop(part, None)
        if folder is not None:
            self._chosen[part] = folder
        return former

    @property
    def state(self) -> Path:
        """The state folder."""
        return self._state

    def arguments(self) -> list[str]:
        """For the worker."""
        names = {part: str(folder) for part, folder in self._chosen.items()}
        faces = msgspec.structs.replace(self._config.faces, **names)
        config = msgspec.structs.replace(self._config, faces=faces)
        return [str(self._state), msgspec.json.encode(config).decode()]


class FaceModel:
    """One of the two (runtime.update_ports.Live). `open` before the service is there, then `bind`.

    Raises InputError, ManifestError for a configured bundle that cannot be read.
    """

    def __init__(self, part: Part, folders: Folders, config: Config) -> None:
        self._part = part
        self._folders = folders
        self._config = config
        configured = config.faces.detect if part == "detect" else config.faces.embed
        # Its files are the worker's to check.
        path = locate(configured) / MANIFEST_NAME
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; name a bundle in faces.{part}") from None
        self._factory = self._checked(parse_manifest(text, str(path)))
        self.name, self.version = self._factory.name, self._factory.version
        self.security_epoch = self._factory.security_epoch
        self.declines = ""
        if config.updates.faces == "off":
            self.declines = 'face models stay as installed; set updates.faces = "shadow"'
        self._service: FaceService | None = None
        self._journal: Journal | None = None
        self._tidied = -1  # the step after which it was done

    def open(self, folder: Path | None) -> None:
        """Have the worker open this bundle. Raises what `fits` raises."""
        if folder is not None:
            self.fits(folder)
        self._folders.choose(self._part, folder)

    def bind(self, service: FaceService, journal: Journal) -> None:
        """The service whose worker runs it, and where its updates are written down."""
        self._service, self._journal = service, journal

    def go(self, folder: Path | None) -> dict[str, Any]:
        """Restart the worker with this bundle. Raises ModelError when that does not come up."""
        assert self._service is not None  # bound at the start
        version = self.version
        if folder is not None:
            version = self._checked(read_bundle(folder).manifest).version
        former = self._folders.choose(self._part, folder)
        begun_s = time.monotonic()
        self._service.replace(self._folders.arguments())
        while self._service.status()["models"].get(self.name) != version:
            if time.monotonic() - begun_s > WORKER_S:
                self._folders.choose(self._part, former)
                self._service.replace(self._folders.arguments())
                raise ModelError(f"the face worker does not come up with {self.name} {version}")
            time.sleep(LOOK_S)  # another process's progress can only be watched
        return {"took_ms": round(1e3 * (time.monotonic() - begun_s), 1)}

    def look(self) -> None:
        """Templates that no model needs any more go, once a move."""
        if self._journal is None or self._part == "detect":
            return
        record = self._journal.record
        if record.step == self._tidied:
            return
        self._tidied = record.step
        live, previous = self._space(record.live), self._space(record.previous)
        if live is None or previous is None:
            return
        migrating = record.state is not State.IDLE
        try:
            tidy_templates(self._folders.state, live, {live, previous}, migrating=migrating)
        except StorageError as error:
            log.warning("%s: %s", self.name, error)

    def _space(self, place: Place) -> str | None:
        """The embedding space of what lies there; None if that cannot be read."""
        assert self._journal is not None
        folder = self._journal.folder_of(place)
        manifest: object = self._factory
        if folder is not None:
            try:
                manifest = read_bundle(folder).manifest
            except EdgeRtError:
                return None
        return manifest.embedding_space if isinstance(manifest, EmbedManifest) else None

    def fits(self, folder: Path) -> None:
        """Raises ManifestError, ConfigError for a bundle that may not take the place of ours."""
        found = self._checked(read_bundle(folder).manifest)
        if found.name != self._factory.name:
            raise ManifestError(f"{folder}: {found.name} is in it, configured is {self.name}")
        if isinstance(found, EmbedManifest) and isinstance(self._factory, EmbedManifest):
            ours, its = self._factory.embedding_space, found.embedding_space
            if ours != its and self._config.updates.faces == "trial_only":
                raise ManifestError(
                    f"embedding space {its} is not {ours}: every template would be worthless; "
                    'set updates.faces = "shadow" to have templates collected for it'
                )
            distance_within(found, self._config.faces.distance)

    def shadow(self, folder: Path, seen: dict[str, Any] | None) -> FaceShadow | NoShadow:
        """An embedder beside the live one; for a detector over at once."""
        from edge_rt.runtime.face_watches import FaceShadow, NoShadow

        self.fits(folder)
        updates = self._config.updates
        if updates.faces != "shadow" or self._part == "detect":
            return NoShadow()
        assert self._service is not None
        return FaceShadow(self._service, folder, updates.face_pictures, seen, time.monotonic)

    def trial(self, seen: dict[str, Any] | None) -> FaceTrial:
        """Watch the worker."""
        from edge_rt.runtime.face_watches import FaceTrial

        assert self._service is not None
        return FaceTrial(self._service.status, self._config.updates.trial_h, seen, time.monotonic)

    def _checked(self, manifest: object) -> DetectManifest | EmbedManifest:
        wanted = DetectManifest if self._part == "detect" else EmbedManifest
        if not isinstance(manifest, wanted):
            raise ManifestError(
                f"a bundle for {TASKS[self._part]} is needed; see faces.{self._part}"
            )
        return manifest
