"""A simulated person: posture and acceleration of trunk and arm, motion by motion.

SIMULATED data: plausible mechanics with parameters from the literature, not a recording.

The trunk leans (rotation by `lean` towards a horizontal direction) and rolls about its own long
axis; its sensor is accelerated by the motion of its place on the body and by contact pulses.
World frame: x ahead, y left, z up. Lengths in metres, accelerations in m/s^2.

Sources:
  walking   cadence 1.6 to 2.1 steps/s and trunk accelerations: Winter, Biomechanics and Motor
            Control of Human Movement (2009); Moe-Nilssen & Helbostad, J. Biomech. 37 (2004) 121
  sitting, rising   hip moves by minimum jerk: Flash & Hogan, J. Neurosci. 5 (1985) 1688
  falling   uniform rod about the feet, partly held by muscle, 0.7 to 0.9 s from loss of balance:
            Hsiao & Robinovitch, J. Biomech. 31 (1998) 1; hip meets the floor at 2 to 4 m/s:
            van den Kroonenberg, Hayes & McMahon, J. Biomech. 29 (1996) 807
  magnitudes  peaks, reduced weight before impact, stillness and posture after it compared with the
            waist recordings of Sucerquia, Lopez & Vargas-Bonilla, Sensors 17 (2017) 198 (SisFall)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge_rt.core.types import FloatArray
from edge_rt.falls.curves import FINE_HZ, G, arc, noise, pulse, second, smooth, soon, topple, turned


class Piece(NamedTuple):
    """One motion on the 400 Hz grid; n samples.

    lean    float64 (n, 2)  lean vector, rad: the trunk's top goes towards (x, y)
    roll    float64 (n,)    about the trunk's long axis, rad
    acc     float64 (n, 3)  acceleration of the waist in the world, m/s^2, without gravity
    arm     float64 (n, 2)  the arm against the trunk, rad: the hand goes towards (x, y); 0 hanging
    hand    float64 (n, 3)  what the wrist feels beyond the waist, world, m/s^2
    impact  sample of the hardest contact with the floor, -1 if there is none
    """

    lean: FloatArray
    roll: FloatArray
    acc: FloatArray
    arm: FloatArray
    hand: FloatArray
    impact: int = -1


class Body:
    """Somebody with a height, a way of walking and a posture; every draw comes from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.height_m = float(np.clip(rng.normal(1.70, 0.09), 1.5, 1.95))
        self.step_hz = float(rng.uniform(1.6, 2.1))
        self.vigour = float(rng.uniform(0.7, 1.2))
        self.lean = rng.normal(0.0, 0.04, 2)
        self.roll = 0.0
        self.arm = np.zeros(2)
        self.seated = False
        self.lying = False

    # ---- at rest ----

    def stand(self, seconds: float) -> Piece:
        """Upright with the sway of quiet standing, about 0.01 g."""
        return self._rest(seconds, sway=0.1)

    def sit(self, seconds: float) -> Piece:
        """Seated, shifting a little."""
        return self._rest(seconds, sway=0.08)

    def lie(self, seconds: float) -> Piece:
        """Lying still: breath at 0.2 to 0.3 Hz and the beat of the heart, thousandths of a g."""
        piece = self._rest(seconds, sway=0.06)
        t = np.arange(len(piece.roll)) / FINE_HZ
        breath, beat = self.rng.uniform(0.2, 0.3), self.rng.uniform(1.0, 1.4)
        piece.acc[:, 2] += 0.03 * np.sin(2 * np.pi * breath * t) + 0.02 * np.sin(
            2 * np.pi * beat * t
        )
        return piece

    # ---- upright and moving ----

    def walk(self, seconds: float) -> Piece:
        """Level walking."""
        return self._gait(seconds, self.step_hz, 2.4 * self.vigour, 5.0 * self.vigour, 0.35)

    def jog(self, seconds: float) -> Piece:
        """Slow running: strides 1.4 times as quick, with short phases of flight."""
        return self._gait(seconds, 1.4 * self.step_hz, 9.0 * self.vigour, 24.0 * self.vigour, 0.7)

    def stumble(self) -> Piece:
        """A foot catches; two quick hard steps save the balance."""
        rng, seconds = self.rng, self.rng.uniform(1.2, 1.6)
        n = round(seconds * FINE_HZ)
        t = np.arange(n) / FINE_HZ
        piece = self._rest(seconds, sway=0.25)
        lean = rng.uniform(0.2, 0.5)
        piece.lean[:, 0] += lean * np.sin(np.pi * (t / seconds).clip(0, 1)) ** 2
        caught = 0.12
        pulse(piece.acc, caught, 0.09, (-6.0 * self.vigour, rng.normal(0, 2.0), 1.5))
        for after, share in ((rng.uniform(0.3, 0.4), 1.0), (rng.uniform(0.65, 0.8), 0.6)):
            push = share * rng.uniform(16.0, 42.0)
            pulse(piece.acc, caught + after, rng.uniform(0.05, 0.09),
                   (-0.35 * push, rng.normal(0, 0.2) * push, push))  # fmt: skip
        piece.arm[:, 0] += 0.9 * np.sin(np.pi * t / seconds) ** 2
        return piece

    def bend(self) -> Piece:
        """To the floor for an object, and up again."""
        seconds = self.rng.uniform(2.4, 4.0)
        piece = self._rest(seconds, sway=0.1)
        bow = arc(len(piece.roll))
        piece.lean[:, 0] += self.rng.uniform(0.5, 1.1) * bow
        piece.acc[:, 2] += second(-self.rng.uniform(0.1, 0.3) * bow)
        piece.arm[:, 0] += 0.8 * bow
        return piece

    def jump(self) -> Piece:
        """A gentle jump for something on a high shelf, landing on bent knees."""
        rng = self.rng
        flight = rng.uniform(0.18, 0.32)
        piece = self._rest(1.8, sway=0.1)
        t = np.arange(len(piece.roll)) / FINE_HZ
        push, land = 0.35, 0.6 + flight
        take_off = G * flight / 2
        # Velocity before and after must balance: dip, push, flight, landing.
        pulse(piece.acc, 0.3, 0.3, (0, 0, -np.pi * 0.5 / (2 * 0.3)))
        pulse(piece.acc, 0.45, 0.6 - push, (0, 0, np.pi * (take_off + 0.5) / (2 * (0.6 - push))))
        piece.acc[(t >= 0.6) & (t < land), 2] -= G
        width = rng.uniform(0.04, 0.10)
        pulse(piece.acc, land + width / 2, width, (0, 0, np.pi * take_off / (2 * width)))
        piece.arm[:, 0] += 1.5 * np.exp(-(((t - 0.8) / 0.3) ** 2))
        return piece

    # ---- from one posture to another ----

    def sit_down(self) -> Piece:
        """Onto a chair: the trunk bends ahead, the hip drops, the seat receives it."""
        rng = self.rng
        seconds = rng.uniform(0.8, 2.2)
        drop_m = rng.uniform(0.38, 0.5)
        piece = self._turn(seconds, np.array([rng.uniform(-0.35, -0.05), 0.0]), arm=(1.1, 0.0))
        piece.lean[:, 0] += rng.uniform(0.3, 0.6) * arc(len(piece.roll))
        piece.acc[:, 2] += second(-drop_m * smooth(len(piece.roll)))
        pulse(piece.acc, 0.85 * seconds, 0.09, (0, 0, rng.uniform(2.0, 13.0) / seconds))
        self.seated = True
        return piece

    def collapse(self) -> Piece:
        """Into a chair, legs giving way: the hardest landing of daily life."""
        rng = self.rng
        seconds = rng.uniform(0.5, 0.8)
        down = self._turn(
            seconds, np.array([rng.uniform(-0.4, -0.1), 0.0]), arm=(1.1, 0.0), sway=0.5
        )
        down.acc[:, 2] += second(-rng.uniform(0.3, 0.5) * smooth(len(down.roll)))
        settled = self._rest(0.8, sway=0.5)
        piece = _join(down, settled)
        push = rng.uniform(8.0, 28.0)
        pulse(piece.acc, seconds, rng.uniform(0.06, 0.12), (rng.uniform(-0.4, 0.4) * push, 0, push))
        self.seated = True
        return piece

    def get_up(self) -> Piece:
        """From chair or floor to standing."""
        rng = self.rng
        seconds = rng.uniform(3.5, 5.5) if self.lying else rng.uniform(1.2, 2.2)
        rise_m = 0.85 if self.lying else 0.45
        bend = 0.4 if self.lying else rng.uniform(0.4, 0.7)
        piece = self._turn(seconds, rng.normal(0.0, 0.04, 2), arm=(0.0, 0.0), sway=0.4)
        piece.lean[:, 0] += bend * arc(len(piece.roll))
        piece.acc[:, 2] += second(rise_m * smooth(len(piece.roll)))
        self.seated = self.lying = False
        return piece

    def lie_down(self) -> Piece:
        """Slowly onto a bed, on the back or a side."""
        rng = self.rng
        seconds = rng.uniform(2.5, 4.5)
        turn = rng.choice([np.pi, np.pi / 2, -np.pi / 2]) + rng.normal(0, 0.15)
        target = rng.uniform(1.35, 1.65) * np.array([np.cos(turn), np.sin(turn)])
        piece = self._turn(seconds, target, arm=(0.5, 0.0), sway=0.25)
        piece.acc[:, 2] += second(-rng.uniform(0.2, 0.7) * smooth(len(piece.roll)))
        pulse(piece.acc, 0.9 * seconds, 0.15, (0, 0, rng.uniform(0.8, 3.0)))
        self.lying = True
        return piece

    def turn_over(self) -> Piece:
        """In bed, from one side to another."""
        rng = self.rng
        roll = rng.choice([-1.0, 1.0]) * rng.uniform(1.0, 1.8)
        return self._turn(rng.uniform(1.2, 2.5), self.lean, roll=roll, sway=0.5, arm=self.arm)

    def fall(self) -> Piece:
        """Loss of balance, reduced weight, contact, ringing, rest on the floor."""
        rng = self.rng
        ways = [0.0, np.pi / 2, -np.pi / 2]
        if not self.seated:  # a chair has a back
            ways.append(np.pi)
        turn = rng.choice(ways) + rng.normal(0.0, 0.3)
        ahead = np.array([np.cos(turn), np.sin(turn)])
        if self.seated:
            rod_m, waist_m = 0.62 * self.height_m, rng.uniform(0.5, 0.6)
        else:
            rod_m, waist_m = self.height_m, 0.56 * self.height_m
        theta, rate = topple(
            start=rng.uniform(0.17, 0.3),
            rate=rng.uniform(0.6, 1.4),
            end=float(np.arccos(0.12 / waist_m)),
            pull=rng.uniform(0.6, 1.0) * 1.5 * G / rod_m,
        )
        # Hips bend: the trunk turns less than the legs, and catches up on the floor.
        trunk = rng.uniform(0.4, 0.9)
        lost = self._turn(
            rng.uniform(0.25, 0.45),
            trunk * theta[0] * ahead,
            sway=1.2,
            arm=self.arm + rng.normal(0.0, 0.15, 2),
        )
        trip = rng.uniform(1.0, 6.0)
        pulse(lost.acc, 0.12, 0.12, (-trip * ahead[0], -trip * ahead[1], rng.uniform(-2.0, 2.0)))

        knees = rng.uniform(0.0, 0.35) * smooth(len(theta))  # they give way on the way down
        out = waist_m * np.sin(theta)
        up = waist_m * np.cos(theta) * (1.0 - knees)
        down = self._rest(len(theta) / FINE_HZ, sway=rng.uniform(1.0, 3.5))  # they struggle
        down.lean[:] = trunk * theta[:, None] * ahead
        self.lean = down.lean[-1]
        down.acc[:, :2] += second(out)[:, None] * ahead
        down.acc[:, 2] += second(up)
        # The arm keeps hanging while the trunk turns, and reaches out.
        reach = rng.uniform(0.0, 0.6) * ahead
        down.arm[:] += rng.uniform(0.2, 1.0) * (down.lean - down.lean[0])
        down.arm[:] += smooth(len(theta))[:, None] * reach
        self.arm = down.arm[-1]

        # Knees, hands or a foot touch first.
        touch = rng.uniform(0.0, 16.0)
        pulse(
            down.acc,
            len(theta) / FINE_HZ - rng.uniform(0.05, 0.3),
            rng.uniform(0.05, 0.12),
            (-0.4 * touch * ahead[0], -0.4 * touch * ahead[1], touch),
        )
        speed = waist_m * float(rate[-1]) * rng.uniform(0.3, 0.95)  # hands and knees take some
        hit = self._contact(speed, ahead)
        piece = _join(lost, down, hit)
        hand = rng.uniform(-0.12, 0.02)  # the hands meet the floor before the trunk, mostly
        at = (len(lost.roll) + len(down.roll)) / FINE_HZ + hand
        width = rng.uniform(0.02, 0.05)
        pulse(piece.hand, at, width, (0, 0, np.pi * rng.uniform(0.8, 2.5) / (2 * width)))
        self.lying, self.seated = True, False
        return piece._replace(impact=len(lost.roll) + len(down.roll) + hit.impact)

    # ---- parts ----

    def _contact(self, speed: float, ahead: FloatArray) -> Piece:
        """From the first touch at `speed` m/s to rest, with bounce and ringing."""
        rng = self.rng
        tilt = np.radians(np.clip(rng.normal(93.0, 10.0), 68.0, 118.0))
        lean, hung = self.lean, self.arm
        # The forearm comes to lie as well, somewhere about where the body points.
        flat = rng.normal(1.45, 0.25) * turned(ahead, rng.normal(0.0, 0.8))
        piece = self._turn(
            rng.uniform(1.0, 1.6),
            ahead * tilt,
            roll=rng.normal(0, 0.5),
            sway=7.0,
            low_hz=8.0,
            arm=ahead * tilt - flat,
        )
        n = len(piece.roll)
        # Trunk and forearm are down within 0.4 s; the trunk swings past its place and comes back.
        down = soon(n, rng.uniform(0.25, 0.45))[:, None]
        past = np.exp(-(((np.arange(n) / FINE_HZ - 0.45) / 0.2) ** 2))[:, None]
        piece.lean[:] = lean + down * (self.lean - lean) + rng.uniform(0.0, 0.8) * past * ahead
        piece.arm[:] = hung + soon(n, 0.25)[:, None] * (self.arm - hung)
        # Limbs come down after the trunk: 0.3 to 1 s until all is quiet.
        quiet = np.exp(-np.arange(n) / (rng.uniform(0.12, 0.4) * FINE_HZ))
        piece.acc[:] *= quiet[:, None]
        piece.hand[:] *= np.sqrt(quiet)[:, None]  # the hand longest
        bounce = rng.uniform(0.03, 0.22)
        width = rng.uniform(0.035, 0.09)  # from a firm floor to a thick mat
        peak = np.pi * speed * (1.0 + bounce) / (2.0 * width)
        slide = -rng.uniform(0.2, 0.6) * peak
        push = (slide * ahead[0], slide * ahead[1], peak)
        pulse(piece.acc, width / 2, width, push)
        flight = 2.0 * bounce * speed / G
        again = width + flight
        light = slice(round(width * FINE_HZ), round(again * FINE_HZ))
        piece.acc[light, 2] -= 0.7 * G
        for after, share in ((again, bounce), (rng.uniform(0.12, 0.25), rng.uniform(0.0, 0.2))):
            pulse(piece.acc, after + width / 2, width, tuple(share * value for value in push))
        t = np.arange(len(piece.roll)) / FINE_HZ
        ring = 0.16 * peak * np.exp(-t / rng.uniform(0.04, 0.09))
        axis = rng.normal(size=3)
        axis /= np.sqrt((axis**2).sum())
        shake = ring * np.sin(2 * np.pi * rng.uniform(9.0, 18.0) * t)
        piece.acc[:] += shake[:, None] * axis
        return piece._replace(impact=round(width / 2 * FINE_HZ))

    def _gait(
        self, seconds: float, step_hz: float, swing: float, strike: float, arm: float
    ) -> Piece:
        rng = self.rng
        piece = self._rest(seconds, sway=0.3)
        n = len(piece.roll)
        # Steps vary by a few percent, in time and in force.
        pace = step_hz * (1.0 + 0.04 * noise(rng, n, 0.5))
        phase = np.cumsum(pace) / FINE_HZ
        force = 1.0 + 0.12 * noise(rng, n, 1.0)
        fade = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.4 * FINE_HZ))
        wave = 2 * np.pi * phase
        piece.acc[:, 2] += fade * force * swing * (np.sin(wave) + 0.3 * np.sin(2 * wave + 0.7))
        piece.acc[:, 0] += fade * force * 0.6 * swing * np.sin(wave + 1.9)
        piece.acc[:, 1] += fade * force * 0.5 * swing * np.sin(wave / 2 + 0.4)
        for index in np.flatnonzero(np.diff(np.floor(phase))):
            hard = fade[index] * strike * rng.uniform(0.6, 1.4)
            pulse(piece.acc, index / FINE_HZ, 0.04, (-0.5 * hard, 0.2 * hard, hard))
        piece.lean[:, 0] += fade * (0.05 + 0.03 * np.sin(wave))
        piece.lean[:, 1] += fade * 0.04 * np.sin(wave / 2)
        piece.arm[:, 0] += fade * arm * np.sin(wave / 2)
        return piece

    def _rest(self, seconds: float, sway: float, low_hz: float = 4.0) -> Piece:
        n = max(1, round(seconds * FINE_HZ))
        acc = sway * np.stack([noise(self.rng, n, low_hz) for _ in range(3)], axis=1)
        hand = 1.5 * sway * np.stack([noise(self.rng, n, 6.0) for _ in range(3)], axis=1)
        still = np.ones((n, 1))
        return Piece(still * self.lean, np.full(n, self.roll), acc, still * self.arm, hand)

    def _turn(
        self,
        seconds: float,
        lean: FloatArray,
        arm: FloatArray | tuple[float, float],
        roll: float = 0.0,
        sway: float = 0.15,
        low_hz: float = 4.0,
    ) -> Piece:
        """To a new posture by minimum jerk."""
        piece = self._rest(seconds, sway, low_hz)
        s = smooth(len(piece.roll))
        piece.lean[:] += s[:, None] * (np.asarray(lean) - self.lean)
        piece.roll[:] += s * roll
        piece.arm[:] += s[:, None] * (np.asarray(arm) - self.arm)
        self.lean, self.roll, self.arm = np.array(lean), self.roll + roll, np.array(arm)
        return piece


def _join(*pieces: Piece) -> Piece:
    return Piece(*(np.concatenate([piece[k] for piece in pieces]) for k in range(5)))  # type: ignore[arg-type]


MOTIONS: dict[str, Callable[..., Piece]] = {
    "stand": Body.stand,
    "sit": Body.sit,
    "lie": Body.lie,
    "walk": Body.walk,
    "jog": Body.jog,
    "stumble": Body.stumble,
    "bend": Body.bend,
    "jump": Body.jump,
    "sit_down": Body.sit_down,
    "collapse": Body.collapse,
    "get_up": Body.get_up,
    "lie_down": Body.lie_down,
    "turn_over": Body.turn_over,
    "fall": Body.fall,
}
TIMED = frozenset({"stand", "sit", "lie", "walk", "jog"})  # these are told how long
