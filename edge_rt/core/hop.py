"""One step of the fall score stream: what the detector tells the alarm machine."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple


class HopFlag(IntFlag):
    """What is odd about the samples behind a hop; several may hold at once."""

    SATURATED = 1  # a sample reached the sensor's range: peaks are lower bounds
    STUCK = 2  # an axis repeats one value: gravity and posture are not to be trusted
    BRIDGED = 4  # a short gap was filled by interpolation
    WARMING = 8  # the window still reaches back before the first sample (start or restart)
    NOT_FINITE = 16  # NaN or infinite samples were dropped


class Hop(NamedTuple):
    """The score of one window and the raw signal of the hop that completed it.

    t_s       end of the window, seconds on the samples' clock
    score     raw model output, the larger the more fall-like (logit or probability)
    mean      mean of the last `smooth` scores: what the threshold is compared with
    peak_g    largest |a| of the raw samples of this hop, g
    motion_g  standard deviation of |a| over the last 1 s, g
    gravity   mean acceleration over the last 1 s, (x, y, z) in g, sensor axes
    flags     HopFlag bits as a plain int (IntFlag arithmetic is slow in the hot path)
    """

    t_s: float
    score: float
    mean: float
    peak_g: float
    motion_g: float
    gravity: tuple[float, float, float]
    flags: int = 0
