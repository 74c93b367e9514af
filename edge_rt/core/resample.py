"""Resampling to an even grid by area: each output is the mean of its interval.

The signal between two samples is the straight line through them; an output is the exact integral
of that line over one grid interval, divided by its width. This works up and down (9 to 400 Hz in),
needs no filter design, is causal, and for an input well above the grid rate is the block mean.

Everything is integer (fixed point, `ONE` a g), so sums are exact and associative: the output does
not depend on how the input was cut into blocks. The one division inside a segment is elementwise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_rt.core.timebase import TICKS_PER_S, Ticks
from edge_rt.core.types import Float32Array

Fixed = npt.NDArray[np.int64]

ONE = 1 << 16  # 1 g; 15 ug steps lie below the noise of any accelerometer that can be worn
LIMIT_G = 256.0  # beyond any such sensor; keeps products of one segment under 2**46


def to_fixed(acc_g: Float32Array) -> Fixed:
    """Fixed point of (n, 3) accelerations in g; finite values only, clipped at +-256 g."""
    scaled = np.multiply(acc_g, float(ONE), dtype=np.float64)
    # Twice as fast as np.clip on the few samples of a hop.
    np.minimum(scaled, LIMIT_G * ONE, out=scaled)
    np.maximum(scaled, -LIMIT_G * ONE, out=scaled)
    fixed: Fixed = np.rint(scaled, out=scaled).astype(np.int64)
    return fixed


class AreaResampler:
    """Streaming resampler of one run.

    rate_hz  of the grid
    origin   tick of the grid's first edge; edge k lies at origin + k / rate_hz. The first push may
             start later (a run joined half-way): outputs then start with the first full interval.
    """

    def __init__(self, rate_hz: float, origin: int) -> None:
        self._step = TICKS_PER_S / rate_hz
        self._origin = origin
        self._edge = -1  # number of the newest edge passed; -1 before the first sample
        self._edge_area = np.zeros((1, 3), np.int64)
        self._ticks = np.zeros(0, np.int64)  # newest sample: its tick, value and area up to it
        self._value = np.zeros((0, 3), np.int64)
        self._area = np.zeros((1, 3), np.int64)

    @property
    def edge(self) -> int:
        """Number of outputs that the grid has had since its origin."""
        return self._edge

    def edge_ticks(self, k: int | npt.NDArray[np.int64]) -> Ticks:
        """Ticks of the grid edges numbered k."""
        ticks: Ticks = np.rint(np.multiply(k, self._step)).astype(np.int64) + self._origin
        return ticks

    def push(self, ticks: Ticks, fixed: Fixed) -> Fixed:
        """Outputs that the samples complete.

        ticks int64 (n,) strictly rising, fixed int64 (n, 3); returns int64 (m, 3), row i being the
        mean over the interval that ends at the i-th edge passed.
        """
        t: Ticks = np.concatenate((self._ticks, ticks))
        x: Fixed = np.concatenate((self._value, fixed))
        width = t[1:] - t[:-1]
        # Twice the area, so that it stays an integer. It may wrap around after years: differences
        # of wrapped integers are still right.
        area: Fixed = np.concatenate((self._area, width[:, None] * (x[1:] + x[:-1])))
        np.add.accumulate(area, axis=0, out=area)
        self._ticks, self._value, self._area = t[-1:], x[-1:], area[-1:]

        last = int((int(t[-1]) - self._origin) / self._step) + 1
        if self._edge_ticks_int(last) > t[-1]:
            last -= 1
        start = self._edge + 1
        if self._edge < 0:
            start = max(0, int((int(t[0]) - self._origin) / self._step) - 1)
            while self._edge_ticks_int(start) < t[0]:
                start += 1
        if last < start:
            return np.zeros((0, 3), np.int64)
        bounds = self.edge_ticks(np.arange(start - (self._edge >= 0), last + 1))
        edges = bounds[1:] if self._edge >= 0 else bounds
        if len(width):
            # The newest sample closes the last segment, it does not open one.
            at = np.searchsorted(t[:-1], edges, side="right") - 1
            into = edges - t[at]
            value = x[at]
            rise = (x[at + 1] - value) * (into / width[at])[:, None]
            areas: Fixed = area[at] + into[:, None] * (2 * value + np.rint(rise).astype(np.int64))
        else:  # the very first sample, on an edge
            areas = area[:1]
        if self._edge >= 0:
            areas = np.concatenate((self._edge_area, areas))
        self._edge, self._edge_area = last, areas[-1:]
        means: Fixed = (areas[1:] - areas[:-1]) // (2 * (bounds[1:] - bounds[:-1]))[:, None]
        return means

    def _edge_ticks_int(self, k: int) -> int:
        return round(k * self._step) + self._origin
