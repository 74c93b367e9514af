"""Receipts: cumulative, with exceptions, and never taking anything back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core import receipts
from edge_rt.core.errors import InputError
from edge_rt.core.receipts import Receipt

NONE = Receipt(0, frozenset())


@st.composite
def given_receipts(draw: st.DrawFn) -> tuple[int, frozenset[int]]:
    upto = draw(st.integers(0, 30))
    return upto, draw(st.frozensets(st.integers(1, upto), max_size=5)) if upto else frozenset()


def have(receipt: tuple[int, frozenset[int]]) -> set[int]:
    upto, exceptions = receipt
    return set(range(1, upto + 1)) - exceptions


@given(st.lists(given_receipts(), max_size=6))
def test_what_arrived_once_has_arrived(arriving: list[tuple[int, frozenset[int]]]) -> None:
    known, arrived = NONE, set()
    for upto, exceptions in arriving:
        known = receipts.merge(known, upto, exceptions)
        arrived |= have((upto, exceptions))
        assert have(known) == arrived


@pytest.mark.parametrize(
    ("upto", "exceptions"), [(-1, []), (3, [4]), (3, [0]), (5000, range(1, 1026))]
)
def test_a_senseless_receipt_is_refused(upto: int, exceptions: list[int]) -> None:
    with pytest.raises(InputError, match="receipt"):
        receipts.merge(NONE, upto, exceptions)


def test_ranges() -> None:
    assert receipts.ranges([1, 2, 3, 7, 9, 10]) == [[1, 3], [7, 7], [9, 10]]
    assert receipts.ranges([]) == []
