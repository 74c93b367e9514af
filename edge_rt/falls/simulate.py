"""Seeded accelerometer streams of a simulated person, for the demo, tests and a challenge set.

SIMULATED, and to be labelled so wherever it is shown: `falls.body` moves a body, this module puts
a sensor on it. A sensor feels specific force, f = R^T (a - g), in its own axes; it adds bias, scale
error and noise, saturates at its range and counts in steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from edge_rt.core.errors import InputError
from edge_rt.core.types import FloatArray, SampleBlock
from edge_rt.falls.body import MOTIONS, TIMED, Body, Piece
from edge_rt.falls.curves import FINE_HZ, G

NOISE_G = 0.005  # rms an axis; ADXL345 data sheet rev. G: about 1 LSB at 100 Hz
LSB_G = 1 / 256  # ADXL345 at full resolution
FOREARM_M = 0.15  # half a forearm: it turns about the elbow at one time, about the hand at another

# A motion, or a motion and its seconds.
Script = Sequence[tuple[str, float] | str]

DEMO_SCRIPT: Script = (
    ("stand", 4.0), ("walk", 8.0), "sit_down", ("sit", 5.0), "get_up", ("walk", 5.0),
    "stumble", ("walk", 6.0), "fall", ("lie", 16.0),
)  # fmt: skip
# One for each kind of day that must not alarm.
ACTIVITIES: dict[str, Script] = {
    "walking": (("stand", 2.0), ("walk", 15.0), ("stand", 3.0)),
    "jogging": (("stand", 2.0), ("jog", 12.0), ("stand", 4.0)),
    "sitting": (("stand", 6.0), "sit_down", ("sit", 5.0), "get_up", ("stand", 5.0)),
    "lying": (("stand", 6.0), "sit_down", ("sit", 2.0), "lie_down", ("lie", 5.0), "turn_over",
              ("lie", 4.0), "get_up", ("stand", 4.0)),
    "collapsing": (("stand", 6.0), "collapse", ("sit", 8.0)),
    "stumbling": (("walk", 8.0), "stumble", ("walk", 8.0)),
    "bending": (("stand", 6.0), "bend", ("stand", 5.0), "bend", ("stand", 4.0)),
    "jumping": (("stand", 7.0), "jump", ("stand", 6.0)),
}  # fmt: skip
FALLS: dict[str, Script] = {
    "walking": (("walk", 9.0), "fall", ("lie", 8.0)),
    "standing": (("stand", 9.0), "fall", ("lie", 8.0)),
    "seated": (("stand", 3.0), "sit_down", ("sit", 6.0), "fall", ("lie", 8.0)),
}


class Label(NamedTuple):
    """What happens from `start_s` to `end_s`; an `impact` is a moment."""

    start_s: float
    end_s: float
    what: str


class Simulation(NamedTuple):
    """A simulated stream and what truly happens in it."""

    block: SampleBlock
    labels: tuple[Label, ...]
    rate_hz: float
    range_g: float
    placement: str
    seed: int


class Case(NamedTuple):
    """One simulated trial of a challenge set."""

    name: str
    is_fall: bool
    simulation: Simulation


def simulate(
    script: Script,
    seed: int,
    *,
    rate_hz: float = 50.0,
    range_g: float = 16.0,
    placement: str = "waist",
) -> Simulation:
    """Play `script` with everything that varies drawn from `seed`.

    Body, directions, forces, sensor mounting, bias and noise come from the seed; the same arguments
    give the same samples. Samples are stamped evenly from 0 s.
    InputError: unknown motion or placement, missing seconds, a rate outside 5 to 400 Hz.
    """
    if placement not in ("waist", "wrist"):
        raise InputError(f"placement {placement!r} cannot be simulated; choose waist or wrist")
    if not 5.0 <= rate_hz <= FINE_HZ:
        raise InputError(f"rate {rate_hz} Hz cannot be simulated; choose 5 to {FINE_HZ}")
    rng = np.random.default_rng(seed)
    body = Body(rng)
    pieces, labels, n = [], [], 0
    for entry in script:
        what, piece = _play(body, entry)
        labels.append(Label(n / FINE_HZ, (n + len(piece.roll)) / FINE_HZ, what))
        if piece.impact >= 0:
            moment = (n + piece.impact) / FINE_HZ
            labels.append(Label(moment, moment, "impact"))
        pieces.append(piece)
        n += len(piece.roll)
    felt = np.concatenate([_felt(piece, placement) for piece in pieces])
    block = _sensor(felt, rng, rate_hz, range_g)
    return Simulation(block, tuple(labels), rate_hz, range_g, placement, seed)


def challenge(
    seed: int,
    n: int,
    *,
    rate_hz: float = 50.0,
    range_g: float = 16.0,
    placement: str = "waist",
) -> Iterator[Case]:
    """`n` falls and `n` daily activities, one at a time, each from a seed of its own."""
    seeds = np.random.SeedSequence(seed).generate_state(2 * n)
    for scripts, is_fall in ((FALLS, True), (ACTIVITIES, False)):
        names = list(scripts)
        for k in range(n):
            name = names[k % len(names)]
            own = int(seeds[k + n * (not is_fall)])
            yield Case(
                f"simulated-{'fall' if is_fall else 'adl'}-{name}-{own}",
                is_fall,
                simulate(scripts[name], own, rate_hz=rate_hz, range_g=range_g, placement=placement),
            )


def _play(body: Body, entry: tuple[str, float] | str) -> tuple[str, Piece]:
    what, seconds = (entry, None) if isinstance(entry, str) else entry
    if what not in MOTIONS:
        raise InputError(f"motion {what!r} is not known; choose from {', '.join(MOTIONS)}")
    if (seconds is None) == (what in TIMED):
        need = "needs" if what in TIMED else "takes no"
        raise InputError(f"motion {what!r} {need} seconds")
    return what, MOTIONS[what](body) if seconds is None else MOTIONS[what](body, seconds)


def _felt(piece: Piece, placement: str) -> FloatArray:
    """Specific force in the axes of trunk or forearm, float64 (n, 3), m/s^2."""
    force = piece.acc.copy()
    force[:, 2] += G  # a - g, and g points down
    if placement == "waist":
        return _roll(_unlean(force, piece.lean), piece.roll)
    # The arm carries part of the trunk's shock, and what the hand meets by itself.
    force[:, :] = 0.5 * piece.acc + piece.hand
    force[:, 2] += G
    body = _roll(_unlean(force, piece.lean), piece.roll)
    # The forearm's axis leans away from where the hand goes.
    forearm = _unlean(body, -piece.arm)
    if len(piece.arm) > 1:
        # What counts is how the forearm turns in the world: one that keeps hanging does not.
        rate = np.gradient(piece.arm - piece.lean, axis=0) * FINE_HZ
        forearm[:, :2] += FOREARM_M * np.gradient(rate, axis=0) * FINE_HZ
        forearm[:, 2] += FOREARM_M * (rate * rate).sum(axis=1)
    return forearm


def _unlean(force: FloatArray, lean: FloatArray) -> FloatArray:
    """World to trunk: undo a lean by |lean| towards (x, y) (Rodrigues' formula)."""
    angle = np.sqrt(lean[:, 0] ** 2 + lean[:, 1] ** 2)
    safe = np.where(angle > 1e-9, angle, 1.0)
    axis = np.stack([-lean[:, 1] / safe, lean[:, 0] / safe, np.zeros(len(lean))], axis=1)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    along = (axis * force).sum(axis=1, keepdims=True)
    return np.asarray(force * c - np.cross(axis, force) * s + axis * along * (1.0 - c))


def _roll(force: FloatArray, roll: FloatArray) -> FloatArray:
    c, s = np.cos(roll), np.sin(roll)
    x, y = force[:, 0], force[:, 1]
    return np.stack([c * x + s * y, -s * x + c * y, force[:, 2]], axis=1)


def _sensor(
    felt: FloatArray, rng: np.random.Generator, rate_hz: float, range_g: float
) -> SampleBlock:
    q = rng.normal(size=4)
    w, x, y, z = q / np.sqrt((q**2).sum())  # a mounting of any direction: uniform quaternion
    mount = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    acc_g = felt @ mount.T / G
    # Each reading is the mean over its interval: the sensor's own low pass.
    n = int(len(acc_g) * rate_hz / FINE_HZ)
    edges = np.linspace(0.0, n * FINE_HZ / rate_hz, n + 1)
    total = np.concatenate([np.zeros((1, 3)), np.cumsum(acc_g, axis=0)])
    at = np.arange(len(total))
    read = np.stack([np.diff(np.interp(edges, at, total[:, k])) for k in range(3)], axis=1)
    read *= rate_hz / FINE_HZ
    read = read * (1.0 + rng.normal(0.0, 0.01, 3)) + rng.normal(0.0, 0.02, 3)
    read += rng.normal(0.0, NOISE_G, read.shape)
    counts = np.round(read / LSB_G)
    most = round(range_g / LSB_G)
    acc = (counts.clip(-most, most - 1) * LSB_G).astype(np.float32)
    return SampleBlock((np.arange(n) + 1.0) / rate_hz, acc)
