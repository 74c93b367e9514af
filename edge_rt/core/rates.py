"""Exact tests on counts: is one rate or share really above another, or may it be chance?

Exact, not by normal approximation: false alarms are a handful a week, and a handful is where the
approximations fail. A p-value here is the chance to see what was seen, or something more extreme,
if the thing asked about were not so.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, lgamma, log, sqrt


def binomial_at_least(hits: int, n: int, p: float) -> float:
    """P(X >= hits) for X binomial with `n` draws of chance `p`."""
    if hits <= 0:
        return 1.0
    if hits > n or p <= 0.0:
        return 0.0
    if p >= 1.0:
        return 1.0
    # Summed from the far end, where terms are small, so that nothing small is lost.
    terms = (
        exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log(1.0 - p))
        for k in range(n, hits - 1, -1)
    )
    return min(1.0, sum(terms))


def poisson_at_least(count: int, mean: float) -> float:
    """P(X >= count) for X Poisson with `mean`."""
    if count <= 0:
        return 1.0
    if mean <= 0.0:
        return 0.0
    below = sum(exp(k * log(mean) - mean - lgamma(k + 1)) for k in range(count))
    return max(0.0, 1.0 - below)


def rate_above(
    count: int, hours: float, before: int, before_hours: float, ratio: float = 1.0
) -> float:
    """p-value of "the rate now is at most `ratio` times the rate before", small if it is more.

    The conditional test of Przyborowski & Wilenski (1940), Biometrika 31:313: given the sum of two
    Poisson counts, the first is binomial with p = ratio hours / (ratio hours + before_hours).
    1 without a history (before_hours = 0): nothing can be said then.
    """
    if hours <= 0.0 or before_hours <= 0.0:
        return 1.0
    share = ratio * hours / (ratio * hours + before_hours)
    return binomial_at_least(count, count + before, share)


def rate_below(
    count: int, hours: float, before: int, before_hours: float, ratio: float = 1.0
) -> float:
    """p-value of "the rate now is at least `ratio` times the rate before", small if it is less."""
    if hours <= 0.0 or before_hours <= 0.0:
        return 1.0
    share = before_hours / (ratio * hours + before_hours)
    return binomial_at_least(before, count + before, share)


def worse_of_pairs(lost: int, gained: int) -> float:
    """p-value of "on the same cases, no more are lost than gained", small if more are lost.

    McNemar's test in its exact form (Biometrika 12 (1947) 153): only the cases on which two
    models differ tell them apart, and each is a fair coin if they are equally good.
    """
    return binomial_at_least(lost, lost + gained, 0.5)


# ---- intervals: what each exact test does not reject ----


def poisson_interval(count: int, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of 1 - alpha for the mean behind a Poisson count (Garwood 1936, Biometrika 28:437).

    Each end is the mean at which so few, or so many, would be seen with chance alpha / 2.
    """
    # The mean lies within 10 standard deviations of the count for any alpha above 1e-20.
    most = count + 20.0 + 10.0 * sqrt(count + 1.0)
    low = 0.0
    if count > 0:
        low = _where(lambda mean: poisson_at_least(count, mean), alpha / 2.0, most)
    return low, _where(lambda mean: poisson_at_least(count + 1, mean), 1.0 - alpha / 2.0, most)


def share_interval(hits: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of 1 - alpha for a share (Clopper & Pearson 1934, Biometrika 26:404); (0, 1) for
    n = 0."""
    low, high = 0.0, 1.0
    if hits > 0:
        low = _where(lambda p: _at_least(hits, n, p), alpha / 2.0, 1.0)
    if hits < n:
        high = _where(lambda p: _at_least(hits + 1, n, p), 1.0 - alpha / 2.0, 1.0)
    return low, high


def ratio_interval(
    count: int, hours: float, before: int, before_hours: float, alpha: float = 0.05
) -> tuple[float, float]:
    """Interval of 1 - alpha for the rate now as a multiple of the rate before.

    The ratios that the conditional test (`rate_above`, `rate_below`) does not reject. (0, inf)
    where nothing is known.
    """
    if hours <= 0.0 or before_hours <= 0.0:
        return 0.0, inf
    low, high = share_interval(count, count + before, alpha)
    scale = before_hours / hours
    return low / (1.0 - low) * scale, high / (1.0 - high) * scale if high < 1.0 else inf


def _at_least(hits: int, n: int, p: float) -> float:
    """As `binomial_at_least`, summing the shorter side; exact enough for what is no tiny chance."""
    if 2 * hits > n:
        return binomial_at_least(hits, n, p)
    return 1.0 - binomial_at_least(n - hits + 1, n, 1.0 - p)


def _where(rising: Callable[[float], float], target: float, most: float) -> float:
    """The x in [0, most] at which a rising function passes `target`, to a double's precision."""
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return high
