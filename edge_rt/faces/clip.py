"""A camera-like clip out of stills: people come near, sway, are lit and blurred, and leave.

Simulated, and labelled so wherever it is shown: only the faces are photographs.
"""

from __future__ import annotations

import importlib.resources
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edge_rt.adapters.imaging import decode_image, expose, soften, warp
from edge_rt.core.errors import CameraError
from edge_rt.core.types import Frame, ImageArray

WIDTH, HEIGHT, RATE_HZ = 640, 480, 15.0
NOISE_LEVELS = 3.0  # standard deviation of a small sensor indoors, in grey levels
# Noise is drawn once, a little larger than a picture, and each frame is shown another part of it:
# drawing a million normals anew costs 20 ms a frame.
NOISE_MARGIN = 32
MOTION_BLUR_PX = 0.9  # blur while a person moves into place
EMPTY_S = 2.5  # longer than the unlock machine waits before it takes an attempt for ended

# Who is in front of the camera, in order, and for how long. The owner is enrolled from owner_1
# alone, so every scene shows a photograph that was not enrolled.
DEMO_SCENES = (
    ("", 1.0),
    ("owner_2.jpg", 5.0),
    ("", EMPTY_S),
    ("stranger_1.jpg", 6.0),
    ("", EMPTY_S),
    ("owner_3.jpg", 5.0),
    ("", EMPTY_S),
    ("stranger_2.jpg", 6.0),
    ("", EMPTY_S),
)


class Scene(NamedTuple):
    """A still in front of the camera for a while; None for nobody."""

    still: ImageArray | None
    seconds: float


class Clip:
    """Frames as a function of their number: the same seed gives the same pictures."""

    def __init__(self, scenes: Sequence[Scene], seed: int, rate_hz: float = RATE_HZ) -> None:
        """Raises ValueError for a clip without frames."""
        self._scenes = tuple(scenes)
        self._counts = [round(scene.seconds * rate_hz) for scene in self._scenes]
        self.rate_hz = rate_hz
        self.length = sum(self._counts)
        if self.length < 1:
            raise ValueError("a clip needs scenes that last a frame at least")
        random = np.random.default_rng(seed)
        self._phases = random.uniform(0.0, 2.0 * math.pi, (len(self._scenes), 4))
        shape = (HEIGHT + NOISE_MARGIN, WIDTH + NOISE_MARGIN, 3)
        noise = random.normal(128.0, NOISE_LEVELS, shape).round()
        self._noise = np.clip(noise, 0, 255).astype(np.uint8)
        fall = np.linspace(70.0, 110.0, HEIGHT)[:, np.newaxis, np.newaxis]
        self._wall = np.broadcast_to(fall, (HEIGHT, WIDTH, 3)).astype(np.uint8)

    def frame(self, number: int) -> ImageArray:
        """Picture `number`, uint8 (480, 640, 3) blue-green-red; numbers wrap at `length`."""
        index, left = 0, number % self.length
        while left >= self._counts[index]:
            left -= self._counts[index]
            index += 1
        t_s = left / self.rate_hz
        phases = self._phases[index]
        still = self._scenes[index].still
        if still is None:
            picture, blur_px = self._wall, 0.0
        else:
            picture, blur_px = self._look(still, t_s, phases)
        if blur_px > 0.2:
            picture = soften(picture, blur_px)
        gain = 1.0 + 0.15 * math.sin(0.9 * t_s + phases[2])
        lift = 8.0 * math.sin(0.6 * t_s + phases[3])
        x, y = 7 * number % NOISE_MARGIN, 13 * number % NOISE_MARGIN
        return expose(picture, gain, lift, self._noise[y : y + HEIGHT, x : x + WIDTH])

    def _look(
        self,
        still: ImageArray,
        t_s: float,
        phases: np.ndarray[tuple[int], np.dtype[np.float64]],
    ) -> tuple[ImageArray, float]:
        """The still as the camera sees it t_s after the person came, and how much it is blurred."""
        near = 1.0 - math.exp(-2.5 * t_s)  # comes closer, then stands
        zoom = HEIGHT / still.shape[0] * (0.7 + 0.3 * near) * (1.0 + 0.03 * math.sin(1.3 * t_s))
        turn = math.radians(3.0) * math.sin(0.8 * t_s + phases[0])
        cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
        x = WIDTH / 2.0 + 25.0 * math.sin(0.7 * t_s + phases[1]) - 60.0 * (1.0 - near)
        y = HEIGHT / 2.0 + 12.0 * math.sin(1.1 * t_s + phases[0])
        middle_x, middle_y = still.shape[1] / 2.0, still.shape[0] / 2.0
        matrix = np.array(
            [
                [cos, -sin, x - cos * middle_x + sin * middle_y],
                [sin, cos, y - sin * middle_x - cos * middle_y],
            ]
        )
        out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        warp(still, matrix, out)
        return out, 2.0 * MOTION_BLUR_PX * (1.0 - near) + 0.3 * abs(math.sin(1.7 * t_s))


class ClipCamera:
    """Shows a clip over and over on the given clock; frames nobody waited for are never made."""

    def __init__(
        self,
        clip: Clip,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clip = clip
        self._period_s = 1.0 / (clip.rate_hz * speed)
        self._clock, self._sleep = clock, sleep
        self._begun_s: float | None = None
        self._shown = -1
        self.dropped = 0

    def open(self) -> None:
        """Start at the first frame."""
        self._begun_s, self._shown = self._clock(), -1

    def read(self, timeout_s: float) -> Frame | None:
        """The newest due frame, None if none is due within timeout_s."""
        if self._begun_s is None:
            raise CameraError("the clip camera is not open")
        now_s = self._clock()
        due = int((now_s - self._begun_s) / self._period_s)
        if due <= self._shown:
            due = self._shown + 1
            wait_s = self._begun_s + due * self._period_s - now_s
            self._sleep(min(max(wait_s, 0.0), timeout_s))
            if wait_s > timeout_s:
                return None
        self.dropped += due - self._shown - 1
        self._shown = due
        return Frame(self._begun_s + due * self._period_s, self._clip.frame(due))

    def close(self) -> None:
        """`open` starts anew."""
        self._begun_s = None


def demo_clip(seed: int = 1, speed: float = 1.0) -> ClipCamera:
    """The built-in story: the owner, a stranger, the owner again, another stranger."""
    media = importlib.resources.files("edge_rt") / "demo_media"
    stills = {
        name: decode_image((media / name).read_bytes(), name) for name, _ in DEMO_SCENES if name
    }
    scenes = [Scene(stills.get(name), seconds) for name, seconds in DEMO_SCENES]
    return ClipCamera(Clip(scenes, seed), speed)
