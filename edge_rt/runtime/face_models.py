"""The face models of this device: which bundles the worker opens, changed by restarting it.

There is no shadow for them yet: nobody labels the faces at a door. So a face model comes only where
the configuration says `faces = "trial_only"`, stays in its embedding space, passes the self-test,
and is left when the worker does not bear it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.bundle import locate
from edge_rt.core.config import Config
from edge_rt.core.errors import InputError, ManifestError, ModelError
from edge_rt.core.manifest import (
    MANIFEST_NAME,
    DetectManifest,
    EmbedManifest,
    distance_within,
    parse_manifest,
)
from edge_rt.runtime.face_service import FaceService

if TYPE_CHECKING:
    from edge_rt.runtime.face_watches import FaceTrial, NoShadow

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
            self.declines = 'face models stay as installed; set updates.faces = "trial_only"'
        self._service: FaceService | None = None

    def open(self, folder: Path | None) -> None:
        """Have the worker open this bundle. Raises what `fits` raises."""
        if folder is not None:
            self.fits(folder)
        self._folders.choose(self._part, folder)

    def bind(self, service: FaceService) -> None:
        """The service whose worker runs it."""
        self._service = service

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
        """There is nothing to count."""

    def fits(self, folder: Path) -> None:
        """Raises ManifestError, ConfigError for a bundle that may not take the place of ours."""
        found = self._checked(read_bundle(folder).manifest)
        if found.name != self._factory.name:
            raise ManifestError(f"{folder}: {found.name} is in it, configured is {self.name}")
        if isinstance(found, EmbedManifest) and isinstance(self._factory, EmbedManifest):
            ours, its = self._factory.embedding_space, found.embedding_space
            if ours != its:
                raise ManifestError(
                    f"embedding space {its} is not {ours}: every template would be worthless; "
                    "enrol anew with it as the configured bundle"
                )
            distance_within(found, self._config.faces.distance)

    def shadow(self, folder: Path, seen: dict[str, Any] | None) -> NoShadow:
        """Over at once: nothing can be compared."""
        from edge_rt.runtime.face_watches import NoShadow

        self.fits(folder)
        return NoShadow()

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
