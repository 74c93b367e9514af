"""Exact tests on counts, against sums done another way and against simulation."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, factorial

import numpy as np
import pytest

from edge_rt.core.rates import (
    binomial_at_least,
    poisson_at_least,
    poisson_interval,
    rate_above,
    rate_below,
    ratio_interval,
    share_interval,
    worse_of_pairs,
)


@pytest.mark.parametrize("n", [0, 1, 7, 40])
@pytest.mark.parametrize("p", [Fraction(1, 50), Fraction(1, 2), Fraction(9, 10)])
def test_binomial_tails_are_the_sums_of_fractions(n: int, p: Fraction) -> None:
    for hits in range(n + 2):
        exact = sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))
        assert binomial_at_least(hits, n, float(p)) == pytest.approx(float(exact), abs=1e-12)


def test_binomial_keeps_small_tails_and_edges() -> None:
    assert binomial_at_least(1000, 1000, 0.5) == pytest.approx(0.5**1000)
    assert binomial_at_least(3, 5, 0.0) == 0.0 and binomial_at_least(5, 5, 1.0) == 1.0
    assert binomial_at_least(0, 0, 0.3) == 1.0 and binomial_at_least(1, 0, 0.3) == 0.0


@pytest.mark.parametrize("mean", [0.1, 3.0, 30.0])
def test_poisson_tails(mean: float) -> None:
    for count in (0, 1, 2, 5, 40):
        exact = 1.0 - sum(exp(-mean) * mean**k / factorial(k) for k in range(count))
        assert poisson_at_least(count, mean) == pytest.approx(exact, abs=1e-12)
    assert poisson_at_least(1, 0.0) == 0.0


def test_equal_rates_are_called_different_no_more_often_than_said() -> None:
    rng = np.random.default_rng(3)
    wrong = [
        sum(
            test(int(now), 24.0, int(before), 168.0) < 0.05
            for now, before in zip(rng.poisson(2.0, 4000), rng.poisson(14.0, 4000), strict=True)
        )
        / 4000
        for test in (rate_above, rate_below)
    ]
    assert max(wrong) <= 0.06


def test_a_rate_five_times_as_high_is_seen() -> None:
    assert rate_above(15, 24.0, 21, 168.0) < 1e-4
    assert rate_above(15, 24.0, 21, 168.0, ratio=3.0) > 0.02
    assert rate_below(0, 24.0, 70, 168.0) < 1e-4
    assert rate_above(5, 24.0, 0, 0.0) == rate_below(5, 24.0, 0, 0.0) == 1.0


def test_pairs() -> None:
    assert worse_of_pairs(5, 0) == pytest.approx(1 / 32)
    assert worse_of_pairs(4, 0) > 0.05 and worse_of_pairs(3, 3) > 0.5
    assert worse_of_pairs(0, 0) == 1.0


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # 95 % limits as tables of them give them.
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (10, 4.795, 18.390)],
)
def test_poisson_intervals_are_those_of_the_tables(count: int, low: float, high: float) -> None:
    assert poisson_interval(count) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (0, 0, 0.0, 1.0)],
)
def test_share_intervals_are_those_of_the_tables(
    hits: int, n: int, low: float, high: float
) -> None:
    assert share_interval(hits, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = share_interval(n - hits, n)
    assert mirrored == pytest.approx((1.0 - high, 1.0 - low), abs=5e-5)


def test_a_ratio_s_interval_ends_where_the_test_begins_to_reject() -> None:
    low, high = ratio_interval(15, 24.0, 21, 168.0, alpha=0.1)
    assert rate_above(15, 24.0, 21, 168.0, low) == pytest.approx(0.05)
    assert rate_below(15, 24.0, 21, 168.0, high) == pytest.approx(0.05)
    assert low < 5.0 < high
    assert ratio_interval(0, 1.0, 0, 1.0) == (0.0, float("inf"))
    assert ratio_interval(3, 0.0, 3, 1.0) == (0.0, float("inf"))


def test_intervals_hold_what_they_should_as_often_as_said() -> None:
    rng = np.random.default_rng(6)
    for mean in (0.5, 4.0):
        held = [low <= mean <= high for low, high in map(poisson_interval, rng.poisson(mean, 200))]
        assert sum(held) >= 184  # 95 % and more, less two standard errors
    pairs = zip(rng.poisson(6.0, 100), rng.poisson(30.0, 100), strict=True)
    ratios = [ratio_interval(int(now), 10.0, int(before), 100.0) for now, before in pairs]
    assert sum(low <= 2.0 <= high for low, high in ratios) >= 91
