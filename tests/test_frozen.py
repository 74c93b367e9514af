"""Pictures that repeat bit for bit, and those in which nothing is to be seen."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.frozen import Repeats, flat
from edge_rt.core.types import ImageArray


def noise(seed: int, height: int = 480) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, 640, 3), np.uint8)


def test_only_the_picture_before_counts() -> None:
    repeats = Repeats()
    assert [repeats.repeats(noise(seed)) for seed in (1, 1, 2, 1, 1)] == [
        False, True, False, False, True,
    ]  # fmt: skip


def test_a_camera_may_come_back_with_another_size() -> None:
    repeats = Repeats()
    assert not repeats.repeats(noise(1))
    assert not repeats.repeats(noise(1, 240))
    assert repeats.repeats(noise(1, 240))


@pytest.mark.parametrize(("side", "expected"), [(0, True), (40, True), (80, False)])
def test_a_lamp_in_the_dark_is_flat_and_a_face_is_not(side: int, expected: bool) -> None:
    dark = np.zeros((480, 640, 3), np.uint8)
    dark[200 : 200 + side, 200 : 200 + side] = 120
    assert flat(dark[::8]) is expected
