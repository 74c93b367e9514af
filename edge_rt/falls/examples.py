"""Training examples for the fall model: recordings, changed as other sensors would have changed
them, run through the device's own clock, resampling and channels (core.timebase, core.windows).

An example is a stretch of channels with, for every hop in it, whether the network should score it
as a fall, as none, or is not judged there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.adapters.trials import Trial
from edge_rt.core.resample import AreaResampler, to_fixed
from edge_rt.core.timebase import TICKS_PER_S, SampleClock, Ticks
from edge_rt.core.types import Float32Array
from edge_rt.core.windows import FeatureStream

STRETCH_HOPS = 94  # 15 s: one SisFall fall trial
POSITIVE_S = (0.8, 2.4)  # windows that end so long after the peak hold impact and aftermath
UNTOUCHED_S = -0.3  # until then a fall trial is an ordinary activity
SETTLED_S = 0.3  # start-up is judged from here on

# How other sensors differ (`vary`). Wider than data sheets say: straps, cases and cheap clones.
GAIN = 0.12
OFFSET_G = 0.04  # standard deviation
NOISE_G = 0.02  # largest rms
SPEED = 0.05  # nominal rates are off by some per cent
SLOW_SHARE = 0.35  # of the variants come from a slow sensor
SLOW_HZ = (12.0, 60.0)
RANGES_G = {2.0: 0.12, 4.0: 0.22, 8.0: 0.2, 16.0: 0.46}  # range: share
LATE_SHARE = 0.3  # are switched on shortly before the fall

FALL, NONE, IGNORED = 1, 0, -1


class Grid(NamedTuple):
    """What the channels are computed on; the same numbers as the manifest's [input]."""

    rate_hz: float
    window: int
    hop: int
    channels: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows of an example: enough for `STRETCH_HOPS` windows."""
        return self.window + (STRETCH_HOPS - 1) * self.hop


class Placed(NamedTuple):
    """A trial on the even time base: its longest uninterrupted run.

    peak  tick of the largest |a|: taken as the impact of a fall
    """

    trial: Trial
    ticks: Ticks
    acc_g: Float32Array
    peak: int


class Example(NamedTuple):
    """rows float32 (grid.rows, channels); target int8 (STRETCH_HOPS,): FALL, NONE or IGNORED."""

    rows: Float32Array
    target: npt.NDArray[np.int8]


def place(trial: Trial) -> Placed:
    """Put a trial on the time base as the device would, `arrival` stamps where there are any."""
    clock = SampleClock(trial.rate_hz, "even" if trial.t_s is None else "arrival")
    runs = clock.place(trial.times_s())
    run = max(runs, key=lambda r: len(r.ticks))
    acc = trial.acc_g[run.keep]
    power = np.square(acc, dtype=np.float64).sum(axis=1)
    return Placed(trial, run.ticks, acc, int(run.ticks[power.argmax()]))


def vary(placed: Placed, rng: np.random.Generator) -> Placed:
    """The trial as another sensor, worn otherwise and switched on at another time, might see it."""
    ticks, acc, peak = placed.ticks, placed.acc_g.astype(np.float64), placed.peak
    begin = _begin(placed, rng)
    acc, ticks = acc[begin:], ticks[begin:]
    acc = acc @ _rotation(rng).T * rng.uniform(1 - GAIN, 1 + GAIN) + rng.normal(0, OFFSET_G, 3)
    if rng.random() < SLOW_SHARE:
        acc, ticks = _decimate(acc, ticks, rng)
    speed = rng.uniform(1 - SPEED, 1 + SPEED)
    ticks, peak = np.rint(ticks * speed).astype(np.int64), round(peak * speed)
    limit = rng.choice(list(RANGES_G), p=list(RANGES_G.values()))
    acc += rng.normal(0.0, rng.uniform(0.0, NOISE_G), acc.shape)
    acc = np.clip(acc, -limit, limit)
    return Placed(placed.trial, ticks, acc.astype(np.float32), peak)


def _begin(placed: Placed, rng: np.random.Generator) -> int:
    """First sample kept: anywhere in the first hop, or at times late: a fall soon after start."""
    ticks = placed.ticks
    late = rng.random() < LATE_SHARE
    if not late:
        at = rng.uniform(0.0, 0.16)
    elif placed.trial.is_fall:
        newest = max(0.0, (placed.peak - ticks[0]) / TICKS_PER_S - 0.4)
        at = rng.uniform(max(0.0, newest - 4.0), newest)
    else:
        at = rng.uniform(0.0, min(8.0, max(0.0, (ticks[-1] - ticks[0]) / TICKS_PER_S - 3.0)))
    begin = int(np.searchsorted(ticks, ticks[0] + at * TICKS_PER_S))
    return min(begin, max(0, len(ticks) - 2))


def _rotation(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Uniform random rotation (Shoemake 1992, "Uniform random rotations", Graphics Gems III)."""
    q = rng.normal(size=4)
    w, x, y, z = q / np.sqrt((q * q).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _decimate(
    acc: npt.NDArray[np.float64], ticks: Ticks, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], Ticks]:
    """A slow sensor without a filter: the nearest sample at each of its own times."""
    rate_hz = float(np.exp(rng.uniform(np.log(SLOW_HZ[0]), np.log(SLOW_HZ[1]))))
    times = np.arange(ticks[0], ticks[-1], TICKS_PER_S / rate_hz)
    nearest = np.unique(np.minimum(np.searchsorted(ticks, times), len(ticks) - 1))
    return acc[nearest], ticks[nearest]


def channels(placed: Placed, grid: Grid) -> Float32Array:
    """Channels of the whole trial, float32 (n, channels), on a grid that starts with it."""
    resampler = AreaResampler(grid.rate_hz, int(placed.ticks[0]))
    fixed = resampler.push(placed.ticks, to_fixed(placed.acc_g))
    if not len(fixed):
        return np.zeros((0, len(grid.channels)), np.float32)
    return FeatureStream(grid.rate_hz, grid.channels).push(fixed)


def examples(placed: Placed, grid: Grid) -> Iterator[Example]:
    """Cut a trial into examples; a fall gives one, around its impact."""
    rows = channels(placed, grid)
    n, stretch = len(rows), STRETCH_HOPS * grid.hop
    if n < 2 * grid.hop:
        return
    peak = (placed.peak - int(placed.ticks[0])) / TICKS_PER_S * grid.rate_hz
    # As on the device, the window before the first sample holds the first row.
    padded = np.concatenate((np.repeat(rows[:1], grid.window, axis=0), rows))
    begins: Sequence[int] = range(0, max(n - stretch // 5, 1), stretch)
    if placed.trial.is_fall:
        begins = [max(0, min(n, round(peak) + 3 * stretch // 5) - stretch)]
    for begin in begins:
        # The first window ends one hop into the stretch.
        cut = padded[begin + grid.hop : begin + grid.hop + grid.rows]
        filled = np.concatenate((cut, np.repeat(cut[-1:], grid.rows - len(cut), axis=0)))
        ends = begin + grid.hop * (1 + np.arange(STRETCH_HOPS))
        target = np.full(STRETCH_HOPS, NONE, np.int8)
        if placed.trial.is_fall:
            after = (ends - peak) / grid.rate_hz
            target[after >= UNTOUCHED_S] = IGNORED
            target[(after >= POSITIVE_S[0]) & (after <= POSITIVE_S[1])] = FALL
        target[(ends > n) | (ends < SETTLED_S * grid.rate_hz)] = IGNORED
        yield Example(filled, target)
