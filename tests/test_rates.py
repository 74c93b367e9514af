"""Exact tests on counts, against sums done another way and against simulation."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, factorial

import numpy as np
import pytest

from edge_rt.core.rates import (
    binomial_at_least,
    poisson_at_least,
    rate_above,
    rate_below,
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
