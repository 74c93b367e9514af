"""Training examples: labels where they belong, and the very channels the device computes."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.adapters.trials import Trial
from edge_rt.core.errors import InputError
from edge_rt.core.resample import AreaResampler, to_fixed
from edge_rt.core.windows import FeatureStream
from edge_rt.falls.examples import (
    FALL,
    IGNORED,
    NONE,
    RANGES_G,
    STRETCH_HOPS,
    Grid,
    channels,
    examples,
    place,
    vary,
)
from edge_rt.falls.training import GRID, folds_of

PEAK_S = 9.0


def trial(is_fall: bool, seconds: float = 15.0, subject: str = "S1") -> Trial:
    rng = np.random.default_rng(0)
    acc = rng.normal(0, 0.1, (round(seconds * 50), 3)) + [0, 0, 1]
    acc[round(PEAK_S * 50)] = [9.0, 0, 0]
    return Trial(subject, "T", "F01", is_fall, "waist", 50.0, acc.astype(np.float32))


def test_a_fall_is_labelled_after_its_peak() -> None:
    (example,) = examples(place(trial(True)), GRID)
    assert example.rows.shape == (GRID.rows, len(GRID.channels))
    ends = 0.16 * (1 + np.arange(STRETCH_HOPS)) - PEAK_S
    assert (example.target[(ends > 0.85) & (ends < 2.35)] == FALL).all()
    assert (example.target[(ends > -0.2) & (ends < 0.75)] == IGNORED).all()
    assert (example.target[ends > 2.5] == IGNORED).all()
    assert (example.target[(ends < -0.4) & (ends > -8.5)] == NONE).all()
    assert (example.target == FALL).sum() in (9, 10, 11)


def test_an_activity_is_none_all_along() -> None:
    found = list(examples(place(trial(False, 32.0)), GRID))
    assert len(found) == 2
    assert (found[0].target[2:] == NONE).all()
    assert (found[1].target == NONE).all()


def test_each_window_is_what_the_device_would_see() -> None:
    """Window k of an example against the stream, by rows: warm-up included."""
    placed = place(trial(True))
    (example,) = examples(placed, GRID)
    fixed = AreaResampler(GRID.rate_hz, 0).push(placed.ticks, to_fixed(placed.acc_g))
    rows = FeatureStream(GRID.rate_hz, GRID.channels).push(fixed)
    first = np.repeat(rows[:1], GRID.window - GRID.hop, axis=0)
    assert (example.rows[: GRID.window] == np.concatenate((first, rows[: GRID.hop]))).all()
    tail = example.rows[50 * GRID.hop : 50 * GRID.hop + GRID.window]
    assert (tail == rows[51 * GRID.hop - GRID.window : 51 * GRID.hop]).all()


def test_variants_differ_reproducibly_and_keep_the_peak() -> None:
    placed = place(trial(True))
    ranges = set()
    for seed in range(40):
        one, again = (vary(placed, np.random.default_rng(seed)) for _ in range(2))
        assert (one.acc_g == again.acc_g).all()
        assert one.ticks[0] < one.peak <= one.ticks[-1]
        assert np.diff(one.ticks).min() > 0
        largest = float(np.abs(one.acc_g).max())
        ranges |= {limit for limit in RANGES_G if largest == limit}
        near = np.abs(one.ticks - one.peak) < 100_000
        assert near.any()
    assert {2.0, 4.0} <= ranges


def test_too_short_a_trial_gives_nothing() -> None:
    short = trial(False)._replace(acc_g=np.zeros((5, 3), np.float32))
    assert list(examples(place(short), GRID)) == []
    assert channels(place(short), Grid(1.0, 4, 2, ("x",))).shape == (0, 1)


def test_folds_are_disjoint_by_subject() -> None:
    trials = [trial(True, 10.0, f"S{k % 7}") for k in range(21)]
    number = folds_of(trials, 3)
    assert set(number) == {0, 1, 2}
    assert len({(t.subject, f) for t, f in zip(trials, number, strict=True)}) == 7
    assert len(set(folds_of(trials, None))) == 7
    for wrong in (1, 8):
        with pytest.raises(InputError, match="folds of 7 subjects"):
            folds_of(trials, wrong)
