"""Offsets and scales out of positions at rest, and positions out of a stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.calibration import (
    FACES,
    MINUTE_S,
    Calibration,
    Positions,
    Stillness,
    check,
    fit,
    side_up,
)
from edge_rt.core.errors import SensorError
from edge_rt.core.types import SampleBlock

SIX = np.vstack((np.eye(3), -np.eye(3)))
small = st.floats(-1.0, 1.0)


def measured(truth: np.ndarray, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What a sensor says that needs this calibration."""
    return truth / scale + offset


@given(st.tuples(small, small, small), st.tuples(small, small, small), st.integers(0, 2**31))
def test_six_sides_give_all_six_numbers_back(
    offsets: tuple[float, ...], scales: tuple[float, ...], seed: int
) -> None:
    """Also when no side is quite level."""
    rng = np.random.default_rng(seed)
    offset, scale = 0.2 * np.array(offsets), 1 + 0.08 * np.array(scales)
    level = SIX + rng.normal(0, 0.08, SIX.shape)
    poses = level / np.linalg.norm(level, axis=1)[:, None]
    found = fit("x", measured(poses, offset, scale))
    assert found.offset_g == pytest.approx(offset, abs=4e-3)
    assert found.scale == pytest.approx(scale, abs=4e-3)
    assert found.left_g < 1e-3 and found.poses == 6


def test_noise_of_the_means_stays_noise() -> None:
    rng = np.random.default_rng(4)
    offset, scale = np.array([0.05, -0.07, 0.1]), np.array([1.02, 0.97, 1.01])
    poses = measured(SIX, offset, scale) + rng.normal(0, 0.002, (6, 3))
    found = fit("x", poses)
    assert found.offset_g == pytest.approx(offset, abs=5e-3)
    assert found.scale == pytest.approx(scale, abs=5e-3)
    assert found.sides == FACES and found.method == "six positions"


def test_one_position_changes_only_what_it_shows() -> None:
    """Along gravity, shared between offset and scale as tolerances say; the rest stays."""
    found = fit("x", np.array([[0.0, 0.0, 1.06]]))
    assert found.offset_g[:2] == (0.0, 0.0) and found.scale[:2] == (1.0, 1.0)
    assert 0.02 < found.offset_g[2] < 0.05 and 0.95 < found.scale[2] < 0.99
    assert found.left_g < 1e-3 and found.method == "1 of six positions"


@pytest.mark.parametrize(
    ("poses", "complaint"),
    [
        ([[0.0, 0.0, 0.3]], "0.30 g and not about 1 g"),
        ([[0.0, 0.0, np.nan]], "not about 1 g"),
        (SIX + [0.39, 0, 0], "offset 0.39 g"),
        ([*SIX * 1.0, [0.8, 0.0, 0.0]], "disagree"),
    ],
)
def test_what_no_sensor_at_rest_says_is_refused(poses: list, complaint: str) -> None:
    with pytest.raises(SensorError, match=complaint):
        fit("x", np.array(poses))


@pytest.mark.parametrize("change", [{"offset_g": (0.0, 0.4, 0.0)}, {"scale": (1.0, 1.0, 1.2)}])
def test_a_stored_calibration_beyond_all_bounds_is_refused(change: dict) -> None:
    plain = {"offset_g": (0.0,) * 3, "scale": (1.0,) * 3, "left_g": 0.0}
    good = {"sensor": "x", "poses": 6, "sides": FACES, **plain}
    check(Calibration(**good))
    with pytest.raises(SensorError, match="broken or was moved"):
        check(Calibration(**{**good, **change}))


@pytest.mark.parametrize("face", FACES)
def test_the_side_that_is_up(face: str) -> None:
    pose = np.zeros(3)
    pose["xyz".index(face[1])] = 1.02 if face[0] == "+" else -1.02
    assert side_up(pose) == face
    assert side_up(pose + 0.2) == face
    assert side_up(np.array([0.7, 0.7, 0.1])) is None


def stream(pieces: list[tuple[np.ndarray, float, float]], seed: int = 1) -> list[SampleBlock]:
    """Blocks of 0.1 s at 100 Hz: (mean, seconds, noise) one after the other."""
    rng = np.random.default_rng(seed)
    parts = [m + rng.normal(0, noise, (round(s * 100), 3)) for m, s, noise in pieces]
    acc_g = np.concatenate(parts).astype(np.float32)
    t_s = 50.0 + np.arange(len(acc_g)) / 100
    cuts = range(0, len(acc_g), 10)
    return [SampleBlock(t_s[k : k + 10], acc_g[k : k + 10]) for k in cuts]


def test_six_sides_in_any_order_with_movement_between() -> None:
    order = [2, 0, 5, 5, 1, 3, 4]  # one of them twice
    pieces = []
    for k in order:
        pieces += [(SIX[k], 0.7, 0.2), (SIX[k], 3.5, 0.004)]
    positions = Positions(six=True)
    told = [rest for block in stream(pieces) if (rest := positions.feed(block)) is not None]
    assert positions.done and positions.missing == [] and len(positions.found) == 6
    assert len(told) == 7  # the repeated one is told of, and not counted
    assert np.array(positions.poses()) == pytest.approx(SIX[[2, 0, 5, 1, 3, 4]], abs=2e-3)


def test_a_tilted_position_does_not_count_as_a_side() -> None:
    positions = Positions(six=True)
    pose = np.array([0.7, 0.7, 0.1])
    told = [rest for block in stream([(pose, 3.0, 0.004)]) if (rest := positions.feed(block))]
    assert [rest.side for rest in told] == [None] and positions.found == []


def test_a_still_minute_is_a_minute_and_still() -> None:
    positions = Positions(six=False)
    moved = [(SIX[2], MINUTE_S - 5, 0.004), (SIX[2], 0.5, 0.2), (SIX[2], MINUTE_S - 5, 0.004)]
    assert not any(positions.feed(block) for block in stream(moved))
    for block in stream([(SIX[2], 2 * MINUTE_S, 0.004)]):
        positions.feed(block)
        if positions.done:
            break
    assert len(positions.found) == 1


def test_a_frozen_sensor_is_not_calibrated() -> None:
    positions = Positions(six=False)
    block = SampleBlock(np.arange(7000) / 100.0, np.full((7000, 3), 0.5, np.float32))
    with pytest.raises(SensorError, match="the same value for a minute"):
        positions.feed(block)
    assert not positions.done


def test_samples_that_are_no_numbers_are_no_rest() -> None:
    still = Stillness(1.0)
    blocks = stream([(np.full(3, np.nan), 3.0, 0.0)])
    assert not any(still.feed(block) for block in blocks)
