"""What `dt/<what>` tells: aggregates over a reporting period, never a sample, frame or face score.

Everything here differences running totals, so that a report that got lost costs its own period
only, and nobody has to reset a counter that another thread is writing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from edge_rt.core.latency import Snapshot, between

# One bin a unit of log-odds: the fall models answer within +-12. The same places for a probability.
_LOGITS = tuple(float(n) for n in range(-8, 9))
_PROBABILITIES = tuple(round(0.05 * n, 2) for n in range(1, 20))


def score_edges(scale: str) -> tuple[float, ...]:
    """Inner edges of the histogram of fall scores; scale: as in the bundle's `output`."""
    return _PROBABILITIES if scale == "probability" else _LOGITS


class Histogram:
    """Counts between fixed edges; the first and the last bin are open. One writer."""

    __slots__ = ("counts", "edges")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        """Count it; a value on an edge belongs to the bin above, NaN to the last."""
        self.counts[bisect_right(self.edges, value)] += 1


class When(NamedTuple):
    """Of every report. time: RFC 3339; period_s: what it covers, seconds of the monotonic clock."""

    time: str
    clocktrusted: bool
    bootid: str
    monotonicms: str
    period_s: float


class Vitals(NamedTuple):
    """How the board is; None: this kernel does not tell.

    temperature_c   of the hottest thermal zone
    under_voltage   the supply is too weak now; under_voltage_seen: or was, since the boot
    throttled       clock or voltage is held down now; throttled_seen: or was, since the boot
    memory_free_mb  available without swapping; daemon_mb: resident memory of this process
    disk_free_mb    of the file system that holds the state folder
    load            runnable processes, mean of a minute
    up_s            since the boot
    """

    temperature_c: float | None = None
    under_voltage: bool | None = None
    under_voltage_seen: bool | None = None
    throttled: bool | None = None
    throttled_seen: bool | None = None
    memory_mb: float | None = None
    memory_free_mb: float | None = None
    daemon_mb: float | None = None
    disk_mb: float | None = None
    disk_free_mb: float | None = None
    load: float | None = None
    up_s: float | None = None


class FallTotals(NamedTuple):
    """Running totals of the fall pipeline; `signal` by the names that dt/input has."""

    latency: Snapshot
    edges: tuple[float, ...]
    scores: tuple[int, ...]
    signal: dict[str, int]


def health(when: When, vitals: Vitals, daemon: Mapping[str, Any]) -> bytes:
    """Payload of dt/health. daemon: what the runtime knows of itself, JSON-able."""
    return _payload(when, {**vitals._asdict(), **daemon})


def latency(
    when: When,
    before: FallTotals | None,
    after: FallTotals | None,
    faces: Mapping[str, Any] | None,
) -> bytes:
    """Payload of dt/latency: per pipeline and stage, as core.latency summarises.

    faces: the worker has made the difference itself
    """
    falls = between(before.latency, after.latency) if before and after else None
    return _payload(when, {"falls": falls, "faces": faces})


def input_quality(
    when: When,
    before: FallTotals | None,
    after: FallTotals | None,
    faces: Mapping[str, Any] | None,
) -> bytes:
    """Payload of dt/input: rate and faults of the accelerometer, and why frames were no use."""
    signal: dict[str, Any] | None = None
    if before and after:
        signal = {key: _since(before.signal[key], value) for key, value in after.signal.items()}
        samples = signal["samples"]
        signal["rate_hz"] = round(samples / when.period_s, 3) if when.period_s > 0 else None
        for name in ("saturated", "not_finite"):
            signal[f"{name}_share"] = round(signal.pop(name) / samples, 6) if samples else None
    return _payload(when, {"accelerometer": signal, "camera": faces})


def scores(when: When, before: FallTotals, after: FallTotals) -> bytes:
    """Payload of dt/score: counts between `edges`, one more than there are edges."""
    if before.edges == after.edges:
        counts = [_since(b, a) for b, a in zip(before.scores, after.scores, strict=True)]
    else:  # a model with another scale has come since
        counts = list(after.scores)
    return _payload(when, {"edges": after.edges, "counts": counts})


class PowerWatch:
    """Says once that the supply is weak, and again only after it held for `clear_s`."""

    def __init__(self, clear_s: float = 60.0) -> None:
        self._clear_s = clear_s
        self._weak = False
        self._seen: bool | None = None
        self._good_since_s: float | None = None

    def look(self, vitals: Vitals, now_s: float) -> dict[str, Any] | None:
        """Data of a device.power_low event, None if there is nothing new to tell."""
        if vitals.under_voltage is None and vitals.under_voltage_seen is None:
            return None
        # A dip between two looks shows only in the mark that the firmware keeps.
        dipped = bool(vitals.under_voltage_seen) and not self._seen
        # What an earlier run has told, or was before we came, is not news.
        dipped = dipped and self._seen is not None
        self._seen = bool(vitals.under_voltage_seen)
        if vitals.under_voltage or dipped:
            self._good_since_s = None
            told, self._weak = self._weak, True
            now = bool(vitals.under_voltage)
            return None if told else {"reason": "under_voltage", "now": now}
        if self._good_since_s is None:
            self._good_since_s = now_s
        if now_s - self._good_since_s >= self._clear_s:
            self._weak = False
        return None


def _since(before: int, after: int) -> int:
    """A total that fell was started anew (a detector that was reset)."""
    return after - before if after >= before else after


def _payload(when: When, data: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({**when._asdict(), **data})
