"""A log that was cut off is read in one go before it is checked."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_rt.adapters import readahead
from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.eventreader import EventReader
from edge_rt.adapters.readahead import read_through
from edge_rt.core.errors import StorageError
from edge_rt.runtime.stamps import Stamps

STAMPS = Stamps("/edge-rt/home/hall", "b" * 32)
PAGE = mmap.PAGESIZE


def forget(path: Path) -> None:
    """Have the kernel drop what it keeps of a file, as after a boot."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if in_memory(path) > 0.1:
        pytest.skip("this file system lets the kernel forget nothing; use a disk")


def in_memory(path: Path) -> float:
    """The part of a file that the kernel keeps (mincore(2))."""
    size = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        pages = (ctypes.c_ubyte * -(-size // PAGE))()
        at = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(at), ctypes.c_size_t(size), pages
        )
    assert not failed
    return sum(page & 1 for page in pages) / len(pages)


def test_afterwards_all_of_it_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 * readahead.CHUNK_BYTES + 5))
    forget(path)
    descriptor = read_through(path)
    assert in_memory(path) == 1.0
    os.close(descriptor)


def test_what_memory_cannot_hold_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(32 * readahead.CHUNK_BYTES))
    forget(path)
    os.close(read_through(path, 2 * readahead.CHUNK_BYTES))
    assert 0.05 < in_memory(path) < 0.5


def test_no_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        read_through(tmp_path / "gone")


def test_the_locks_of_this_process_stay(tmp_path: Path) -> None:
    """Another program that closes the last connection it knows of removes the WAL."""
    path = tmp_path / "events.db"
    log, reader = EventLog(path, STAMPS.draft), EventReader(path)
    log.append([STAMPS.draft("fall", "alarm", {})])
    assert len(reader.read()) == 1
    read_through(path)
    code = f"import sqlite3; d = sqlite3.connect({str(path)!r}); d.execute('select * from meta')"
    subprocess.run([sys.executable, "-c", f"{code}; d.close()"], check=True, timeout=30.0)
    assert path.with_name("events.db-wal").exists()
    log.append([STAMPS.draft("fall", "alarm", {})])
    reader.close()
    log.close()
    assert len(EventReader(path).read()) == 2


@pytest.mark.release
def test_a_full_log_is_checked_in_a_fraction_of_the_time(
    tmp_path: Path, figure: Callable[..., None]
) -> None:
    path = tmp_path / "events.db"
    log = EventLog(path, STAMPS.draft)
    while log.used_bytes() < 63 * 1024 * 1024:
        data = {"sensor": "accelerometer", "detail": "no samples for 2 s"}
        log.append([STAMPS.draft("device", "sensor_lost", data) for _ in range(64)])
    log.close()

    def opened(*, ahead: bool) -> float:
        forget(path)
        path.with_name("events.db-wal").write_bytes(b"")  # as a cut leaves one
        begun_s = time.monotonic()
        if ahead:
            read_through(path)
        EventLog(path, STAMPS.draft).close()
        return time.monotonic() - begun_s

    took = [(opened(ahead=False), opened(ahead=True)) for _ in range(5)]
    plain_s, ahead_s = (min(times) for times in zip(*took, strict=True))
    figure("a log of 64 MB after a cut, checked page by page", plain_s, unit="s")
    figure("the same, read from front to end first", ahead_s, at_most=10.0, unit="s")
    figure("reading first, against page by page", ahead_s / plain_s, at_most=0.8, unit="x")
