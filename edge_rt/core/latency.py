"""Latency percentiles in fixed memory: log-linear buckets, one small array a stage.

The layout is that of HdrHistogram (Tene, 2012): octaves, each cut into equal parts, so that the
relative error is bounded over the whole range and a record costs one increment.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil, frexp
from typing import NamedTuple

LOWEST_S = 1e-7  # below the cost of reading the clock nothing can be told apart
# 30 octaves reach 107 s: longer than any stage may take before its supervisor ends it.
OCTAVES = 30
PARTS = 16  # parts an octave: a bucket is at most 1/16 wide, its middle at most 3.2 % off
_BUCKETS = OCTAVES * PARTS


class Snapshot(NamedTuple):
    """All that was recorded up to a moment: counts by bucket and sum in seconds, by stage."""

    counts: dict[str, array[int]]
    total: dict[str, float]


def between(before: Snapshot, after: Snapshot) -> dict[str, dict[str, float]]:
    """LatencyRecorder.summary() of what came between two snapshots of one recorder.

    The longest is known to its bucket only, within 3.2 %. A recorder that was reset since counts
    from its reset.
    """
    out: dict[str, dict[str, float]] = {}
    for stage, counts in after.counts.items():
        old = before.counts[stage]
        total = after.total[stage]
        if all(a >= b for a, b in zip(counts, old, strict=True)):
            counts = array("Q", (a - b for a, b in zip(counts, old, strict=True)))
            total -= before.total[stage]
        filled = [index for index, number in enumerate(counts) if number]
        if filled:
            out[stage] = _row(counts, max(0.0, total), _middle(filled[-1]))
    return out


class LatencyRecorder:
    """Durations of named stages; memory is fixed at construction (3.9 kB a stage).

    stages: the names that may be recorded. Not thread-safe: one recorder a thread.
    """

    __slots__ = ("_counts", "_longest", "_total")

    def __init__(self, stages: Sequence[str]) -> None:
        self._counts = {stage: array("Q", bytes(8 * _BUCKETS)) for stage in stages}
        self._longest = dict.fromkeys(stages, 0.0)
        self._total = dict.fromkeys(stages, 0.0)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names given at construction."""
        return tuple(self._counts)

    def record(self, stage: str, seconds: float) -> None:
        """Count one duration; negative ones count as the shortest. KeyError: unknown stage."""
        self._counts[stage][_bucket(seconds)] += 1
        self._total[stage] += seconds
        self._longest[stage] = max(self._longest[stage], seconds)

    def count(self, stage: str) -> int:
        """Number of durations recorded for `stage`."""
        return sum(self._counts[stage])

    def percentile(self, stage: str, percent: float) -> float | None:
        """Duration in seconds that `percent` (0-100) of the records do not exceed; None if none.

        Within 3.2 % of the true value, except below 0.1 us and above 107 s (clamped). ValueError:
        `percent` outside 0 to 100.
        """
        if not 0.0 <= percent <= 100.0:
            raise ValueError(f"percentile {percent} is outside 0 to 100")
        return _percentile(self._counts[stage], percent, self._longest[stage])

    def summary(self) -> dict[str, dict[str, float]]:
        """For each stage with records: count, and mean_ms, p50_ms, p95_ms, p99_ms, max_ms."""
        out: dict[str, dict[str, float]] = {}
        for stage in self._counts:
            if self.count(stage):
                out[stage] = _row(self._counts[stage], self._total[stage], self._longest[stage])
        return out

    def snapshot(self) -> Snapshot:
        """A copy of the present, for between(). Other threads may take one: a record that is made
        meanwhile may be in the counts and not yet in the sum."""
        return Snapshot({k: v[:] for k, v in self._counts.items()}, dict(self._total))

    def resume(self, saved: Snapshot) -> None:
        """Go on from a snapshot of an earlier run; the longest is known to its bucket only.

        ValueError: it is not one of a recorder with these stages.
        """
        if not saved.counts.keys() == self._counts.keys() == saved.total.keys():
            raise ValueError(f"stages {', '.join(saved.counts)}")
        if any(len(counts) != _BUCKETS for counts in saved.counts.values()):
            raise ValueError(f"not {_BUCKETS} buckets a stage")
        for stage, counts in saved.counts.items():
            self._counts[stage] = array("Q", counts)
            self._total[stage] = saved.total[stage]
            filled = [index for index, number in enumerate(counts) if number]
            self._longest[stage] = _middle(filled[-1]) if filled else 0.0

    def reset(self) -> None:
        """Forget everything recorded, for figures a reporting period."""
        for stage, counts in self._counts.items():
            for index in range(_BUCKETS):
                counts[index] = 0
            self._longest[stage] = self._total[stage] = 0.0


def _percentile(counts: array[int], percent: float, longest: float) -> float | None:
    rank = max(1, ceil(sum(counts) * percent / 100.0))
    seen = 0
    for index, number in enumerate(counts):
        seen += number
        if seen >= rank:
            return min(_middle(index), longest)
    return None


def _row(counts: array[int], total: float, longest: float) -> dict[str, float]:
    number = sum(counts)
    row = {"count": number, "mean_ms": 1e3 * total / number}
    for percent in (50, 95, 99):
        row[f"p{percent}_ms"] = 1e3 * (_percentile(counts, percent, longest) or 0.0)
    row["max_ms"] = 1e3 * longest
    return {key: round(value, 6) for key, value in row.items()}


def _bucket(seconds: float) -> int:
    if seconds <= LOWEST_S:
        return 0
    mantissa, exponent = frexp(seconds / LOWEST_S)  # mantissa in [0.5, 1), exponent >= 1
    index = (exponent - 1) * PARTS + int((mantissa - 0.5) * (2 * PARTS))
    return index if index < _BUCKETS else _BUCKETS - 1


def _middle(index: int) -> float:
    octave, part = divmod(index, PARTS)
    return float(LOWEST_S * 2.0**octave * (1.0 + (part + 0.5) / PARTS))
