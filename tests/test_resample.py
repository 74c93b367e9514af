"""Area resampling: exact on what can be worked out by hand, and indifferent to blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rt.core.resample import LIMIT_G, ONE, AreaResampler, to_fixed


def even(rate_hz: float, n: int) -> np.ndarray:
    return np.rint(np.arange(n) * 1e6 / rate_hz).astype(np.int64)


def noise(n: int, seed: int = 0) -> np.ndarray:
    return to_fixed(np.random.default_rng(seed).normal(0, 2, (n, 3)).astype(np.float32))


@pytest.mark.parametrize("rate_hz", [9.0, 20.0, 25.0, 31.25, 50.0, 119.0, 200.0, 238.0, 400.0])
def test_a_constant_stays_what_it_is(rate_hz: float) -> None:
    fixed = np.tile(np.array([[-ONE, 3, 12345]]), (int(rate_hz * 4), 1))
    out = AreaResampler(25.0, 0).push(even(rate_hz, len(fixed)), fixed)
    assert (out == fixed[0]).all()
    assert abs(len(out) - 100) <= 25 / rate_hz + 1


@pytest.mark.parametrize("rate_hz", [9.0, 20.0, 50.0, 200.0, 400.0])
def test_a_ramp_gives_the_middle_of_each_interval(rate_hz: float) -> None:
    ticks = even(rate_hz, int(rate_hz * 4))
    fixed = np.stack([ticks, -ticks, 2 * ticks], axis=1)
    out = AreaResampler(25.0, 0).push(ticks, fixed)
    middle = 40_000 * np.arange(len(out)) + 20_000
    assert np.abs(out - middle[:, None] * np.array([1, -1, 2])).max() <= 2


def test_it_is_the_trapezoid_mean_at_a_multiple_of_the_rate() -> None:
    fixed = noise(101)
    out = AreaResampler(25.0, 0).push(even(50.0, 101), fixed)
    by_hand = (fixed[:-2:2] + 2 * fixed[1:-1:2] + fixed[2::2]) // 4
    assert (out == by_hand).all()


@settings(max_examples=60, deadline=None)
@given(
    rate_hz=st.floats(9.0, 400.0),
    grid_hz=st.sampled_from([10.0, 25.0, 30.0, 50.0]),
    cuts=st.sets(st.integers(1, 299), max_size=20),
    seed=st.integers(0, 9),
)
def test_blocks_do_not_matter(rate_hz: float, grid_hz: float, cuts: set[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ticks = np.cumsum(np.maximum(1, rng.normal(1e6 / rate_hz, 2e5 / rate_hz, 300))).astype(int)
    fixed = noise(300, seed)
    whole = AreaResampler(grid_hz, int(ticks[0])).push(ticks, fixed)
    parts = AreaResampler(grid_hz, int(ticks[0]))
    split = sorted(cuts)
    out = [
        parts.push(t, x)
        for t, x in zip(np.split(ticks, split), np.split(fixed, split), strict=True)
    ]
    assert (np.concatenate(out) == whole).all()


def test_a_run_may_be_joined_half_way() -> None:
    ticks, fixed = even(50.0, 500), noise(500)
    whole = AreaResampler(25.0, 0)
    expected = whole.push(ticks, fixed)
    joined = AreaResampler(25.0, 0)
    out = joined.push(ticks[101:], fixed[101:])
    assert joined.edge == whole.edge
    assert (out == expected[-len(out) :]).all()
    assert len(out) == len(expected) - 51


def test_sums_that_wrap_around_do_no_harm() -> None:
    ticks, fixed = even(50.0, 100), noise(100)
    fresh, old = AreaResampler(25.0, 0), AreaResampler(25.0, 0)
    old._area = np.full((1, 3), np.iinfo(np.int64).max - 1000)
    assert (old.push(ticks, fixed) == fresh.push(ticks, fixed)).all()


def test_fixed_point_is_exact_for_sensors_and_clips_nonsense() -> None:
    counts = np.array([[1, -2, 4095]], np.float32)
    assert (to_fixed(counts / 256) == counts * 256).all()
    assert (to_fixed(np.float32([[1e9, -1e9, 0]])) == [[LIMIT_G * ONE, -LIMIT_G * ONE, 0]]).all()
