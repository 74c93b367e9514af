"""Each reason of the quality gate provoked on its own; a good face passes."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.quality import (
    ADVICE,
    Facts,
    Light,
    Pose,
    QualityRules,
    Reason,
    inside_share,
    judge,
    light_of,
    pose_of,
)

RULES = QualityRules()
GOOD = Facts(
    width_px=120.0,
    inside=1.0,
    light=Light(110.0, 45.0, 0.01, 0.01),
    sharpness=150.0,
    pose=Pose(0.02, 1.0, 0.55),
)

BAD = {
    Reason.TOO_SMALL: GOOD._replace(width_px=RULES.min_width_px - 1),
    Reason.EDGE_OF_FRAME: GOOD._replace(inside=RULES.min_inside - 0.05),
    Reason.TWO_FACES: GOOD._replace(others=(20.0, 100.0)),
    Reason.TOO_DARK: GOOD._replace(light=Light(RULES.min_level - 1, 45.0, 0.0, 0.0)),
    Reason.TOO_BRIGHT: GOOD._replace(light=Light(150.0, 45.0, 0.0, RULES.max_clipped + 0.05)),
    Reason.LOW_CONTRAST: GOOD._replace(light=Light(110.0, RULES.min_contrast - 1, 0.0, 0.0)),
    Reason.BLURRED: GOOD._replace(sharpness=RULES.min_sharpness - 1),
    Reason.TURNED: GOOD._replace(pose=Pose(-RULES.max_turn - 0.05, 0.0, 0.55)),
    Reason.TILTED: GOOD._replace(pose=Pose(0.0, RULES.max_tilt_deg + 1, 0.55)),
    Reason.NODDING: GOOD._replace(pose=Pose(0.0, 0.0, RULES.nod_low - 0.05)),
}


def test_a_good_face_passes_and_a_small_one_behind_it_does_not_matter() -> None:
    assert judge(GOOD, RULES) is None
    assert judge(GOOD._replace(others=(0.2 * GOOD.width_px,)), RULES) is None


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_can_be_provoked(reason: Reason) -> None:
    assert judge(BAD[reason], RULES) is reason
    assert ADVICE[reason]


def test_the_worst_reason_comes_first() -> None:
    both = BAD[Reason.BLURRED]._replace(width_px=10.0)
    assert judge(both, RULES) is Reason.TOO_SMALL


def test_light_of_two_levels() -> None:
    histogram = np.zeros(256, np.float32)
    histogram[[0, 255]] = 0.25, 0.75
    light = light_of(histogram)
    assert light.level == pytest.approx(191.25)
    assert light.contrast == pytest.approx(255 * np.sqrt(0.25 * 0.75))
    assert (light.dark, light.bright) == (0.25, 0.75)


def test_pose_of_an_upright_a_turned_and_a_tilted_face() -> None:
    upright = np.float32([[40, 50], [80, 50], [60, 70], [60, 90]])
    assert pose_of(upright) == pytest.approx((0.0, 0.0, 0.5))
    turned = upright.copy()
    turned[2, 0] += 20
    assert pose_of(turned).turn == pytest.approx(0.5)
    angle = np.radians(30)
    spin = np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    tilted = pose_of(turned @ spin.T)
    assert tilted.tilt_deg == pytest.approx(30, abs=1e-3)
    assert tilted.turn == pytest.approx(0.5, abs=1e-5)
    assert pose_of(np.zeros((4, 2), np.float32)).turn == np.inf


def test_share_inside_the_frame() -> None:
    assert inside_share(np.float32([-10, 0, 10, 20]), 100, 100) == pytest.approx(0.5)
    assert inside_share(np.float32([200, 0, 210, 20]), 100, 100) == 0.0
    assert inside_share(np.float32([5, 5, 5, 5]), 100, 100) == 0.0
