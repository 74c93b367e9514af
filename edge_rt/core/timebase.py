"""The sample clock: arrival stamps in, an even and strictly rising time base out.

Two kinds of source:

``even``     every sample carries the time it was taken (a FIFO read at a fixed rate, a recording
             without stamps). Stamps are trusted; what cannot be true is dropped or absorbed.
``arrival``  samples carry the time they were *received*: bursts, jitter, late packets. The true
             times are a line through the arrivals, followed by a growing-memory alpha-beta filter
             (Brookner 1998, "Tracking and Kalman Filtering Made Easy", section 1.2.10) that starts
             from the nominal rate and forgets beyond `MEMORY` samples.

What happens to odd stamps is fixed and counted (`ClockCounters`):

    repeated   even: the sample is dropped.  arrival: expected, counted only
    backward   even: up to `max_gap_s` behind, the sample is dropped; further behind, the source's
               clock was stepped: the step is absorbed, time goes on at the nominal rate
               arrival: a late packet is placed by prediction
    gap        up to `max_gap_s`: the run goes on, the caller interpolates; longer: a new run
    late       arrival only: more than `LATE_S` off the line; if it stays so for `SETTLE_S`,
               the line is moved (a lost stretch, or a clock step when backward)

Every outcome depends on the stamps alone, never on how they were cut into blocks.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import InputError
from edge_rt.core.types import FloatArray

Ticks = npt.NDArray[np.int64]
Stamps = Literal["even", "arrival"]

TICKS_PER_S = 1_000_000
MAX_GAP_S = 1.0  # the gravity average is 1 s long: a longer gap leaves nothing to interpolate from
GAP_PERIODS = 2.5  # a single lost sample (2 periods) is no gap
BURST_S = 0.2  # arrivals this far apart are still bursts: radio links deliver at 5 to 10 Hz
LATE_S = 0.25  # further off the line is a late packet, not jitter
SETTLE_S = 1.0  # WEDA's displaced packets return to the line within 0.4 s
LOST_S = 5.0  # no radio queue holds this much: believe it at once
PRIOR = 25  # samples the nominal rate is worth: 39 Hz is found within 2 s when 50 was promised
MEMORY = 500  # samples; 10 s at 50 Hz follows temperature drift and averages 100 bursts
RATE_FACTOR = 2.5  # WEDA is 0.8 of nominal; a file that names the wrong rate may be half of it


class ClockCounters(msgspec.Struct):
    """Totals since the start of the stream, for telemetry."""

    samples: int = 0  # placed on the time base
    repeated: int = 0
    backward: int = 0
    gaps: int = 0
    clock_steps: int = 0
    late: int = 0
    restarts: int = 0


class Run(NamedTuple):
    """Consecutive samples of one uninterrupted stretch.

    ticks  int64 (n,)  microseconds since the first sample of the stream, strictly rising
    keep   slice or int64 (n,): which samples of the block these are
    fresh  True when this stretch does not continue the one before
    """

    ticks: Ticks
    keep: slice | npt.NDArray[np.int64]
    fresh: bool


class SampleClock:
    """Streaming clock of one source.

    rate_hz    nominal rate of the source
    stamps     "even" or "arrival", see the module
    max_gap_s  longest gap that is bridged

    Raises InputError for a rate that is not positive or an unknown kind of stamps.
    """

    def __init__(
        self, rate_hz: float, stamps: Stamps = "even", max_gap_s: float = MAX_GAP_S
    ) -> None:
        if not 0.0 < rate_hz < 1e5:
            raise InputError(f"rate_hz {rate_hz} is not a sampling rate; give one above 0")
        if stamps not in ("even", "arrival"):
            raise InputError(f"stamps {stamps!r} is unknown; use 'even' or 'arrival'")
        self.counters = ClockCounters()
        self._arrival = stamps == "arrival"
        self._nominal_s = 1.0 / rate_hz
        self._max_gap = round(max_gap_s * TICKS_PER_S)
        self._gap = min(round(GAP_PERIODS * self._nominal_s * TICKS_PER_S), self._max_gap)
        self._settle = max(2, round(SETTLE_S * rate_hz))
        self._origin_s: float | None = None
        self._last = 0  # tick of the newest placed sample
        self._shift = 0  # ticks added to the source's clock to absorb its backward steps
        self._line_s = 0.0  # arrival: where the newest sample lies, seconds since the origin
        self._period_s = self._nominal_s
        self._weight = PRIOR
        self._seen_s = 0.0  # arrival: newest stamp as received
        self._off_line = 0  # arrival: consecutive late samples

    @property
    def origin_s(self) -> float:
        """Time of tick 0 on the source's clock (0 before the first sample)."""
        return 0.0 if self._origin_s is None else self._origin_s

    @property
    def rate_hz(self) -> float:
        """The rate believed at present: estimated for "arrival", nominal for "even"."""
        return 1.0 / self._period_s

    @property
    def gap_ticks(self) -> int:
        """Neighbours further apart than this have a gap between them."""
        return self._gap

    def place(self, t_s: FloatArray) -> list[Run]:
        """Give each sample its tick.

        t_s  float64 (n,), finite, seconds on the source's clock, in order of arrival
        """
        if len(t_s) == 0:
            return []
        if self._arrival or self._origin_s is None:
            return self._collect(t_s)
        ticks = np.rint((t_s - self._origin_s) * TICKS_PER_S).astype(np.int64) + self._shift
        steps = np.diff(ticks, prepend=self._last)
        if steps.min() > 0 and steps.max() <= self._gap:
            self._last = int(ticks[-1])
            self.counters.samples += len(ticks)
            return [Run(ticks, slice(None), False)]
        return self._collect(t_s)

    def put(self, stamp_s: float) -> tuple[int, bool] | None:
        """One sample: its tick, and whether it starts a new run; None if it is dropped.

        The same as `place`, for sources that deliver sample by sample.
        """
        if self._origin_s is None:
            self._origin_s = stamp_s
            self.counters.samples += 1
            return 0, True
        at_s = stamp_s - self._origin_s
        tick = self._put_arrival(at_s) if self._arrival else self._put_even(at_s)
        if tick is None:
            return None
        fresh = tick - self._last > self._max_gap
        self._last = tick
        self.counters.restarts += fresh
        self.counters.samples += 1
        return tick, fresh

    def _collect(self, t_s: FloatArray) -> list[Run]:
        found: list[tuple[bool, list[int], list[int]]] = []
        for index, stamp in enumerate(t_s.tolist()):
            placed = self.put(stamp)
            if placed is None:
                continue
            tick, fresh = placed
            if fresh or not found:
                found.append((fresh, [], []))
            found[-1][1].append(tick)
            found[-1][2].append(index)
        return [
            Run(np.array(ticks, np.int64), np.array(keep, np.int64), fresh)
            for fresh, ticks, keep in found
        ]

    def _put_even(self, at_s: float) -> int | None:
        tick = round(at_s * TICKS_PER_S) + self._shift
        step = tick - self._last
        if step == 0:
            self.counters.repeated += 1
            return None
        if step < 0:
            self.counters.backward += 1
            if step >= -self._max_gap:
                return None
            self.counters.clock_steps += 1
            period = round(self._nominal_s * TICKS_PER_S)
            self._shift += period - step
            return self._last + period
        if step > self._gap:
            self.counters.gaps += 1
        return tick

    def _put_arrival(self, at_s: float) -> int:
        counters = self.counters
        since = at_s - self._seen_s
        self._seen_s = at_s
        if since == 0.0:
            counters.repeated += 1
        elif since < 0.0:
            counters.backward += 1
        elif since > BURST_S and since > GAP_PERIODS * self._nominal_s:
            counters.gaps += 1
        shift_s = self._shift / TICKS_PER_S
        predicted = self._line_s + self._period_s
        error = at_s + shift_s - predicted
        if abs(error) <= LATE_S:
            self._off_line = 0
            self._line_s = predicted + self._learn(error)
        else:
            counters.late += 1
            self._off_line += 1
            self._line_s = predicted
            if self._off_line >= self._settle or abs(error) > LOST_S:
                self._off_line = 0
                if error < 0.0:
                    counters.clock_steps += 1
                    self._shift += round(-error * TICKS_PER_S)
                else:
                    self._line_s = predicted + error
        return max(round(self._line_s * TICKS_PER_S), self._last + 1)

    def _learn(self, error: float) -> float:
        """Correct rate and phase by one arrival; returns the phase step in seconds."""
        n = self._weight = min(self._weight + 1, MEMORY)
        gain = n * (n + 1.0)
        period = self._period_s + error * (6.0 / gain)
        nominal = self._nominal_s
        self._period_s = min(max(period, nominal / RATE_FACTOR), nominal * RATE_FACTOR)
        # Half a period keeps the ticks rising and their spacing within a factor of three.
        half = 0.5 * self._period_s
        return min(max(error * (2.0 * (2.0 * n - 1.0) / gain), -half), half)
