"""What is told of events that leave a full log."""

from __future__ import annotations

from test_store import arrived

from edge_rt.core.dropping import MAX_RANGES, Doomed, Row, choose


def row(sequence: int, size: int = 10) -> Row:
    return Row(sequence, size, b"{}")


def told(sequence: int, ranges: list[list[int]], count: int) -> Row:
    return Row(sequence, 10, arrived(sequence, what="dropped", ranges=ranges, count=count).body)


def test_the_oldest_go_until_enough_is_free() -> None:
    rows = [row(1), row(2), row(5), row(6)]
    assert choose(rows, 25, absorb=False) == Doomed([1, 2, 5], [(1, 2), (5, 5)], 3, 30)


def test_one_telling_event_has_room_for_so_many_ranges() -> None:
    rows = [row(n) for n in range(1, 1000, 2)]
    doomed = choose(rows, 10**6, absorb=False)
    assert len(doomed.ranges) == len(doomed.sequences) == MAX_RANGES


def test_what_a_telling_event_told_is_told_again_when_it_goes() -> None:
    rows = [told(8, [[1, 3], [5, 7]], 6), row(9)]
    assert choose(rows, 100, absorb=True) == Doomed([8, 9], [(1, 3), (5, 9)], 8, 20)
    assert choose(rows, 100, absorb=False) == Doomed([8, 9], [(8, 9)], 2, 20)


def test_a_telling_event_that_does_not_fit_stays() -> None:
    many = [[n, n] for n in range(1, 2 * MAX_RANGES, 2)]
    rows = [told(500, many, MAX_RANGES), row(501), told(502, "nonsense", 3)]  # type: ignore[arg-type]
    assert choose(rows, 100, absorb=True) == Doomed([501, 502], [(501, 502)], 2, 20)


def test_a_telling_event_that_is_full_does_not_keep_the_others() -> None:
    """The log of a long outage would grow past every bound."""
    many = [[n, n] for n in range(1, 2 * MAX_RANGES, 2)]
    last = 2 * MAX_RANGES
    rows = [told(last, many, MAX_RANGES), *(row(n) for n in range(last + 10, last + 100, 2))]
    doomed = choose(rows, 100, absorb=True)
    assert doomed.sequences == [row.sequence for row in rows[1:11]]
    assert doomed.ranges == [(n, n) for n in doomed.sequences]


def test_telling_events_whose_ranges_meet_become_one() -> None:
    odd = [[n, n] for n in range(1, 2 * MAX_RANGES, 2)]
    even = [[n, n] for n in range(2, 2 * MAX_RANGES, 2)]
    rows = [told(500, odd, MAX_RANGES), told(501, even, MAX_RANGES - 1)]
    whole = 2 * MAX_RANGES - 1
    doomed = choose(rows, 100, absorb=True)
    assert doomed == Doomed([500, 501], [(1, whole), (500, 501)], whole + 2, 20)
