"""Exact tests on counts: is one rate or share really above another, or may it be chance?

Exact, not by normal approximation: false alarms are a handful a week, and a handful is where the
approximations fail. A p-value here is the chance to see what was seen, or something more extreme,
if the thing asked about were not so.
"""

from __future__ import annotations

from math import exp, lgamma, log


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
