"""The last step of a restore: verified files take the places of the old ones, kill or no kill."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from edge_rt.core.errors import StorageError
from edge_rt.runtime.places import STATE_FILES

MANIFEST_NAME = "manifest.json"
READY = "restore.ready"
# Each holds a whole old state: room for mistakes, not for ever.
MAX_KEPT = 10


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    edge_rt: str
    files: dict[str, Entry]


def finish_restore(state: Path) -> Path | None:
    """Complete a restore that was cut off; the daemon calls it at start, with the lock held.

    Returns the folder where the old state is kept, None if there was nothing to do or to keep.
    Raises StorageError.
    """
    ready = state / READY
    if not ready.exists():
        return None
    try:
        manifest = msgspec.json.decode((ready / MANIFEST_NAME).read_bytes(), type=Manifest)
        kept = _kept(state, ready)
        for name in STATE_FILES:
            if name in manifest.files and not (ready / name).exists():
                continue  # its new file is in place already
            # What belongs to the database goes first: an old WAL must never meet the new file.
            for old in (f"{name}-wal", f"{name}-shm", name):
                if (state / old).exists():
                    os.rename(state / old, _free(kept, old))
            if name in manifest.files:
                sync_folder(kept)
                os.rename(ready / name, state / name)
        sync_folder(state)
        kept_any = any(kept.iterdir())
        if not kept_any:
            kept.rmdir()
        shutil.rmtree(ready)
        return kept if kept_any else None
    except (OSError, msgspec.DecodeError) as error:
        raise StorageError(
            f"{ready}: restore cannot be completed ({error}); mend the disk"
        ) from None


def _kept(state: Path, ready: Path) -> Path:
    """The folder for the old state; the same one when a cut-off restore goes on."""
    note = ready / "kept"
    if note.exists():
        kept = state / note.read_text()
    else:
        names = (state / f"before-restore-{n}" for n in range(1, MAX_KEPT + 1))
        free = next((path for path in names if not path.exists()), None)
        if free is None:
            raise StorageError(f"{state}: {MAX_KEPT} old states are kept there; remove some")
        kept = free
        new = ready / "kept.new"
        new.write_text(kept.name)
        os.rename(new, note)
    kept.mkdir(mode=0o700, exist_ok=True)
    return kept


def _free(kept: Path, name: str) -> Path:
    """Where it goes: what ran between two tries of a restore replaces nothing that is kept."""
    names = (kept / (f"{name}.{n}" if n else name) for n in range(MAX_KEPT + 1))
    free = next((path for path in names if not path.exists()), None)
    if free is None:
        raise StorageError(f"{kept}: {MAX_KEPT} copies of {name} are kept there; remove some")
    return free


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
