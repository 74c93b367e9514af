"""When the samples of a FIFO were taken, from how many there were each time somebody looked.

A chip samples by a clock of its own, which is a few per cent off and drifts, and tells only how
many samples wait. Whoever empties the FIFO comes late and irregularly. But a count taken between
`before` and `after` says: the newest of these samples is there by `after`, and the next was not by
`before`. With samples T apart the newest lies in (before - T, after], likely anywhere in it.

A Kalman filter (Kalman 1960, J. Basic Eng. 82:35) of two states, the newest sample's time and T,
takes the middle of that interval as what is measured; its uncertainty is that of an even
distribution, width^2 / 12. What it says is then held to the interval, which is certain. Samples
between two looks are spread evenly: scheduling jitter does not become sampling jitter.
"""

from __future__ import annotations

import numpy as np

from edge_rt.core.types import FloatArray

# Product specifications: MPU-6050 at most 5 % off on its inner clock; ADXL345 about as much.
PERIOD_SIGMA = 0.03
PERIOD_LIMIT = 0.12  # beyond is no clock error: samples were lost or the rate is another one
# How fast the chip's period wanders, as a share of it, in one sample. Steady state then averages
# some thousand samples: temperature moves a chip's clock by less than 0.1 % in a minute.
WANDER = 2e-6
RISE_S = 1e-5  # the time base counts microseconds


class FifoClock:
    """Stamps of one chip. Times in seconds on the clock that the caller reads.

    rate_hz  nominal
    slips    how often the count contradicted the line by more than a sample: some were lost unseen
    """

    def __init__(self, rate_hz: float) -> None:
        self._nominal_s = self._period_s = 1.0 / rate_hz
        self._var_period = (PERIOD_SIGMA * self._period_s) ** 2
        self._var_time = self._cross = 0.0
        self._newest_s: float | None = None  # by the line
        self._stamped_s = -np.inf  # newest stamp given
        self.slips = 0

    @property
    def rate_hz(self) -> float:
        """The chip's rate as measured so far."""
        return 1.0 / self._period_s

    def restart(self) -> None:
        """The count was broken (overflow, error): forget where the line is, keep its slope."""
        self._newest_s = None

    def stamp(self, n: int, before_s: float, after_s: float) -> FloatArray:
        """Times of the n samples counted between the two moments: float64 (n,), strictly rising.

        None is after `after_s`, but for 10 us a sample where they would not rise otherwise.
        """
        if n == 0:
            return np.zeros(0)
        fresh = self._newest_s is None
        if fresh:
            self._begin(before_s, after_s)
        else:
            self._step(n, before_s, after_s)
        newest_s = self._newest_s
        assert newest_s is not None
        # After a fresh start the run before these samples is over: they lie one period apart.
        oldest_s = newest_s - n * self._period_s if fresh else self._stamped_s
        start_s = max(oldest_s, self._stamped_s)
        if newest_s <= start_s:  # the line was moved back: hurry, but do rise
            newest_s = start_s + RISE_S * n
        stamps: FloatArray = start_s + (newest_s - start_s) * (np.arange(1, n + 1) / n)
        self._stamped_s = newest_s
        return stamps

    def _begin(self, before_s: float, after_s: float) -> None:
        width = self._period_s + after_s - before_s
        self._newest_s = after_s - width / 2
        self._var_time, self._cross = width * width / 12, 0.0

    def _step(self, n: int, before_s: float, after_s: float) -> None:
        assert self._newest_s is not None
        period = self._period_s
        # Predict: n periods on.
        newest_s = self._newest_s + n * period
        var_time = self._var_time + 2 * n * self._cross + n * n * self._var_period
        cross = self._cross + n * self._var_period
        var_period = self._var_period + n * (WANDER * period) ** 2
        # Correct: the middle of the two looks is seen, half a period after the newest sample.
        width = period + after_s - before_s
        error = (before_s + after_s) / 2 - (newest_s + period / 2)
        with_time = var_time + cross / 2
        with_period = cross + var_period / 2
        total = with_time + with_period / 2 + width * width / 12
        newest_s += error * with_time / total
        period += error * with_period / total
        self._var_time = var_time - with_time * with_time / total
        self._cross = cross - with_time * with_period / total
        self._var_period = var_period - with_period * with_period / total
        low, high = (self._nominal_s * (1 + share) for share in (-PERIOD_LIMIT, PERIOD_LIMIT))
        self._period_s = min(max(period, low), high)
        self._hold(newest_s, before_s, after_s)

    def _hold(self, newest_s: float, before_s: float, after_s: float) -> None:
        """Keep the newest sample where the count says that it must be."""
        held_s = min(max(newest_s, before_s - self._period_s), after_s)
        self.slips += abs(held_s - newest_s) > self._period_s
        self._newest_s = held_s
