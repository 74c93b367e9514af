"""The curves that simulated motions are made of, on one fine time grid."""

from __future__ import annotations

import numpy as np

from edge_rt.core.types import FloatArray

G = 9.80665  # m/s^2
FINE_HZ = 400  # fast enough for contact pulses of 20 ms


def topple(start: float, rate: float, end: float, pull: float) -> tuple[FloatArray, FloatArray]:
    """Angle and rate of a rod that falls from `start` to `end` rad: theta'' = pull sin theta."""
    theta, speed = [start], [rate]
    while theta[-1] < end:
        speed.append(speed[-1] + pull * float(np.sin(theta[-1])) / FINE_HZ)
        theta.append(theta[-1] + speed[-1] / FINE_HZ)
    return np.array(theta), np.array(speed)


def turned(direction: FloatArray, angle: float) -> FloatArray:
    """A horizontal direction (x, y) turned by `angle` rad."""
    (x, y), c, s = direction, np.cos(angle), np.sin(angle)
    return np.array([c * x - s * y, s * x + c * y])


def smooth(n: int) -> FloatArray:
    """0 to 1 by minimum jerk."""
    s = np.linspace(0.0, 1.0, n)
    return np.asarray(s**3 * (10.0 - 15.0 * s + 6.0 * s**2))


def soon(n: int, seconds: float) -> FloatArray:
    """0 to 1 by minimum jerk within `seconds`, then 1; n samples."""
    rise = smooth(round(seconds * FINE_HZ))
    return np.concatenate([rise, np.ones(max(0, n - len(rise)))])[:n]


def arc(n: int) -> FloatArray:
    """0 to 1 and back, smoothly."""
    s = np.linspace(0.0, 1.0, n)
    return np.asarray(np.sin(np.pi * s) ** 2)


def second(path: FloatArray) -> FloatArray:
    """Second derivative in time of a path on the fine grid."""
    return np.asarray(np.gradient(np.gradient(path)), np.float64) * FINE_HZ**2


def noise(rng: np.random.Generator, n: int, low_hz: float) -> FloatArray:
    """Gaussian noise of unit spread below about `low_hz`: knots at twice that rate, joined."""
    knots = rng.normal(size=int(n / FINE_HZ * 2 * low_hz) + 3)
    at = np.arange(n) / FINE_HZ * 2 * low_hz + rng.uniform()
    # Linear joining loses a third of the variance.
    return np.asarray(np.interp(at, np.arange(len(knots)), knots) * np.sqrt(1.5))


def pulse(acc: FloatArray, middle_s: float, width_s: float, peak: tuple[float, ...]) -> None:
    """Add a half sine of contact, in place; what lies outside is cut off."""
    first, n = round((middle_s - width_s / 2) * FINE_HZ), max(2, round(width_s * FINE_HZ))
    shape = np.sin(np.pi * (np.arange(n) + 0.5) / n)
    inside = slice(max(0, first), max(0, min(len(acc), first + n)))
    acc[inside] += shape[inside.start - first : inside.stop - first, None] * np.asarray(peak)
