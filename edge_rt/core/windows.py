"""Channels of acceleration for the fall model: one code for the device and for training.

A channel is causal and looks back a fixed time. All channels but x, y, z are invariant to how the
sensor is turned. They are computed from fixed-point samples (core.resample): moving averages are
differences of integer sums, and everything else uses only elementwise +, -, *, / and square root,
which IEEE 754 rounds correctly. Batch and stream, x86 and ARM therefore agree bit for bit; that is
also why amplitudes are compressed by a fraction and not by a logarithm.

Before the first sample the sensor is taken to have rested at its first value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import ManifestError
from edge_rt.core.resample import ONE, Fixed
from edge_rt.core.types import Float32Array, FloatArray

SHORT_S = 0.4  # posture of now: long against an impact's ringing
LONG_S = 1.0  # posture of before: one or two steps average out
RECENT_S = 1.2  # before = until this long ago: the mean ends ahead of the loss of balance
PAST_S = 2.4  # and the same once more, for falls that begin slowly
STEADY_S = 1.0  # span of motion and gravity in a hop
WEAK_G = 0.2  # below this an average has no direction; its length is taken as this


class Signals:
    """The newest n grid samples with what came before them; derived signals on demand.

    fixed    int64 (back + n, 3) fixed-point g
    back     number of leading rows that are history
    rate_hz  of the grid
    """

    def __init__(self, fixed: Fixed, back: int, rate_hz: float) -> None:
        self.back = back
        self.n = len(fixed) - back
        self._rate_hz = rate_hz
        self._rows = np.ascontiguousarray(fixed.T)

    def count(self, span_s: float) -> int:
        """Grid samples in a span, at least one."""
        return max(1, round(span_s * self._rate_hz))

    @cached_property
    def _sums(self) -> Fixed:
        sums = np.zeros((3, self.back + self.n + 1), np.int64)
        np.add.accumulate(self._rows, axis=1, out=sums[:, 1:])
        return sums

    def mean(self, span_s: float, delay_s: float = 0.0) -> FloatArray:
        """Mean over `span_s` that ends `delay_s` before each sample; float64 (3, n), g."""
        span = self.count(span_s)
        end = self.back + 1 - (self.count(delay_s) if delay_s else 0)
        total = self._sums[:, end : end + self.n] - self._sums[:, end - span : end - span + self.n]
        return total / float(span * ONE)

    @cached_property
    def acc(self) -> FloatArray:
        """float64 (3, n), g."""
        return self._rows[:, self.back :] / float(ONE)

    @cached_property
    def short(self) -> tuple[FloatArray, FloatArray]:
        """Present gravity and its length."""
        return _with_length(self.mean(SHORT_S))

    @cached_property
    def recent(self) -> tuple[FloatArray, FloatArray]:
        """Gravity before the loss of balance and its length."""
        return _with_length(self.mean(LONG_S, RECENT_S))

    @cached_property
    def past(self) -> tuple[FloatArray, FloatArray]:
        """Gravity earlier still and its length."""
        return _with_length(self.mean(LONG_S, PAST_S))

    @cached_property
    def along(self) -> FloatArray:
        """Component along the recent gravity, float64 (n,), g."""
        gravity, length = self.recent
        return _dot(self.acc, gravity) / length

    @cached_property
    def change(self) -> FloatArray:
        """Length of the difference to the sample before, float64 (n,), g."""
        rows = self._rows
        return _length((rows[:, self.back :] - rows[:, self.back - 1 : -1]) / float(ONE))

    def steady(self, at: npt.NDArray[np.intp]) -> Steady:
        """What the last second was like, at the rows `at` (0 is the first row after history)."""
        span = self.count(STEADY_S)
        end = self.back + 1 + at
        gravity = (self._sums[:, end] - self._sums[:, end - span]) / float(span * ONE)
        rows = self._rows / 1.0
        length = np.rint(_length(rows)).astype(np.int64)
        power = np.zeros((2, len(length) + 1), np.int64)
        np.add.accumulate(length, out=power[0, 1:])
        np.add.accumulate(length * length, out=power[1, 1:])
        total = power[:, end] - power[:, end - span]
        variance = np.maximum(total[1] * span - total[0] * total[0], 0)
        moves = np.zeros((3, len(length)), np.int64)
        np.add.accumulate(self._rows[:, 1:] != self._rows[:, :-1], axis=1, out=moves[:, 1:])
        frozen = (moves[:, end - 1] == moves[:, end - span]).any(axis=0)
        return Steady(gravity, np.sqrt(variance / 1.0) / float(span * ONE), frozen)


class Steady(NamedTuple):
    """The last `STEADY_S` before each of m rows.

    gravity  float64 (3, m), mean acceleration, g
    motion   float64 (m,), standard deviation of |a|, g
    frozen   bool (m,), an axis repeated one value all the time
    """

    gravity: FloatArray
    motion: FloatArray
    frozen: npt.NDArray[np.bool_]


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    # Spelled out: einsum, dot and norm may reorder or fuse, and then blocks no longer agree.
    result: FloatArray = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return result


def _length(a: FloatArray) -> FloatArray:
    return np.sqrt(_dot(a, a))


def _with_length(a: FloatArray) -> tuple[FloatArray, FloatArray]:
    return a, np.maximum(_length(a), WEAK_G)


def compress(x: FloatArray) -> FloatArray:
    """4x / (4 + |x|): within 7 % of 1.2 log(1 + x) from 1 to 16 g, without a transcendental."""
    return 4.0 * x / (4.0 + np.abs(x))


def _magnitude(s: Signals) -> FloatArray:
    return compress(_length(s.acc))


def _vertical(s: Signals) -> FloatArray:
    return compress(s.along)


def _horizontal(s: Signals) -> FloatArray:
    gravity, length = s.recent
    return compress(_length(s.acc - gravity * (s.along / length)))


def _jerk(s: Signals) -> FloatArray:
    return compress(s.change)


def _tilt_recent(s: Signals) -> FloatArray:
    return _dot(s.short[0], s.recent[0]) / (s.short[1] * s.recent[1])


def _tilt_past(s: Signals) -> FloatArray:
    return _dot(s.short[0], s.past[0]) / (s.short[1] * s.past[1])


CHANNELS: dict[str, Callable[[Signals], FloatArray]] = {
    "x": lambda s: compress(s.acc[0]),
    "y": lambda s: compress(s.acc[1]),
    "z": lambda s: compress(s.acc[2]),
    "magnitude": _magnitude,
    "vertical": _vertical,
    "horizontal": _horizontal,
    "jerk": _jerk,
    "tilt_recent": _tilt_recent,
    "tilt_past": _tilt_past,
}


def look_back_s() -> float:
    """How far the channels reach back, seconds: after this much signal, start-up is forgotten."""
    return PAST_S + LONG_S


class FeatureStream:
    """Streaming channels on one grid.

    rate_hz   of the grid
    channels  names of `CHANNELS`, in the order of the model's last axis

    Raises ManifestError for an unknown channel.
    """

    def __init__(self, rate_hz: float, channels: Sequence[str]) -> None:
        unknown = [name for name in channels if name not in CHANNELS]
        if unknown:
            raise ManifestError(
                f"channel {unknown[0]!r} is unknown; this runtime knows {', '.join(CHANNELS)}"
            )
        self._rate_hz = rate_hz
        self._functions = [CHANNELS[name] for name in channels]
        # Rounding of the two terms may differ from that of their sum by one row, and the change
        # needs one row more.
        self._back = round(PAST_S * rate_hz) + round(LONG_S * rate_hz) + 2
        self._history: Fixed | None = None

    def signals(self, fixed: Fixed) -> Signals:
        """The samples int64 (n, 3) behind the history of those before; n >= 1."""
        if self._history is None:
            self._history = np.repeat(fixed[:1], self._back, axis=0)
        rows = np.concatenate((self._history, fixed))
        self._history = rows[-self._back :]
        return Signals(rows, self._back, self._rate_hz)

    def channels(self, signals: Signals) -> Float32Array:
        """float32 (n, len(channels))."""
        out = np.empty((signals.n, len(self._functions)), np.float32)
        for k, function in enumerate(self._functions):
            out[:, k] = function(signals)
        return out

    def push(self, fixed: Fixed) -> Float32Array:
        """Channels of the samples int64 (n, 3): float32 (n, len(channels))."""
        return self.channels(self.signals(fixed))
