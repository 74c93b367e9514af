"""The connection's table and its back-off."""

from __future__ import annotations

import pytest

from edge_rt.core.uplink_link import TABLE, Backoff, Event, Link, State, table_markdown

RULES = Backoff(first_s=1, cap_s=60, refused_cap_s=300, stable_s=10)


def failing(event: Event, times: int, value: float) -> list[float]:
    """The waits before each of so many tries that end with `event`."""
    link, now, waits = Link(RULES, lambda: value), 0.0, []
    for _ in range(times):
        link.step(Event.DUE, now)
        link.step(event, now)
        waits.append(link.due_s - now)
        now = link.due_s
    return waits


def test_it_backs_off_exponentially_up_to_a_cap() -> None:
    assert failing(Event.FAILED, 8, 1.0) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert failing(Event.REFUSED, 10, 1.0)[-1] == 300


def test_jitter_spreads_but_never_hammers() -> None:
    assert failing(Event.FAILED, 4, 0.5) == [0.5, 1, 2, 4]
    assert failing(Event.FAILED, 4, 0.0) == pytest.approx([0.1, 0.2, 0.4, 0.8])


@pytest.mark.parametrize(("held_s", "wait"), [(9.9, 8.0), (10.0, 1.0)])
def test_only_a_stable_connection_begins_anew(held_s: float, wait: float) -> None:
    link = Link(RULES, lambda: 1.0)
    for _ in range(3):
        link.step(Event.DUE, 0.0)
        link.step(Event.FAILED, 0.0)
    link.step(Event.DUE, 0.0)
    link.step(Event.ACCEPTED, 0.0)
    link.step(Event.LOST, held_s)
    assert link.due_s - held_s == pytest.approx(wait)


def test_years_offline_do_not_overflow() -> None:
    assert failing(Event.FAILED, 5000, 1.0)[-1] == 60


def test_a_missing_entry_names_state_and_event() -> None:
    with pytest.raises(ValueError, match="accepted while waiting"):
        Link(RULES, lambda: 0.5).step(Event.ACCEPTED, 0.0)


def test_a_stop_is_heeded_everywhere_and_for_good() -> None:
    assert all(row[Event.STOP] is State.STOPPED for row in TABLE.values())
    assert set(TABLE[State.STOPPED]) == set(Event)


def test_the_table_prints() -> None:
    assert table_markdown().count("\n") == len(State) + 1
