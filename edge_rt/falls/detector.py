"""Accelerometer samples in, fall scores out: clock, resampling, channels, windows, network.

The scores do not depend on how the samples are cut into blocks.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_rt.bundle import Bundle
from edge_rt.core.errors import InputError, ManifestError
from edge_rt.core.hop import Hop, HopFlag
from edge_rt.core.manifest import FallManifest
from edge_rt.core.timebase import MAX_GAP_S, TICKS_PER_S, ClockCounters, SampleClock, Stamps, Ticks
from edge_rt.core.types import Float32Array, SampleBlock
from edge_rt.falls.line import Line, Samples, join

# A new bundle starts from this much signal: windows of up to 26 s behind 3.4 s of look-back.
# At 400 Hz that is 12,000 samples, 340 KB.
HISTORY_S = 30.0
# Samples kept back until a hop is due; reached only by stamps far denser than any accelerometer.
MAX_PENDING = 4096
LATEST_S = 1e10  # year 2286 of the Unix clock; later stamps are no times, and overflow ticks
FEW = 8  # samples: up to here one by one is cheaper than by array
SATURATED = 0.998  # share of the range that counts as its end: two's complement stops one short


class FallDetector:
    """Streaming fall scorer of one accelerometer.

    bundle   an opened fall bundle
    rate_hz  nominal rate of the source, 9 to 400 Hz
    range_g  the source saturates at +- this
    stamps   "even": each stamp is the time its sample was taken; "arrival": when it was received
             (core.timebase)

    The first hop comes with the `smooth`-th window; until a whole window and its look-back are
    filled, the sensor is taken to have rested at its first value and hops carry WARMING.

    >>> import numpy as np, edge_rt
    >>> from edge_rt.core.types import SampleBlock
    >>> detector = edge_rt.FallDetector(edge_rt.open_bundle("fall-waist"), rate_hz=50.0)
    >>> lying = np.tile(np.float32([0, 0, 1]), (500, 1))
    >>> hops = detector.push(SampleBlock(np.arange(500) / 50.0, lying))
    >>> max(hop.mean for hop in hops) < detector.threshold
    True

    Raises ManifestError for a bundle of another task, InputError for an impossible rate.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        rate_hz: float,
        range_g: float = 16.0,
        stamps: Stamps = "even",
        max_gap_s: float = MAX_GAP_S,
    ) -> None:
        # Rounded as the samples are, so that array and number compare alike.
        self._limit_g = float(np.float32(SATURATED * range_g))
        self._clock_of = (rate_hz, stamps, max_gap_s)
        self._bundle = bundle
        self.manifest = _manifest(bundle)
        self.reset()

    def reset(self) -> None:
        """Forget the stream; the next sample starts a new one."""
        self._clock = SampleClock(*self._clock_of)
        self.not_finite = 0
        self._begin()

    def _begin(self) -> None:
        self._line: Line | None = None
        self._single: list[tuple[int, float, float, float, int]] = []
        self._pending: list[Samples] = []
        self._history: deque[Samples] = deque()
        self._dropped = 0  # NOT_FINITE, for the next sample that is good
        self._newest = 0

    @property
    def threshold(self) -> float:
        """The bundle's own threshold on `Hop.mean`."""
        return self.manifest.decision.threshold.value

    @property
    def counters(self) -> ClockCounters:
        """What the clock met since the start."""
        return self._clock.counters

    @property
    def source_rate_hz(self) -> float:
        """Rate of the source as believed at present."""
        return self._clock.rate_hz

    def push(self, block: SampleBlock) -> list[Hop]:
        """Take samples, return the hops that they complete, oldest first.

        Samples with a NaN or infinity are dropped, counted and flagged; see core.timebase for
        stamps. The block may be reused afterwards. Raises InputError for arrays of other shapes
        than (n,) and (n, 3), ModelError when the engine fails.
        """
        t_s, acc_g = np.asarray(block.t_s, np.float64), np.asarray(block.acc_g, np.float32)
        if acc_g.shape != (len(t_s), 3):
            raise InputError(f"samples {acc_g.shape} for {t_s.shape} stamps; give (n, 3) and (n,)")
        # numpy's cost is by the call: for few samples plain numbers are ten times cheaper.
        if len(t_s) <= FEW or not (np.isfinite(acc_g).all() and (np.abs(t_s) < LATEST_S).all()):
            return self._push_singly(t_s, acc_g)
        hops = []
        for run in self._clock.place(t_s):
            if run.fresh:
                hops += self._restart(int(run.ticks[0]))
            self._seal()
            self._pending.append(self._mark(run.ticks, acc_g[run.keep].copy()))
            hops += self._flush_if_due(int(run.ticks[-1]))
        return hops

    def _push_singly(self, t_s: npt.NDArray[np.float64], acc_g: Float32Array) -> list[Hop]:
        hops: list[Hop] = []
        for stamp, (x, y, z) in zip(t_s.tolist(), acc_g.tolist(), strict=True):
            if not (math.isfinite(x + y + z) and abs(stamp) < LATEST_S):
                self.not_finite += 1
                self._dropped = HopFlag.NOT_FINITE.value
                continue
            placed = self._clock.put(stamp)
            if placed is None:
                continue
            tick, fresh = placed
            if fresh:
                hops += self._restart(tick)
            mark, self._dropped = self._dropped, 0
            if max(x, y, z, -x, -y, -z) >= self._limit_g:
                mark |= HopFlag.SATURATED.value
            if tick - self._newest > self._clock.gap_ticks:
                mark |= HopFlag.BRIDGED.value
            self._single.append((tick, x, y, z, mark))
            hops += self._flush_if_due(tick)
        return hops

    def _mark(self, ticks: Ticks, acc_g: Float32Array) -> Samples:
        marks = (np.abs(acc_g) >= self._limit_g).any(axis=1) * np.int64(HopFlag.SATURATED)
        gap = np.diff(ticks, prepend=self._newest) > self._clock.gap_ticks
        marks |= gap * np.int64(HopFlag.BRIDGED)
        marks[0] |= self._dropped
        self._dropped = 0
        return Samples(ticks, acc_g, marks)

    def _restart(self, tick: int) -> list[Hop]:
        hops = self._flush()
        dropped = self._dropped
        self._begin()
        self._dropped, self._newest = dropped, tick
        self._line = Line(self._bundle, self.manifest, tick)
        return hops

    def _flush_if_due(self, newest: int) -> list[Hop]:
        self._newest = newest
        assert self._line is not None  # the first sample of a clock starts a run
        if newest >= self._line.due or len(self._single) >= MAX_PENDING:
            return self._flush()
        return []

    def _seal(self) -> None:
        """Turn samples that came singly into arrays."""
        if self._single:
            rows = np.array(self._single)  # float64 holds ticks of 285 years
            ticks, marks = rows[:, 0].astype(np.int64), rows[:, 4].astype(np.int64)
            self._pending.append(Samples(ticks, rows[:, 1:4].astype(np.float32), marks))
            self._single = []

    def _flush(self) -> list[Hop]:
        self._seal()
        if not self._pending or self._line is None:
            return []
        samples = join(self._pending)
        self._pending = []
        self._history.append(samples)
        oldest = self._newest - round(HISTORY_S * TICKS_PER_S)
        while len(self._history) > 1 and self._history[1].ticks[0] < oldest:
            self._history.popleft()
        return self._line.feed(samples, self._clock.origin_s)

    def swap(self, bundle: Bundle) -> None:
        """Go on with another bundle, from the next hop, on the signal of the last `HISTORY_S`.

        Nothing is missed: the new window is already full. Swapping in the same bundle changes no
        score. Raises ManifestError, and keeps the present bundle, for a bundle of another task.
        """
        manifest = _manifest(bundle)
        if self._line is not None:
            line = Line(bundle, manifest, self._line.origin)
            if self._history:
                line.feed(join(self._history), self._clock.origin_s, catch_up=True)
            self._line = line
        self._bundle, self.manifest = bundle, manifest

    def branch(self) -> Callable[[Bundle], FallDetector]:
        """A second detector beside this one: with another bundle, on the same clock and grid, its
        window already full. Call this between two `push`, the function it returns in any thread:
        that one does the work, and raises what `swap` raises. Push the same blocks to both from
        here on; with the same bundle they give the same scores.
        """
        state = copy.copy(self)
        state._clock = copy.deepcopy(self._clock)
        state._single, state._pending = list(self._single), list(self._pending)
        state._history = deque(self._history)

        def begin(bundle: Bundle) -> FallDetector:
            state.swap(bundle)  # its line is its own from here on
            return state

        return begin


def _manifest(bundle: Bundle) -> FallManifest:
    if not isinstance(bundle.manifest, FallManifest):
        raise ManifestError(
            f'bundle {bundle.manifest.name} is not a fall model; name a bundle with task = "fall"'
        )
    return bundle.manifest
