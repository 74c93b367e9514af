"""Times of a FIFO's samples: even, rising, and true, whatever the host and the chip's clock do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.fifo_clock import FifoClock


def play(
    rate_hz: float, error: float, looks_s: list[float], lag_s: float = 0.0002, phase: float = 0.3
) -> tuple[FifoClock, np.ndarray, np.ndarray]:
    """Stamps and true times of a chip that is read at the given times."""
    clock, period_s = FifoClock(rate_hz), 1.0 / (rate_hz * (1 + error))
    stamps, truth, counted = [], [], 0
    for look_s in looks_s:
        total = int((look_s / period_s) - phase)
        stamps.append(clock.stamp(total - counted, look_s - lag_s, look_s + lag_s))
        truth.append((np.arange(counted, total) + 1 + phase) * period_s)
        counted = total
    return clock, np.concatenate(stamps), np.concatenate(truth)


@pytest.mark.parametrize("error", [-0.05, -0.01, 0.0, 0.02, 0.05])
@pytest.mark.parametrize(("rate_hz", "turn_s"), [(100.0, 0.1), (50.0, 0.08), (200.0, 0.04)])
def test_the_chips_clock_is_found_under_scheduling_jitter(
    rate_hz: float, turn_s: float, error: float
) -> None:
    rng = np.random.default_rng(7)
    late_s = rng.exponential(0.004, 1500) + (rng.random(1500) < 0.01) * rng.uniform(0, 0.1, 1500)
    clock, stamps, truth = play(rate_hz, error, list(np.cumsum(turn_s + late_s)))
    period_s = 1.0 / (rate_hz * (1 + error))
    assert clock.rate_hz == pytest.approx(rate_hz * (1 + error), rel=1e-3)
    assert np.abs(stamps - truth).max() < period_s
    settled = slice(len(stamps) // 2, None)
    assert np.abs(stamps - truth)[settled].max() < 0.15 * period_s
    assert np.abs(np.diff(stamps[settled]) / period_s - 1.0).max() < 0.05
    assert clock.slips == 0


@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(1e-4, 0.5), st.floats(0, 0.05)), max_size=60),
    st.lists(st.integers(0, 59), max_size=4),
)
def test_stamps_always_rise_and_are_never_ahead(
    looks: list[tuple[int, float, float]], restarts: list[int]
) -> None:
    """Also for counts that no chip would give."""
    clock, now_s, last_s = FifoClock(100.0), 5.0, -np.inf
    for k, (n, wait_s, lag_s) in enumerate(looks):
        if k in restarts:
            clock.restart()
        before_s = now_s + wait_s
        now_s = before_s + lag_s
        stamps = clock.stamp(n, before_s, now_s)
        assert len(stamps) == n
        assert (np.diff(np.concatenate(([last_s], stamps))) > 0).all()
        if n:
            last_s = stamps[-1]
            assert last_s <= now_s + 1e-5 * 61 * 40


def test_after_a_restart_the_rate_is_still_known() -> None:
    clock, stamps, _ = play(100.0, 0.04, list(np.arange(1, 400) * 0.1))
    clock.restart()
    again = clock.stamp(10, 60.0, 60.0)
    assert np.diff(again) == pytest.approx(np.full(9, 1 / 104.0), rel=1e-3)
    assert 60.0 - 0.01 < again[-1] <= 60.0 and again[0] > stamps[-1]


def test_samples_that_were_lost_unseen_are_a_slip() -> None:
    clock, _, _ = play(100.0, 0.0, list(np.arange(1, 100) * 0.1))
    assert clock.slips == 0
    stamps = clock.stamp(10, 12.0, 12.0)  # two seconds later ten samples, not two hundred
    assert clock.slips == 1 and 11.98 < stamps[-1] <= 12.0
