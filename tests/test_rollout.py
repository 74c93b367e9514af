"""core.rollout: the share follows the percentage, and only grows."""

from __future__ import annotations

from math import sqrt

from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.rollout import includes, position

SEEDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
PERCENTS = st.floats(0, 100)


@given(SEEDS, SEEDS, PERCENTS, PERCENTS)
def test_it_only_grows(seed: str, device: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert not (includes(seed, device, low) and not includes(seed, device, high))


@given(SEEDS, SEEDS)
def test_none_at_0_and_all_at_100(seed: str, device: str) -> None:
    assert not includes(seed, device, 0)
    assert includes(seed, device, 100)


@given(SEEDS, SEEDS, PERCENTS)
def test_a_place_in_the_queue_decides(seed: str, device: str, percent: float) -> None:
    place = position(seed, device)
    assert 0 <= place <= 1
    if abs(place * 100 - percent) > 1e-9:
        assert includes(seed, device, percent) == (place * 100 < percent)


@given(SEEDS, st.integers(1, 99))
def test_the_share_is_the_percentage(seed: str, percent: int) -> None:
    fleet = 2000
    share = sum(includes(seed, f"device-{n}", percent) for n in range(fleet)) / fleet
    # 5 standard errors of a binomial share; 1 in 1.7 million fails by chance.
    p = percent / 100
    assert abs(share - p) <= 5 * sqrt(p * (1 - p) / fleet)


def test_another_seed_begins_with_other_people() -> None:
    first = {n for n in range(1000) if includes("one", f"d{n}", 10)}
    other = {n for n in range(1000) if includes("two", f"d{n}", 10)}
    assert len(first & other) < 40  # 10 expected by chance
    assert first and other
