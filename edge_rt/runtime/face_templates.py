"""The enrolled faces of a configuration: which store, which key, bound to which models and camera.

The face worker works with it, the doctor looks into it. There are up to two stores, of two
embedding spaces: which one is used follows from the embedder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.adapters.statefile import AtomicFile
from edge_rt.adapters.templates import (
    STORE_NAME,
    STORE_NAMES,
    Bound,
    Person,
    SealedFile,
    TemplateStore,
    bound_of,
    load_key,
)
from edge_rt.core.config import (
    DemoCamera,
    FaceConfig,
    OpenCVCamera,
    Picamera2Camera,
    ReplayedCamera,
)
from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.manifest import EmbedManifest
from edge_rt.core.migration import Migration
from edge_rt.runtime.places import MIGRATION_NAME


def open_templates(
    folder: Path,
    faces: FaceConfig,
    manifest: EmbedManifest,
    environment: Mapping[str, str],
) -> TemplateStore:
    """The store in the state folder. Raises what `load_key` raises; makes a key as it does."""
    path = _store_of(folder, manifest.embedding_space)
    return _open(path, load_key(faces.template_key, folder, environment), _bound(faces, manifest))


class Moving:
    """Templates for an embedder that is not live yet, sealed beside the live ones.

    manifest  of that embedder; make: an empty Migration of these persons (pseudonyms)
    Raises what `load_key` raises; every method what SealedFile's do.
    """

    def __init__(
        self,
        folder: Path,
        faces: FaceConfig,
        manifest: EmbedManifest,
        environment: Mapping[str, str],
        make: Callable[[tuple[str, ...]], Migration],
    ) -> None:
        self._folder = folder
        self._key = load_key(faces.template_key, folder, environment)
        self._bound = _bound(faces, manifest)
        self._file = SealedFile(AtomicFile(folder / MIGRATION_NAME), self._key, self._bound)
        self._make = make

    def load(self, persons: Collection[str]) -> Migration:
        """Go on with what there is, if it belongs to this embedder; else begin."""
        migration = self._make(tuple(persons))
        if (saved := self._saved()) is not None:
            migration.restore(saved.migration)
        return migration

    def save(self, migration: Migration, live_space: str) -> None:
        """Durable when this returns. live_space: of the embedder that people are known by."""
        former = _store_of(self._folder, live_space).name
        self._file.write(msgspec.msgpack.encode(_Saved(former, migration.save())))

    def adopt(self) -> None:
        """Make the store of this embedder, unless there is one or nobody was migrated to it.

        The former store stays. Raises InputError, naming the count, if somebody would be left out.
        """
        space = self._bound.embedding_space
        stores = [bound_of(self._folder / name) for name in STORE_NAMES]
        if space in {store.embedding_space for store in stores if store}:
            return
        if (saved := self._saved()) is None:
            return
        path = self._folder / saved.former
        bound = bound_of(path)
        persons = [] if bound is None else _open(path, self._key, bound).persons()
        migration = self._make(tuple(person.id for person in persons))
        migration.restore(saved.migration)
        if waiting := migration.progress().waiting:
            raise InputError(
                f"{len(waiting)} of {len(persons)} persons have no templates of embedding space "
                f"{space}; the former embedder knows them"
            )
        moved = migration.templates()
        (target,) = (name for name in STORE_NAMES if name != saved.former)
        _open(self._folder / target, self._key, self._bound).replace(
            [p._replace(embeddings=moved[p.id]) for p in persons if p.id in moved]
        )

    def _saved(self) -> _Saved | None:
        if bound_of(self._folder / MIGRATION_NAME) != self._bound:
            return None
        plain = self._file.read()
        return None if plain is None else msgspec.msgpack.decode(plain, type=_Saved)


def forget_elsewhere(
    folder: Path,
    faces: FaceConfig,
    environment: Mapping[str, str],
    live_space: str,
    person: Person,
) -> None:
    """Remove somebody from the store that is not in use, too. Raises what TemplateStore does."""
    for name in STORE_NAMES:
        bound = bound_of(folder / name)
        if bound is None or bound.embedding_space == live_space:
            continue
        store = _open(folder / name, load_key(faces.template_key, folder, environment), bound)
        left = [other for other in store.persons() if other.id != person.id]
        store.replace(left)


def tidy_templates(folder: Path, live: str, wanted: Collection[str], *, migrating: bool) -> None:
    """Remove templates that no model needs any more.

    live    embedding space of the live embedder: without a store of it nothing is removed
    wanted  the spaces that can be gone back to; migrating: templates are being collected
    Raises StorageError.
    """
    spaces = {name: bound_of(folder / name) for name in STORE_NAMES}
    old = [n for n, bound in spaces.items() if bound and bound.embedding_space not in wanted]
    if live not in {bound.embedding_space for bound in spaces.values() if bound}:
        old = []
    for name in [*old, *(() if migrating else (MIGRATION_NAME,))]:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{folder / name}: {error.strerror}; mend the disk") from None


class _Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """former: name of the store that the people are in."""

    former: str
    migration: dict[str, Any]


def _store_of(folder: Path, space: str) -> Path:
    """The store of this embedding space; else where it would be made, beside that of another."""
    for name in STORE_NAMES:
        bound = bound_of(folder / name)
        if bound is not None and bound.embedding_space == space:
            return folder / name
    # A damaged one is in nobody's way: opening it says what is wrong with it.
    first = bound_of(folder / STORE_NAME)
    if first is None or (folder / STORE_NAMES[1]).exists():
        return folder / STORE_NAME
    return folder / STORE_NAMES[1]


def _open(path: Path, key: bytes, bound: Bound) -> TemplateStore:
    return TemplateStore(
        AtomicFile(path),
        key,
        embedding_space=bound.embedding_space,
        camera=bound.camera,
        size=bound.size,
    )


def _bound(faces: FaceConfig, manifest: EmbedManifest) -> Bound:
    return Bound(manifest.embedding_space, _identity(faces.camera), manifest.output.size)


def _identity(
    camera: OpenCVCamera | Picamera2Camera | ReplayedCamera | DemoCamera,
) -> str:
    """What templates are bound to: the device, not how it is set."""
    if isinstance(camera, OpenCVCamera):
        return f"opencv:{camera.device}"
    if isinstance(camera, Picamera2Camera):
        return f"picamera2:{camera.index}"
    return "demo" if isinstance(camera, DemoCamera) else "replay"
