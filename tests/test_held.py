"""Ranges of what is held, and receipts made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.held import Held
from edge_rt.core.uplink_wire import MAX_MISSING

numbers = st.integers(1, 60)
spans = st.tuples(numbers, st.integers(0, 8)).map(lambda s: (s[0], s[0] + s[1]))


@given(st.lists(spans, max_size=30), numbers)
def test_is_a_set_of_numbers(added: list[tuple[int, int]], upto: int) -> None:
    held, plain = Held(), set()
    for first, last in added:
        held.add(first, last)
        plain |= set(range(first, last + 1))
    assert {n for first, last in held.ranges for n in range(first, last + 1)} == plain
    gaps = {n for first, last in held.gaps(upto) for n in range(first, last + 1)}
    assert gaps == set(range(1, upto + 1)) - plain
    assert all(a[1] + 1 < b[0] for a, b in zip(held.ranges, held.ranges[1:], strict=False))
    assert all((n in held) == (n in plain) for n in range(1, 80))


@given(st.sets(st.integers(1, 3000), min_size=1))
def test_a_receipt_claims_exactly_what_is_held(plain: set[int]) -> None:
    held = Held((n, n) for n in plain)
    receipt = held.receipt(max(plain), sorted(plain))
    claims = receipt.holds()
    assert len(receipt.missing) <= MAX_MISSING
    assert {n for n in range(1, max(plain) + 10) if claims(n)} == plain


def test_with_too_many_gaps_it_ends_early_but_names_the_newest() -> None:
    held = Held((n, n) for n in range(2, 2000, 2))
    receipt = held.receipt(1998, [1998])
    assert receipt.upto == 2 * MAX_MISSING
    assert receipt.also == (1998,)


@pytest.mark.parametrize("span", [(0, 1), (3, 2)])
def test_refuses_what_is_no_range(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no range"):
        Held().add(*span)
