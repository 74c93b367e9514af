"""What is kept of a candidate's shadow run: block by block, of fixed size, and through restarts."""

from __future__ import annotations

from array import array
from math import floor, isfinite
from typing import Any

import msgspec

from edge_rt.core.errors import StorageError
from edge_rt.core.latency import LatencyRecorder, Snapshot

SCHEMA = 1
# Two numbers of two bytes a block: 32 kB; at 30 s a block nearly three days.
MAX_BLOCKS = 8192
# A margin is kept in hundredths; beyond +-300 there is nothing to tell apart.
CENT, MOST = 100.0, 30_000
# A block counts when both models were heard for this share of it: what a candidate skipped for
# want of processor time may not look like calm.
COVERED = 0.8
BOTH = ("live", "candidate")
# Of a block of samples through the candidate: processor time, and by the clock on the wall.
STAGES = ("work", "wall")
# Alarms of live and candidate this far apart are about the same event: two windows.
SAME_S = 10.0


class _Saved(msgspec.Struct, kw_only=True):
    schema: int
    block_s: float
    live: list[int]
    candidate: list[int]
    counts: dict[str, float]
    latency: dict[str, list[int]]
    latency_s: dict[str, float]


class ShadowTally:
    """Counts and block maxima. One writer.

    block_s         length of a block
    live_hop_s, candidate_hop_s   how often each model scores

    heard_s, skipped_s    samples' time that the candidate saw, and that it had to leave out
    live_prealarms, candidate_prealarms   as a machine of the same rules raised them for each
    live_alarms, missed   alarms of the device that nobody cancelled, and those of them for which
                          the candidate had raised nothing
    cpu_s                 processor time of the candidate; failures: its detector's
    latency               of a block of samples through the candidate (STAGES); live_p50_ms: the
                          live model's median on the wall, as the pipeline measures it
    """

    def __init__(self, block_s: float, live_hop_s: float, candidate_hop_s: float) -> None:
        self.block_s = block_s
        self._expected = {
            "live": COVERED * block_s / live_hop_s,
            "candidate": COVERED * block_s / candidate_hop_s,
        }
        self.blocks: dict[str, array[int]] = {name: array("h") for name in BOTH}
        self.latency = LatencyRecorder(STAGES)
        self.live_p50_ms: float | None = None
        self.heard_s = self.skipped_s = self.cpu_s = 0.0
        self.live_prealarms = self.candidate_prealarms = 0
        self.live_alarms = self.missed = 0
        self.failures = 0
        self._open: dict[int, dict[str, list[float]]] = {}  # index -> model -> [count, largest]
        self._candidate_at: float | None = None

    # ---- what it is told ----

    def hop(self, who: str, t_s: float, margin: float) -> None:
        """One hop of "live" or "candidate": mean score above its threshold, in log odds."""
        index = floor(t_s / self.block_s)
        block = self._open.get(index)
        if block is None:
            block = self._begin(index)
        entry = block.setdefault(who, [0, -float(MOST)])
        entry[0] += 1
        # A NaN is no answer: it may not stand for calm, and does not for alarm.
        if isfinite(margin) and margin > entry[1]:
            entry[1] = margin

    def prealarm(self, who: str, t_s: float) -> None:
        """The machine of "live" or "candidate" raised a pre-alarm."""
        if who == "live":
            self.live_prealarms += 1
        else:
            self.candidate_prealarms += 1
            self._candidate_at = t_s

    def alarm(self, raised_s: float) -> None:
        """The device's own pre-alarm of `raised_s` became an alarm: nobody cancelled it."""
        self.live_alarms += 1
        at = self._candidate_at
        if at is None or abs(at - raised_s) > SAME_S:
            self.missed += 1

    @property
    def hours(self) -> float:
        """Of samples, seen or left out."""
        return (self.heard_s + self.skipped_s) / 3600.0

    # ---- save and restore ----

    def save(self) -> dict[str, Any]:
        """JSON-able; under 120 kB. Blocks that are still open are left out."""
        latency = self.latency.snapshot()
        saved = _Saved(
            schema=SCHEMA,
            block_s=self.block_s,
            live=self.blocks["live"].tolist(),
            candidate=self.blocks["candidate"].tolist(),
            counts={name: getattr(self, name) for name in _COUNTS},
            latency={stage: counts.tolist() for stage, counts in latency.counts.items()},
            latency_s=latency.total,
        )
        built: dict[str, Any] = msgspec.to_builtins(saved)
        return built

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from `save()`. Raises StorageError if it is not what this version writes."""
        try:
            old = msgspec.convert(saved, _Saved)
            if old.schema != SCHEMA or old.block_s != self.block_s:
                raise ValueError(f"schema {old.schema}, blocks of {old.block_s} s")
            if len(old.live) != len(old.candidate) or len(old.live) > MAX_BLOCKS:
                raise ValueError(f"{len(old.live)} and {len(old.candidate)} blocks")
            if old.counts.keys() != set(_COUNTS):
                raise ValueError("other counts")
            blocks = {"live": array("h", old.live), "candidate": array("h", old.candidate)}
            latency = {stage: array("Q", numbers) for stage, numbers in old.latency.items()}
            self.latency.resume(Snapshot(latency, old.latency_s))
        except (ValueError, OverflowError) as error:
            raise StorageError(f"saved shadow run: {error}; it starts anew") from None
        self.blocks = blocks
        for name, value in old.counts.items():
            setattr(self, name, value if name.endswith("_s") else int(value))

    # ---- blocks ----

    def _begin(self, index: int) -> dict[str, list[float]]:
        # Hops come in order but for a block's length between the two models; a clock that was set
        # anew opens blocks far away, and closes all others.
        for old in sorted(self._open):
            if not index - 1 <= old <= index:
                self._end(self._open.pop(old))
        block = self._open[index] = {}
        return block

    def _end(self, block: dict[str, list[float]]) -> None:
        if len(self.blocks["live"]) >= MAX_BLOCKS:
            return
        if any(who not in block or block[who][0] < self._expected[who] for who in BOTH):
            return
        for who in BOTH:
            cents = round(CENT * block[who][1])
            self.blocks[who].append(max(-MOST, min(MOST, cents)))


_COUNTS = (
    *("heard_s", "skipped_s", "cpu_s", "live_prealarms", "candidate_prealarms"),
    *("live_alarms", "missed", "failures"),
)
