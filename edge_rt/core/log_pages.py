"""What the event log writes into its WAL, in pages of 4 KiB: an estimate, never too low.

Measured on logs of 1 to 32 MB with events of 0.5 to 6 KB: 1 to 3 times what the file grows by
(tests/test_eventlog.py holds it to that).
"""

from __future__ import annotations

PAGE_BYTES = 4096
# What a transaction writes besides its rows: two indices, the table's edge, the sequence.
EACH = 6


def cost(rows: int, size: int, ranges: int = 0) -> int:
    """Pages that inserting or deleting rows of `size` bytes touches.

    ranges  of deleted rows that do not lie side by side: each has an edge of its own, in the table
            and in the index of ids
    """
    # A page is filled to two thirds; the entries of both indices take less than an eighth.
    return rows // 8 + 3 * size // (2 * PAGE_BYTES) + 2 * ranges
