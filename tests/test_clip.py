"""The demo's clip: the same seed gives the same pictures, on a clock that the test drives."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.errors import CameraError
from edge_rt.faces.clip import DEMO_SCENES, RATE_HZ, Clip, ClipCamera, Scene, demo_clip

STILL = np.random.default_rng(4).integers(0, 256, (120, 120, 3)).astype(np.uint8)


def clip(seed: int = 1) -> Clip:
    return Clip([Scene(None, 0.2), Scene(STILL, 0.4)], seed)


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_frames_depend_on_seed_and_number_alone() -> None:
    one, again, other = clip(), clip(), clip(2)
    assert one.length == 9
    again.frame(7)
    assert (one.frame(5) == again.frame(5)).all()
    assert (one.frame(5) != other.frame(5)).any()
    assert (one.frame(5) == one.frame(5 + 9 * 32)).all()  # after 32 rounds the noise recurs too


def test_the_picture_moves_and_is_noisy() -> None:
    frames = clip()
    assert frames.frame(4).shape == (480, 640, 3)
    assert np.abs(frames.frame(4).astype(int) - frames.frame(8)).mean() > 5
    wall = frames.frame(0)[100].astype(float)  # one row of the wall has one grey level
    assert 2.0 < wall.std() < 4.0


def test_a_clip_needs_frames() -> None:
    with pytest.raises(ValueError, match="last a frame"):
        Clip([Scene(None, 0.0)], 1)


def test_the_camera_keeps_time_and_counts_what_nobody_waited_for() -> None:
    clock = Clock()
    camera = ClipCamera(clip(), 2.0, clock, clock.sleep)
    with pytest.raises(CameraError):
        camera.read(1.0)
    camera.open()
    times = [f.t_s for _ in range(3) if (f := camera.read(1.0))]
    assert times == pytest.approx([50.0, 50.0 + 1 / 30, 50.0 + 2 / 30])
    assert camera.dropped == 0
    clock.now_s = 51.01  # 30 frames on
    frame = camera.read(0.0)
    assert frame is not None
    assert (frame.image == clip().frame(30)).all()
    assert camera.dropped == 27
    assert camera.read(0.001) is None


def test_the_built_in_story_never_shows_the_enrolled_photograph() -> None:
    assert "owner_1.jpg" not in {name for name, _ in DEMO_SCENES}
    camera = demo_clip(3)
    camera.open()
    assert camera.read(1.0) is not None
    assert RATE_HZ == 15.0
