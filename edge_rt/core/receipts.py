"""Application receipts: what the other side has, as one number a lane plus exceptions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edge_rt.core.errors import InputError

# A receiver that misses more than this asks again from `upto` on instead.
MAX_EXCEPTIONS = 1024


class Receipt(NamedTuple):
    """Every event up to `upto` has arrived, but for `exceptions` (all of them <= upto)."""

    upto: int
    exceptions: frozenset[int]


def merge(old: Receipt, upto: int, exceptions: Iterable[int]) -> Receipt:
    """`old` with a newly arrived receipt; what was receipted once stays receipted.

    Raises InputError when the new receipt is out of range or has too many exceptions.
    """
    given = frozenset(exceptions)
    if upto < 0 or any(not 1 <= n <= upto for n in given):
        raise InputError(f"receipt up to {upto} with exceptions outside 1 to {upto}")
    if len(given) > MAX_EXCEPTIONS:
        raise InputError(f"receipt with {len(given)} exceptions; at most {MAX_EXCEPTIONS}")
    if upto < old.upto:
        still = frozenset(n for n in old.exceptions if n > upto or n in given)
        return Receipt(old.upto, still)
    return Receipt(upto, frozenset(n for n in given if n > old.upto or n in old.exceptions))


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as closed ranges: 1, 2, 3, 7 -> [[1, 3], [7, 7]]."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
