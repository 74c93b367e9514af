"""When frames are looked at, with time as an argument; and what counts as movement, on pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_rt.adapters.camera_replay import ReplayCamera
from edge_rt.adapters.imaging import thumbnail
from edge_rt.core.types import ImageArray
from edge_rt.core.wake import (
    BRIGHTNESS,
    CELLS,
    HEIGHT,
    LEVELS,
    LOOK_S,
    WIDTH,
    Wake,
    WakeRules,
    moved,
)
from edge_rt.faces.clip import Clip, Scene

RULES = WakeRules(rate_hz=2.0, awake_s=5.0)
STILL = np.full((HEIGHT, WIDTH), 100, np.uint8)


def with_cells(count: int, levels: int) -> ImageArray:
    picture = STILL.copy()
    picture.ravel()[:count] += np.uint8(levels)
    return picture


def asleep() -> Wake:
    """One that has just had its last look at nothing, at 10 s."""
    wake = Wake(RULES, 0.0)
    wake.check(STILL, 0.0)
    assert wake.check(STILL, 10.0)
    assert wake.asleep(10.0)
    return wake


def test_it_begins_awake_and_falls_asleep() -> None:
    wake = Wake(RULES, 100.0)
    for k in range(75):  # 15 Hz
        t_s = 100.0 + k / 15
        assert wake.wait_s(t_s) == 0.0
        assert wake.check(STILL if wake.wants_thumbnail(t_s) else None, t_s)
    assert wake.asleep(105.0)
    assert 0.0 < wake.wait_s(105.0) <= 0.5


def test_asleep_it_checks_at_the_low_rate_and_looks_now_and_then() -> None:
    wake, looks, t_s = asleep(), 0, 10.0
    for _ in range(40):
        wait_s = wake.wait_s(t_s)
        assert wait_s == pytest.approx(0.5)
        t_s += wait_s
        assert wake.wants_thumbnail(t_s)
        looks += wake.check(STILL, t_s)
    assert looks == pytest.approx(20.0 / LOOK_S, abs=1)
    assert wake.asleep(t_s)


def test_movement_wakes_and_the_very_frame_is_looked_at() -> None:
    wake = asleep()
    assert not wake.check(STILL, 10.5)
    assert wake.check(with_cells(CELLS, LEVELS), 11.0)
    assert wake.wait_s(11.0) == 0.0
    assert not wake.asleep(15.9) and wake.asleep(16.0)


def test_a_face_keeps_it_awake() -> None:
    wake = asleep()
    wake.saw_face(10.0)
    assert not wake.asleep(14.9)


def test_rate_zero_is_always_awake() -> None:
    wake = Wake(WakeRules(rate_hz=0.0), 0.0)
    assert not wake.wants_thumbnail(1e6)
    assert wake.check(None, 1e6) and wake.wait_s(1e6) == 0.0 and not wake.asleep(1e6)


@pytest.mark.parametrize(
    ("cells", "levels", "expected"),
    [
        (CELLS, LEVELS, True),
        (CELLS - 1, 100, False),
        (WIDTH * HEIGHT, BRIGHTNESS - 1, False),
        (WIDTH * HEIGHT, BRIGHTNESS, True),
    ],
)
def test_how_much_is_movement(cells: int, levels: int, expected: bool) -> None:
    assert moved(STILL, with_cells(cells, levels)) is expected
    assert moved(with_cells(cells, levels), STILL) is expected


def test_somebody_under_a_light_that_changes_is_movement() -> None:
    assert moved(STILL, with_cells(40, 2 * LEVELS) - np.uint8(15))


def thumbnails(frames: list[ImageArray]) -> list[ImageArray]:
    return [thumbnail(frame, WIDTH, HEIGHT) for frame in frames]


def test_noise_of_a_sensor_and_slow_light_are_no_movement() -> None:
    clip = Clip([Scene(None, 60.0)], seed=3)
    small = thumbnails([clip.frame(k) for k in range(0, 900, 7)])
    assert not any(moved(a, b) for a, b in zip(small, small[1:], strict=False))


def test_whoever_comes_is_movement(factory_bundle: Callable[[str], Path]) -> None:
    from edge_rt.faces.clip import demo_clip

    clip = demo_clip()._clip
    small = thumbnails([clip.frame(k) for k in range(0, 40, 7)])
    assert any(moved(a, b) for a, b in zip(small, small[1:], strict=False))


def test_people_in_real_recordings_wake_it(shared: Path) -> None:
    """A room with a person who moves about: some second of every five shows it."""
    for path in sorted((shared / "data/video/falls").glob("*.mp4")):
        camera = ReplayCamera(path, paced=False)
        camera.open()
        small, times = [], []
        while len(small) < 40:
            try:
                frame = camera.read(0.0)
            except EOFError:
                break
            assert frame is not None
            if not times or frame.t_s - times[-1] >= 0.5:
                small.append(thumbnail(frame.image, WIDTH, HEIGHT))
                times.append(frame.t_s)
        camera.close()
        seen = [moved(a, b) for a, b in zip(small, small[1:], strict=False)]
        assert any(seen), path.name
