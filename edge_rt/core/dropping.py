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
# Beyond so many, ranges are not expected to meet again.
FARTHEST = 8 * MAX_RANGES


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


class _Going(NamedTuple):
    """A row that may go, and what it tells of others: ranges and their count."""

    sequence: int
    size: int
    ranges: list[Range]
    number: int


def choose(rows: Iterable[Row], excess: int, *, absorb: bool) -> Doomed:
    """The first of `rows` (oldest first) that free about `excess` bytes, as far as one event can
    tell of them.

    absorb  the receiver may not have them: a `dropped` event among them hands its ranges on to the
            one that tells of it, or stays where that would leave less room for others
    """
    # One that is full itself leaves room for nothing else, and a full log as it is.
    whole, others = _Portion(excess), _Portion(excess)
    for row in rows:
        one = _Going(row.sequence, row.size, *(_told_by(row.body) if absorb else ([], 0)))
        whole.take(one)
        if not one.ranges:
            others.take(one)
        if whole.is_over and others.is_over:
            break
    return max(whole.doomed(), others.doomed(), key=lambda doomed: doomed.size)


class _Portion:
    """As many rows from the beginning as one event can tell of: ranges that meet become one, so
    that more may fit than fewer."""

    def __init__(self, excess: int) -> None:
        self._excess = excess
        self._taken: list[_Going] = []
        self._held = Held()
        self._size = self._fit = 0
        self.is_over = False

    def take(self, one: _Going) -> None:
        if self.is_over:
            return
        self._taken.append(one)
        self._size += one.size
        _hold(self._held, one)
        if self._held.range_count <= MAX_RANGES:
            self._fit = len(self._taken)
        self.is_over = self._size >= self._excess or self._held.range_count > FARTHEST

    def doomed(self) -> Doomed:
        kept, held = self._taken[: self._fit], Held()
        for one in kept:
            _hold(held, one)
        count = sum(1 + one.number for one in kept)
        return Doomed([one.sequence for one in kept], held.ranges, count, sum(k.size for k in kept))


def _hold(held: Held, one: _Going) -> None:
    held.add(one.sequence)
    for first, last in one.ranges:
        held.add(first, last)


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
