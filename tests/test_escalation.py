"""Who is told when: the whole decision, in time that the test drives."""

from __future__ import annotations

import pytest

from edge_rt.fleet.escalation import (
    CLOSING_TRIES,
    Kind,
    Matter,
    Person,
    Rules,
    Told,
    retry_s,
    settled,
    text,
    wanted,
)

T0 = 1_700_000_000.0
RULES = Rules(repeat_s=600)
ADA = Person(name="Ada", urls=("json://a",))
BEN = Person(name="Ben", urls=("json://b",), after_s=300)


def matter(kind: Kind = Kind.ALARM, end: str = "") -> Matter:
    return Matter("k", kind, "dev1", T0, "fall alarm", end)


def told(
    round: int = 0, closing: bool = False, done: bool = True, tries: int = 1, due_s: float = T0
) -> Told:
    return Told(round, closing, done, tries, due_s)


def rounds(person: Person, kind: Kind, rules: Rules, until_s: int) -> list[tuple[int, int]]:
    """(second, round) of every message to a person whose service takes each at once."""
    said, last = [], None
    for second in range(until_s):
        want = wanted(matter(kind), person, last, rules, T0 + second)
        if want is not None:
            said.append((second, want.round))
            last = told(want.round)
    return said


def test_an_alarm_tells_the_first_at_once_the_second_later_and_repeats() -> None:
    assert rounds(ADA, Kind.ALARM, RULES, 1300) == [(0, 0), (600, 1), (1200, 2)]
    assert rounds(BEN, Kind.ALARM, RULES, 1300) == [(300, 0), (900, 1)]


def test_other_matters_are_told_once_unless_asked_otherwise() -> None:
    assert rounds(ADA, Kind.SILENT, RULES, 4000) == [(0, 0)]
    often = Rules(repeat_other_s=3000)
    assert rounds(ADA, Kind.GAP, often, 4000) == [(0, 0), (3000, 1)]


def test_a_prealarm_tells_only_who_asked_for_it() -> None:
    assert rounds(ADA, Kind.PREALARM, RULES, 10) == []
    asked = Person(name="C", urls=("json://c",), about=(Kind.PREALARM,))
    assert rounds(asked, Kind.PREALARM, RULES, 10) == [(0, 0)]
    assert rounds(asked, Kind.ALARM, RULES, 10) == []


def test_rounds_missed_while_nobody_ran_are_one_message() -> None:
    want = wanted(matter(), ADA, told(0), RULES, T0 + 6_100)
    assert want is not None and want.round == 10
    assert wanted(matter(), ADA, told(10), RULES, T0 + 6_101) is None


def test_a_failed_try_is_made_again_when_due_and_the_next_round_starts_anew() -> None:
    failed = told(done=False, tries=3, due_s=T0 + 80)
    assert wanted(matter(), ADA, failed, RULES, T0 + 79) is None
    again = wanted(matter(), ADA, failed, RULES, T0 + 80)
    assert again is not None and (again.round, again.tries) == (0, 3)
    new = wanted(matter(), ADA, failed, RULES, T0 + 600)
    assert new is not None and (new.round, new.tries) == (1, 0)
    assert [retry_s(n) for n in (1, 2, 4, 99)] == [5, 15, 300, 300]


def test_the_end_is_told_to_those_who_heard_of_it_once() -> None:
    over = matter(end="resolved")
    assert wanted(over, BEN, None, RULES, T0 + 1e6) is None
    want = wanted(over, ADA, told(2), RULES, T0 + 1300)
    assert want is not None and want.closing
    assert wanted(over, ADA, told(2, closing=True), RULES, T0 + 1e6) is None


def test_the_end_is_given_up_after_so_many_tries_an_alarm_never() -> None:
    many = told(done=False, tries=CLOSING_TRIES)
    assert wanted(matter(), ADA, many, RULES, T0 + 1) is not None
    over = matter(end="resolved")
    closing = many._replace(closing=True)
    assert wanted(over, ADA, closing, RULES, T0 + 1) is None
    assert settled(over, [closing])
    assert not settled(over, [closing._replace(tries=CLOSING_TRIES - 1)])
    assert not settled(over, [told()])
    assert not settled(matter(), [])


@pytest.mark.parametrize("kind", [Kind.GAP])
def test_a_gap_that_closes_is_no_news(kind: Kind) -> None:
    assert wanted(matter(kind, "closed"), ADA, told(), RULES, T0 + 9) is None
    assert settled(matter(kind, "closed"), [told()])


def test_a_clock_that_goes_back_repeats_nothing() -> None:
    assert wanted(matter(), ADA, told(5), RULES, T0 - 1e6) is None


def test_the_message_says_what_and_how_long() -> None:
    assert text(matter(), False, T0 + 30) == ("ALARM: dev1", "dev1: fall alarm.")
    assert text(matter(), False, T0 + 600)[1] == "dev1: fall alarm. Still open after 10 min."
    over = matter(end="resolved")
    assert text(over, True, T0) == ("ALARM over: dev1", "dev1: fall alarm: resolved.")
