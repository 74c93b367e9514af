"""The state folder: private, and used by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
from pathlib import Path
from types import TracebackType

from edge_rt.core.errors import DaemonError, StorageError

LOCK_NAME = "state.lock"


class StateDir:
    """Holds the state folder's lock from construction to close(); also a context manager.

    The folder is made if need be and is mode 0700 afterwards. The kernel drops the lock (flock(2))
    with the process, however that ends; programs that it starts do not inherit it.
    Raises StorageError for a folder that cannot be used, DaemonError if another process has it or
    root would use a folder of another user, who could not read what root leaves there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_mode & 0o077:
                path.chmod(0o700)
            _refuse_root(path)
            handle = _open_lock(path / LOCK_NAME)
        except OSError as error:
            raise StorageError(
                f"{path}: {error.strerror}; the state folder must be writable by uid {os.geteuid()}"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            os.close(handle)
            raise DaemonError(
                f"{path}: in use by process {owner or '?'}; stop that first"
            ) from None
        self._handle = handle
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the note
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go of the lock; safe to call twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> StateDir:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def held_by(path: Path) -> int | None:
    """The process that holds the state folder; None if there is none, or we may not see it."""
    lock = path / LOCK_NAME
    try:
        owner = int(lock.read_text())
        opened = list(Path(f"/proc/{owner}/fd").iterdir())
    except (OSError, ValueError):
        return None
    # It may have ended, and its number be another's by now.
    return owner if any(_is_same(one, lock) for one in opened) else None


def _refuse_root(path: Path) -> None:
    owner = path.stat().st_uid
    if os.geteuid() == 0 != owner:
        raise DaemonError(
            f"{path}: belongs to another user, for whom files of root would be lost; call this as "
            f"that user: sudo -u {_name(owner)} edge-rt ..."
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # an account that is gone
        return f"'#{uid}'"


def _is_same(descriptor: Path, path: Path) -> bool:
    try:
        return os.path.samefile(descriptor, path)
    except OSError:  # closed meanwhile
        return False


def _open_lock(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError:
        # On a read-only disk the daemon still has to watch: an existing file can be locked too.
        return os.open(path, os.O_RDONLY | flags)
