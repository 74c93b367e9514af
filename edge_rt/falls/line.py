"""The fixed part of the way from samples to scores: one bundle, one uninterrupted run."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.bundle import Bundle
from edge_rt.core.hop import Hop, HopFlag
from edge_rt.core.manifest import FallManifest
from edge_rt.core.resample import AreaResampler, to_fixed
from edge_rt.core.timebase import TICKS_PER_S, Ticks
from edge_rt.core.types import Float32Array, FloatArray
from edge_rt.core.windows import STEADY_S, FeatureStream, look_back_s

MOVING_G = 0.05  # an axis that repeats one value is odd only while the others move


class Samples(NamedTuple):
    """Placed samples: ticks (n,), acc_g (n, 3), marks (n,) HopFlag bits of single samples."""

    ticks: Ticks
    acc_g: Float32Array
    marks: npt.NDArray[np.int64]


def join(parts: Sequence[Samples]) -> Samples:
    """Consecutive samples as one."""
    if len(parts) == 1:
        return parts[0]
    return Samples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class Line:
    """From placed samples to hops.

    origin  tick where the grid starts
    due     no hop can be complete before this tick
    """

    def __init__(self, bundle: Bundle, manifest: FallManifest, origin: int) -> None:
        grid = manifest.input
        self.origin = origin
        self._interpreter = bundle.interpreter
        self._shape = bundle.interpreter.inputs[0].shape
        self._window, self._hop, self._rate_hz = grid.window, grid.hop, grid.rate_hz
        self._smooth = manifest.decision.smooth
        self._resampler = AreaResampler(grid.rate_hz, origin)
        self._features = FeatureStream(grid.rate_hz, grid.channels)
        self._filled = grid.window + round(look_back_s() * grid.rate_hz)
        self._recent: npt.NDArray[np.generic] | None = None  # quantized rows, the newest window
        self._scores: deque[float] = deque(maxlen=self._smooth)
        self._power = np.zeros(0)  # |a|^2 and marks of raw samples behind the last hop
        self._marks = np.zeros(0, np.int64)
        self._ticks = np.zeros(0, np.int64)
        self._newest = 0.0  # |a|^2 of the newest raw sample that a hop has taken
        self.due = self._edge(self._hop)

    def _edge(self, k: int) -> int:
        return int(self._resampler.edge_ticks(k))

    def feed(self, samples: Samples, origin_s: float, catch_up: bool = False) -> list[Hop]:
        """Hops that the samples complete; `catch_up` scores no more than smoothing needs."""
        ticks = np.concatenate((self._ticks, samples.ticks))
        x = samples.acc_g.astype(np.float64)
        power: FloatArray = np.concatenate(
            (self._power, x[:, 0] * x[:, 0] + x[:, 1] * x[:, 1] + x[:, 2] * x[:, 2])
        )
        marks = np.concatenate((self._marks, samples.marks))
        self._ticks, self._power, self._marks = ticks, power, marks

        rows = self._resampler.push(samples.ticks, to_fixed(samples.acc_g))
        if not len(rows):
            return []
        signals = self._features.signals(rows)
        raw = self._interpreter.quantize(self._features.channels(signals))
        if self._recent is None:
            self._recent = np.repeat(raw[:1], self._window, axis=0)
        buffer = np.concatenate((self._recent, raw))
        self._recent = buffer[-self._window :]

        edge = self._resampler.edge
        before = edge - len(rows)
        ends = np.arange((before // self._hop + 1) * self._hop, edge + 1, self._hop)
        if not len(ends):
            return []
        self.due = self._edge(int(ends[-1]) + self._hop)
        edges = self._resampler.edge_ticks(ends)
        peaks, flags = self._raw_by_hop(edges)
        if catch_up:
            ends = ends[-self._smooth :]
            self._score(buffer, ends - before)
            return []
        means, scores = self._score(buffer, ends - before)
        steady = signals.steady(ends - before - 1)
        flags |= (ends < self._filled) * np.int64(HopFlag.WARMING)
        odd = steady.frozen & (steady.motion > MOVING_G) & (ends >= STEADY_S * self._rate_hz)
        flags |= odd * np.int64(HopFlag.STUCK)
        times = (edges / float(TICKS_PER_S) + origin_s).tolist()
        gravity = zip(*steady.gravity.tolist(), strict=True)
        hops = list(
            map(
                Hop,
                times,
                scores,
                means,
                np.sqrt(peaks).tolist(),
                steady.motion.tolist(),
                gravity,
                flags.tolist(),
            )
        )
        # Too few scores to smooth yet: nothing to decide on.
        return hops[max(0, self._smooth - int(ends[0]) // self._hop) :]

    def _score(
        self, buffer: npt.NDArray[np.generic], ends: npt.NDArray[np.int64]
    ) -> tuple[list[float], list[float]]:
        """Running means and scores of the windows that end before row window + ends[i]."""
        window, shape, invoke = self._window, self._shape, self._interpreter.invoke
        raw = [invoke(buffer[end : end + window].reshape(shape))[0] for end in ends.tolist()]
        scores: list[float] = self._interpreter.dequantize(np.concatenate(raw))[:, 0].tolist()
        recent, means = self._scores, []
        for score in scores:
            recent.append(score)
            means.append(sum(recent) / len(recent))
        return means, scores

    def _raw_by_hop(self, edges: Ticks) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Largest |a|^2 and marks of the raw samples of each hop; forgets those samples."""
        cuts = np.searchsorted(self._ticks, edges, side="right")
        starts = np.concatenate(([0], cuts[:-1]))
        empty = starts == cuts
        # One more element, for a start at the very end; reduceat has no empty segments.
        peaks = np.maximum.reduceat(np.append(self._power, 0.0), starts)
        flags = np.bitwise_or.reduceat(np.append(self._marks, 0), starts)
        if len(self._ticks) > cuts[-1]:  # the last segment runs to the end of the array
            peaks[-1] = self._power[starts[-1] : cuts[-1]].max(initial=0.0)
            flags[-1] = np.bitwise_or.reduce(self._marks[starts[-1] : cuts[-1]])
        # A hop that ends inside a gap was interpolated, though the sample behind it is to come.
        closing = np.searchsorted(self._ticks, edges, side="left")
        flags[empty] = 0
        flags |= self._marks[closing] & int(HopFlag.BRIDGED)
        if empty.any():  # rarer samples than hops: the peak is what the last sample said
            peaks[empty] = np.append(self._newest, self._power)[starts[empty]]
        last = int(cuts[-1])
        if last:
            self._newest = float(self._power[last - 1])
        self._ticks, self._power = self._ticks[last:], self._power[last:]
        self._marks = self._marks[last:]
        return peaks, flags
