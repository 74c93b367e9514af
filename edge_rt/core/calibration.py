"""An accelerometer's offsets and scales, from how it feels gravity at rest in several positions.

At rest the true acceleration has length 1 g, whatever the position. With offset o and scale s of
each axis, |s * (m_k - o)| = 1 for the mean m_k of every position k: points on an ellipsoid whose
axes are the sensor's. This is the method of six positions and more of Lotters et al., "Procedure
for in-use calibration of triaxial accelerometers", Sensors and Actuators A 68 (1998) 221, solved by
least squares (Gauss-Newton).

The data sheets' tolerances enter as a prior (ridge): six sides determine all six numbers, and one
position alone changes only what it shows, along gravity, shared as the tolerances say.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from edge_rt.core.errors import SensorError
from edge_rt.core.types import FloatArray, SampleBlock

# MPU-6050: offset 50 mg (x, y) and 80 mg (z), scale 3 %; ADXL345: offset 40 mg typically, scale up
# to 10 %. One standard deviation of a part as it comes from the reel.
OFFSET_SIGMA_G, SCALE_SIGMA = 0.06, 0.05
POSE_SIGMA_G = 0.003  # of a mean at rest: noise, a table that shakes, axes not quite square

# A sensor beyond these is broken or was moved; five and two standard deviations and more.
MAX_OFFSET_G, MAX_SCALE = 0.35, 0.15
MAX_LEFT_G = 0.02  # what a position may still be off 1 g after the fit

SIDE_S, MINUTE_S = 2.0, 60.0  # how long one of six sides, and one position alone, is held
STILL_STD_G = 0.015  # noise of both chips is below 6 mg; a hand shakes by more than 20
FACES = ("+x", "-x", "+y", "-y", "+z", "-z")
_UP_SHARE = 0.9  # within 25 degrees of upright

Axis3 = tuple[float, float, float]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """true = scale * (measured - offset), axis by axis, in g.

    sensor   identity of the device it was made with
    poses    how many positions; sides: which of the six were up
    left_g   the largest |length - 1| of a position afterwards
    """

    sensor: str
    offset_g: Axis3
    scale: Axis3
    poses: Annotated[int, Meta(ge=1)]
    sides: tuple[str, ...]
    left_g: float

    @property
    def method(self) -> str:
        return (
            "six positions" if len(self.sides) == len(FACES) else f"{self.poses} of six positions"
        )


def fit(sensor: str, poses: FloatArray) -> Calibration:
    """poses float64 (k, 3), k >= 1: mean of each position at rest, g, uncorrected.

    Raises SensorError for what no working sensor at rest says.
    """
    lengths = np.linalg.norm(poses, axis=1)
    if not np.isfinite(lengths).all() or lengths.min() < 0.6 or lengths.max() > 1.4:
        raise SensorError(
            f"at rest it feels {', '.join(f'{length:.2f}' for length in lengths)} g and not about "
            "1 g; check range, wiring and that it lay still"
        )
    offset, scale = np.zeros(3), np.ones(3)
    for _ in range(20):  # converges in four or five; near the solution each step squares the error
        centred = poses - offset
        corrected = centred * scale
        length = np.linalg.norm(corrected, axis=1)
        unit = corrected / length[:, None]
        jacobian = np.hstack((-unit * scale, unit * centred)) / POSE_SIGMA_G
        residual = (length - 1.0) / POSE_SIGMA_G
        prior = np.concatenate((np.full(3, 1 / OFFSET_SIGMA_G), np.full(3, 1 / SCALE_SIGMA)))
        a = np.vstack((jacobian, np.diag(prior)))
        b = np.concatenate((residual, prior * np.concatenate((offset, scale - 1.0))))
        step = np.linalg.lstsq(a, -b, rcond=None)[0]
        offset, scale = offset + step[:3], scale + step[3:]
        if np.abs(step).max() < 1e-9:
            break
    left = np.abs(np.linalg.norm((poses - offset) * scale, axis=1) - 1.0)
    sides = tuple(face for face in FACES if face in {side_up(pose) for pose in poses})
    found = Calibration(
        sensor=sensor,
        offset_g=_three(offset),
        scale=_three(scale),
        poses=len(poses),
        sides=sides,
        left_g=round(float(left.max()), 6),
    )
    check(found)
    return found


def check(calibration: Calibration) -> None:
    """Raises SensorError for numbers that no working sensor has."""
    offset = max(map(abs, calibration.offset_g))
    scale = max(abs(s - 1.0) for s in calibration.scale)
    if not offset <= MAX_OFFSET_G or not scale <= MAX_SCALE:
        raise SensorError(
            f"calibration says offset {offset:.2f} g, scale off by {scale:.0%}: more than "
            f"{MAX_OFFSET_G} g or {MAX_SCALE:.0%}; the sensor is broken or was moved, repeat it"
        )
    if not calibration.left_g <= MAX_LEFT_G:
        raise SensorError(
            f"positions disagree by {calibration.left_g:.3f} g; it was moved in one, repeat it"
        )


def side_up(pose: FloatArray) -> str | None:
    """Which side points up, one of FACES; None in between. pose float64 (3,), any unit."""
    axis = int(np.argmax(np.abs(pose)))
    if abs(pose[axis]) < _UP_SHARE * float(np.linalg.norm(pose)):
        return None
    return ("+" if pose[axis] > 0 else "-") + "xyz"[axis]


class Rest(NamedTuple):
    """A position at rest: float64 (3,) g."""

    mean_g: FloatArray
    side: str | None


class Stillness:
    """Finds positions at rest in a stream: hold_s without a movement."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._t_s = np.zeros(0)
        self._acc_g: FloatArray = np.zeros((0, 3))

    def feed(self, block: SampleBlock) -> Rest | None:
        """The position, once it was held long enough; then it begins to look anew.

        Raises SensorError for a minute of one and the same value.
        """
        t_s = np.concatenate((self._t_s, block.t_s))
        acc_g: FloatArray = np.concatenate((self._acc_g, block.acc_g.astype(np.float64)))
        if not len(t_s):
            return None
        newest = t_s >= t_s[-1] - self._hold_s
        whole = t_s[-1] - t_s[0] >= self._hold_s
        t_s, acc_g = t_s[newest], acc_g[newest]
        self._t_s, self._acc_g = t_s, acc_g
        if not whole or not acc_g.std(axis=0).max() <= STILL_STD_G:  # also when it is no number
            return None
        if self._hold_s >= MINUTE_S and not np.ptp(acc_g, axis=0).any():
            raise SensorError(
                "the same value for a minute: the sensor is frozen, turn its power off and on; one "
                "that is too coarse to show its noise is calibrated on its six sides"
            )
        mean_g: FloatArray = acc_g.mean(axis=0)
        self._t_s, self._acc_g = np.zeros(0), np.zeros((0, 3))
        return Rest(mean_g, side_up(mean_g))


class Positions:
    """Gathers what `fit` needs: each of the six sides once, or one position held for a minute."""

    def __init__(self, six: bool) -> None:
        self.found: list[Rest] = []
        self._six = six
        self._still = Stillness(SIDE_S if six else MINUTE_S)

    @property
    def missing(self) -> list[str]:
        """Sides that have not been up yet."""
        return [face for face in FACES if face not in {rest.side for rest in self.found}]

    @property
    def done(self) -> bool:
        return not self.missing if self._six else bool(self.found)

    def feed(self, block: SampleBlock) -> Rest | None:
        """A position that was held; it counts if `found` has it now."""
        rest = self._still.feed(block)
        if rest is not None and (not self._six or rest.side in self.missing):
            self.found.append(rest)
        return rest

    def poses(self) -> list[Axis3]:
        """For `fit`."""
        return [_three(rest.mean_g) for rest in self.found]


def _three(values: FloatArray) -> Axis3:
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z
