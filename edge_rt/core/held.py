"""A set of sequence numbers as ranges: what a receiver holds, and where its gaps are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice

from edge_rt.core.uplink_wire import MAX_ALSO, MAX_MISSING, LaneReceipt, Range


class Held:
    """Closed, disjoint, ascending ranges of numbers from 1 on.

    Holds 16 bytes a range; a gap stands for an event that was overtaken or lost, so there are
    fewer ranges than stored events.
    """

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int | None = None) -> None:
        """Add a number, or all from `first` to `last`. Raises ValueError for no such range."""
        last = first if last is None else last
        if not 1 <= first <= last:
            raise ValueError(f"{first} to {last} is no range of sequences")
        # Ranges that overlap or touch the new one become part of it.
        left = bisect_right(self._ends, first - 2)
        right = bisect_right(self._starts, last + 1)
        if left < right:
            first = min(first, self._starts[left])
            last = max(last, self._ends[right - 1])
        self._starts[left:right] = [first]
        self._ends[left:right] = [last]

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._starts, number) - 1
        return place >= 0 and number <= self._ends[place]

    @property
    def ranges(self) -> list[Range]:
        return list(zip(self._starts, self._ends, strict=True))

    @property
    def range_count(self) -> int:
        return len(self._starts)

    def gaps(self, upto: int) -> Iterator[Range]:
        """What is missing from 1 to `upto`, ascending."""
        expected = 1
        for first, last in zip(self._starts, self._ends, strict=True):
            if expected > upto:
                return
            if first > expected:
                yield expected, min(first - 1, upto)
            expected = last + 1
        if expected <= upto:
            yield expected, upto

    def receipt(self, upto: int, arrived: Iterable[int]) -> LaneReceipt:
        """Receipt of a lane whose highest event here is `upto`.

        With more than MAX_MISSING gaps it ends before the first one too many, and names what lies
        beyond of those that have just arrived, one by one.
        """
        gaps = list(islice(self.gaps(upto), MAX_MISSING + 1))
        if len(gaps) > MAX_MISSING:
            upto = gaps.pop()[0] - 1
        also = tuple(islice((n for n in arrived if n > upto), MAX_ALSO))
        return LaneReceipt(upto, tuple(gaps), also)
