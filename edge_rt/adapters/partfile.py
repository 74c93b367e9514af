"""A download under way: a file of its full size from the start, chunks written where they belong.

There is no record of progress beside it that could disagree: what is there is found by hashing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from edge_rt.core.catalog import Release
from edge_rt.core.errors import StorageError

# What a power cut may cost: a megabyte comes again. More often, and a slow card holds up the line.
SYNC_BYTES = 1024 * 1024
# A bundle is seldom twice its zip; what it really takes is compared again before it is unpacked.
_UNPACKED = 2


class PartFile:
    """Raises StorageError from every method when the disk does not do as it should.

    reserve_bytes: so much stays free on the disk after the download is unpacked
    """

    def __init__(self, folder: Path, release: Release, reserve_bytes: int) -> None:
        self.release = release
        self.path = folder / f"{release.sha256}.part"
        self._unsynced = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failure(error) from None
        try:
            self._new = os.fstat(self._handle).st_size == 0
            self._allocate(folder, reserve_bytes)
        except BaseException:  # nobody else would close it
            self.close()
            raise

    def held(self) -> Iterator[int]:
        """Chunks that are there and right, by hashing all of them; none of a file that is new and
        that nothing was written to."""
        if self._new:
            return
        for chunk, sha256 in enumerate(self.release.chunks):
            if hashlib.sha256(self._read(chunk)).hexdigest() == sha256:
                yield chunk

    def write(self, chunk: int, data: bytes) -> None:
        """Put a verified chunk in its place; durable after the next sync()."""
        try:
            view, at = memoryview(data), chunk * self.release.chunk_bytes
            while view:
                written = os.pwrite(self._handle, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise self._failure(error) from None
        self._new = False
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Bring to the disk what was written."""
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            raise self._failure(error) from None
        self._unsynced = 0

    def close(self) -> None:
        """Let go of it; it stays on the disk."""
        os.close(self._handle)

    def _allocate(self, folder: Path, reserve_bytes: int) -> None:
        try:
            there = os.fstat(self._handle).st_blocks * 512
            room = os.fstatvfs(self._handle)
            free = room.f_bavail * room.f_frsize + there
            needed = (1 + _UNPACKED) * self.release.size + reserve_bytes
            if free < needed:
                raise StorageError(
                    f"{folder}: {free >> 20} MB free, {needed >> 20} MB are needed for "
                    f"{self.release}; free disk space"
                )
            os.ftruncate(self._handle, self.release.size)
            os.posix_fallocate(self._handle, 0, self.release.size)
            os.fsync(self._handle)
        except OSError as error:
            raise self._failure(error) from None

    def _read(self, chunk: int) -> bytes:
        try:
            length = self.release.length(chunk)
            return os.pread(self._handle, length, chunk * self.release.chunk_bytes)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path}: {error.strerror}; free or mend the disk")
