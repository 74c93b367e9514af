"""Small state on disk: replaced whole, checked by checksum, safe against power loss.

AtomicFile replaces bytes; StateFile puts one typed struct with a checksum into such a file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from edge_rt.core.errors import StorageError

T = TypeVar("T")

# Nothing that is kept this way grows: counters, slots, marks. 1 MiB is far beyond any of them.
MAX_STATE_BYTES = 1024 * 1024
FORMAT = 1


class AtomicFile:
    """A file that holds its old bytes or its new ones, whatever happens in between."""

    def __init__(self, path: Path, max_bytes: int = MAX_STATE_BYTES) -> None:
        self.path = path
        self.max_bytes = max_bytes

    def read(self) -> bytes | None:
        """Its bytes, None if there is no such file. Raises StorageError."""
        try:
            with self.path.open("rb") as file:
                data = file.read(self.max_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}; check the disk") from None
        if len(data) > self.max_bytes:
            raise StorageError(f"{self.path}: over {self.max_bytes} bytes; restore a backup")
        return data

    def write(self, data: bytes) -> None:
        """Replace its bytes, mode 0600; durable when this returns. Raises StorageError."""
        new = self.path.with_name(self.path.name + ".new")
        try:
            # A leftover of a kill may have another owner or mode: make it anew.
            new.unlink(missing_ok=True)
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written ({error.strerror}); free or mend the disk"
            ) from None


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    sha256: str
    state: msgspec.Raw


class StateFile(Generic[T]):
    """One struct of type `T` in a file.

    `T` tolerates unknown fields: a version that was gone back to reads what a newer one has saved.
    What an older version could not read at all has another FORMAT.

    Raises StorageError from its methods; a damaged file is never overwritten by load().
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.file = AtomicFile(path)
        self._decoder = msgspec.json.Decoder(kind)

    def load(self) -> T | None:
        """What was saved last, None if nothing ever was."""
        data = self.file.read()
        if data is None:
            return None
        try:
            envelope = msgspec.json.decode(data, type=_Envelope)
            whole = hashlib.sha256(envelope.state).hexdigest() == envelope.sha256
            if envelope.format == FORMAT and whole:
                return self._decoder.decode(envelope.state)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageError(f"{self.file.path}: damaged ({error}); restore a backup") from None
        reason = "checksum is wrong" if not whole else f"format {envelope.format} is not {FORMAT}"
        raise StorageError(f"{self.file.path}: {reason}; restore a backup")

    def save(self, state: T) -> None:
        """Replace what is saved; durable when this returns."""
        body = msgspec.json.encode(state)
        checksum = hashlib.sha256(body).hexdigest()
        self.file.write(msgspec.json.encode(_Envelope(FORMAT, checksum, msgspec.Raw(body))))

    def remove(self) -> None:
        """Forget what is saved, if anything is."""
        path = self.file.path
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path}: cannot be removed ({error.strerror})") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
