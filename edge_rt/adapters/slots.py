"""Slots on disk: two folders for a task's models, filled by rename and durable when filled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edge_rt.core.errors import StorageError
from edge_rt.core.update_record import SLOTS, Slot

OLD, DROPPED = ".old", ".dropped"


class Slots:
    """The folders `a` and `b` below `root`. Raises StorageError from every method that writes.

    Which of them may be overwritten is not known here: see core.update_record.Record.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, slot: Slot) -> Path:
        """Where a slot's bundle lies, if there is one."""
        return self.root / slot

    def prepare(self) -> None:
        """Make the place for the slots; remove what a kill has left over."""
        try:
            for folder in (self.root.parent, self.root):
                folder.mkdir(mode=0o700, exist_ok=True)
            _sync(self.root.parent)
            for name in (*(f"{slot}{OLD}" for slot in SLOTS), DROPPED):
                if (self.root / name).exists():
                    shutil.rmtree(self.root / name)
        except OSError as error:
            raise _storage(self.root, error) from None

    def install(self, staged: Path, slot: Slot) -> None:
        """Move a staged folder (of the same file system) into a slot, in place of what was there.

        A kill leaves the slot with its old bundle, with none, or with the whole new one. Called
        again after a kill it finishes; when it had finished already, it changes nothing.
        """
        place, old = self.root / slot, self.root / f"{slot}{OLD}"
        try:
            if staged.is_dir():
                # Before the name leads to it: a power cut may not leave empty files behind it.
                _sync_tree(staged)
                if old.exists():
                    shutil.rmtree(old)
                if place.exists():
                    os.rename(place, old)
                    _sync(self.root)
                os.rename(staged, place)
                _sync(self.root)
                _sync(staged.parent)
            if old.exists():
                shutil.rmtree(old)
        except OSError as error:
            raise _storage(place, error) from None
        if not place.is_dir():
            raise StorageError(f"{staged}: gone before it was installed; it is fetched again")

    def clear(self, slot: Slot) -> None:
        """Empty a slot."""
        self.drop(self.root / slot)

    def drop(self, folder: Path) -> None:
        """Remove a folder of the same file system; a kill leaves no half of it under its name."""
        dropped = self.root / DROPPED
        try:
            if not folder.exists():
                return
            if dropped.exists():
                shutil.rmtree(dropped)
            os.rename(folder, dropped)
            _sync(folder.parent)
            shutil.rmtree(dropped)
        except OSError as error:
            raise _storage(folder, error) from None


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_dir() or path.is_symlink():
            raise StorageError(f"{path}: no plain file; a bundle holds nothing else")
        path.chmod(0o600)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    folder.chmod(0o700)
    _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: {error.strerror}; free or mend the disk")
