"""What leaves a full log, and what is told of it: nothing may vanish without a word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from edge_rt.core.errors import InputError
from edge_rt.core.held import Held
from edge_rt.core.uplink_wire import Range
from edge_rt.core.wire import decode

# Ranges of one `dropped` event: keeps it under 3 KiB; more is told by the next one.
MAX_RANGES = 64


class Row(NamedTuple):
    """An event that may go. size: bytes it frees; body: its wire bytes."""

    sequence: int
    size: int
    body: bytes


class Doomed(NamedTuple):
    """sequences, size: what goes now, and the bytes that frees; ranges, number: what has gone with
    it, also earlier."""

    sequences: list[int]
    ranges: list[Range]
    number: int
    size: int


def choose(rows: Iterable[Row], excess: int, *, absorb: bool) -> Doomed:
    """The first of `rows` (oldest first) that free about `excess` bytes.

    absorb  the receiver may not have them: a `dropped` event among them hands its ranges on to the
            one that tells of it, or stays where that cannot hold them
    """
    sequences: list[int] = []
    held, count, size = Held(), 0, 0
    for row in rows:
        if size >= excess:
            break
        earlier, number = _told_by(row.body) if absorb else ([], 0)
        if earlier:
            merged = Held([*held.ranges, (row.sequence, row.sequence), *earlier])
            if merged.range_count > MAX_RANGES:
                continue
            held = merged
        elif row.sequence - 1 in held or held.range_count < MAX_RANGES:
            held.add(row.sequence)
        else:
            break
        sequences.append(row.sequence)
        count += 1 + number
        size += row.size
    return Doomed(sequences, held.ranges, count, size)


def _told_by(body: bytes) -> tuple[list[Range], int]:
    """Ranges and count of a `dropped` event; nothing for any other."""
    if b'"edge_rt.device.dropped"' not in body:  # decoding each event would take seconds
        return [], 0
    try:
        data = decode(body).data
        ranges = msgspec.convert(data.get("ranges", []), list[Range])
        return ranges, msgspec.convert(data.get("count", 0), int) if ranges else 0
    except (InputError, msgspec.ValidationError):
        return [], 0
