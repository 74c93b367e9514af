"""The fixed part of the way from samples to scores: one bundle, one uninterrupted run."""

from __future__ import annotations

import math
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
        odd = steady.frozen & (steady.motion > MOVING_G) & (ends >= STEADY_S * self._rate_hz)
        more = odd * int(HopFlag.STUCK) + (ends < self._filled) * int(HopFlag.WARMING)
        hops = list(
            map(
                Hop,
                (edges / float(TICKS_PER_S) + origin_s).tolist(),
                scores,
                means,
                peaks,
                steady.motion.tolist(),
                zip(*steady.gravity.tolist(), strict=True),
                map(int.__or__, flags, more.tolist()),
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

    def _raw_by_hop(self, edges: Ticks) -> tuple[list[float], list[int]]:
        """Largest |a| and marks of the raw samples of each hop; forgets those samples."""
        ticks, power, marks = self._ticks, self._power, self._marks
        cuts: list[int] = np.searchsorted(ticks, edges, side="right").tolist()
        peaks, begin = [], 0
        for end in cuts:
            if end > begin:
                peak = float(power[begin:end].max())
                self._newest = float(power[end - 1])
            else:  # samples rarer than hops: what the last one said
                peak = self._newest
            peaks.append(math.sqrt(peak))
            begin = end
        flags = [0] * len(cuts)
        if marks.any():
            # A hop that ends inside a gap is interpolated, though the sample behind it is to come.
            closing = np.searchsorted(ticks, edges, side="left")
            flags = (marks[closing] & int(HopFlag.BRIDGED)).tolist()
            for k, (start, end) in enumerate(zip([0, *cuts], cuts, strict=False)):
                flags[k] |= int(np.bitwise_or.reduce(marks[start:end]))
        self._ticks, self._power, self._marks = ticks[begin:], power[begin:], marks[begin:]
        return peaks, flags
