"""Reading a file from front to end before somebody looks at it page by page.

SQLite checks a database in the order of its trees, a page of 4 KiB for each read, and the kernel
sees no order in that: on a card each page is a wait of its own. In file order it reads far ahead.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_rt.core.errors import StorageError

CHUNK_BYTES = 1024 * 1024
# What the kernel keeps counts as the service's memory (MemoryMax=400M), though it lets go of it at
# once; of a file that does not fit the rest is left to come page by page.
MAX_BYTES = 128 * 1024 * 1024


def read_through(path: Path, max_bytes: int = MAX_BYTES) -> int:
    """Have the kernel keep the first max_bytes of a file in memory; an open descriptor of it.

    Closing that drops all locks which this process holds on the file, those of its database
    connections too (fcntl_locking(2), sqlite.org/howtocorrupt.html, 2.2): leave it open for as long
    as there may be any.

    Raises StorageError.
    """
    chunk = bytearray(CHUNK_BYTES)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        for _ in range(max_bytes // CHUNK_BYTES):
            if not os.readv(descriptor, [chunk]):
                break
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; free or mend the disk") from None
    return descriptor
