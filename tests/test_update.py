"""The update machine: each entry of its table, what a start makes of each state, what is told."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from edge_rt.core.update import (
    MAX_CUTS,
    MAX_LOADS,
    MAX_NOTICES,
    MAX_REFUSED,
    MAX_TRIAL_LOADS,
    MAX_TRIES,
    TABLE,
    Event,
    objection,
    objection_to_rollback,
    step,
)
from edge_rt.core.update import start as start_in
from edge_rt.core.update_record import Candidate, Record, State, spare

FIRST = Candidate("fall-waist", "1.1.0", "1" * 64)
SECOND = Candidate("fall-waist", "1.2.0", "2" * 64, security_epoch=1)
TO_SHADOW = (Event.STAGED, Event.PASSED, Event.PASSED)
TO_TRIAL = (*TO_SHADOW, Event.PASSED, Event.PASSED)
CONFIRMED = (*TO_TRIAL, Event.ACTIVE, Event.PASSED)


def moved(record: Record, *events: Event, candidate: Candidate | None = None) -> Record:
    """After these events; with a candidate CHOSEN comes first."""
    if candidate is not None:
        record = step(record, Event.CHOSEN, candidate=candidate)
    for event in events:
        record = step(record, event, reason="a reason", figures={"n": 1})
    return record


def start(record: Record, boot_id: str = "boot") -> Record:
    """Started and written down, as runtime.update_start does."""
    return msgspec.structs.replace(start_in(record, boot_id), boot_id=boot_id)


def told(record: Record) -> list[str]:
    return [notice.what for notice in record.notices]


def test_the_way_to_confirmation() -> None:
    record = moved(Record(), *TO_TRIAL, candidate=FIRST)
    assert (record.state, record.live, record.previous) == (State.TRIAL, "a", "factory")
    assert record.running == FIRST and record.loads == 1
    record = moved(record, Event.ACTIVE, Event.ACTIVE, Event.PASSED)
    assert (record.state, record.live, record.previous) == (State.IDLE, "a", "factory")
    assert record.candidate is None and record.loads == 0
    assert told(record) == ["staged", "shadow", "activated", "confirmed"]
    assert record.notices[-1].data == {
        **{"name": "fall-waist", "version": "1.1.0", "sha256": "1" * 64},
        **{"stage": "trial", "step": record.step, "reason": "a reason", "figures": {"n": 1}},
    }


def test_the_pinned_slot_is_not_the_one_that_is_filled() -> None:
    record = moved(Record(), *CONFIRMED, candidate=FIRST)
    record = moved(record, *CONFIRMED, candidate=SECOND)
    assert (record.live, record.previous) == ("b", "a")
    third = Candidate("fall-waist", "1.3.0", "3" * 64)
    record = moved(record, *TO_SHADOW, candidate=third)
    assert record.previous == "a", "until then a person may still go back to it"
    record = moved(record, Event.PASSED)
    assert spare(record.live) == "a"
    assert record.previous == "factory" and "a" not in record.contents
    record = moved(record, Event.PASSED)
    assert (record.live, record.previous) == ("a", "b")
    assert record.contents == {"b": SECOND, "a": third}


@pytest.mark.parametrize("event", [Event.REFUSED, Event.BROKEN, Event.ROLLBACK, Event.WITHDRAWN])
def test_a_trial_ends_on_the_pinned_slot(event: Event) -> None:
    record = moved(Record(), *CONFIRMED, candidate=FIRST)
    record = moved(record, *TO_TRIAL, Event.ACTIVE, event, candidate=SECOND)
    assert (record.state, record.live, record.previous) == (State.IDLE, "a", "factory")
    assert record.running == FIRST and record.loads == 0 and not record.active
    assert told(record)[-1] == "rolled_back"
    assert record.notices[-1].data["version"] == "1.2.0"
    refused = event is not Event.WITHDRAWN  # which the catalog itself remembers
    assert (SECOND in record.refused) is refused
    assert bool(objection(record, SECOND, 0, "1.0.0")) is refused


@pytest.mark.parametrize("events", [(), TO_SHADOW[:1], TO_SHADOW[:2], TO_SHADOW])
def test_a_refused_candidate_leaves_the_live_model_alone(events: tuple[Event, ...]) -> None:
    before = moved(Record(), *CONFIRMED, candidate=FIRST)
    record = moved(before, *events, Event.REFUSED, candidate=SECOND)
    assert (record.state, record.live, record.contents) == (State.IDLE, "a", {"a": FIRST})
    shadowed = len(events) == 3
    assert told(record)[len(before.notices) + len(events[:1]) :] == (
        ["shadow", "rejected"] if shadowed else ["rejected"]
    )
    assert objection(record, SECOND, 0, "1.0.0") == "it was refused before"
    later = Candidate("fall-waist", "1.2.1", "4" * 64)
    assert objection(record, later, 0, "1.0.0") == ""


def test_our_own_failure_is_told_once_and_tried_again() -> None:
    record = moved(Record(), Event.FAILED, candidate=FIRST)
    record = moved(record, Event.STAGED, Event.FAILED, candidate=FIRST)
    assert told(record) == ["rejected", "staged"]
    assert record.notices[0].data["final"] is False
    assert objection(record, FIRST, 0, "1.0.0") == ""
    assert told(moved(record, Event.FAILED, candidate=SECOND))[-1] == "rejected"


def test_a_person_goes_back_and_the_version_does_not_come_again() -> None:
    record = moved(Record(), *CONFIRMED, candidate=FIRST)
    record = moved(record, *CONFIRMED, candidate=SECOND)
    assert objection_to_rollback(record, 0, 0) == ""
    assert "below the security epoch 1" in objection_to_rollback(record, 1, 1)
    record = moved(record, Event.ROLLBACK)
    assert (record.running, record.previous) == (FIRST, "factory")
    assert objection(record, SECOND, 0, "1.0.0")
    assert "factory model is below the security epoch 1" in objection_to_rollback(record, 1, 0)
    assert objection_to_rollback(record, 1, 1) == ""
    record = moved(record, Event.ROLLBACK)
    assert record.live == "factory"
    assert "nothing to go back to" in objection_to_rollback(record, 0, 0)


@pytest.mark.parametrize(
    ("candidate", "floor", "complaint"),
    [
        (SECOND, 2, "below 2"),
        (SECOND, 1, ""),
        (FIRST, 0, "not newer than 1.1.0"),
        (Candidate("fall-waist", "1.0.9", "5" * 64), 0, "not newer"),
    ],
)
def test_what_is_not_taken(candidate: Candidate, floor: int, complaint: str) -> None:
    record = moved(Record(), *CONFIRMED, candidate=FIRST)
    said = objection(record, candidate, floor, "1.0.0")
    assert complaint in said and bool(said) is bool(complaint)


# ---- starts ----


def test_two_starts_on_trial_that_did_not_hold_lead_back() -> None:
    record = moved(Record(), *TO_TRIAL, candidate=FIRST)
    assert record.loads == 1  # the swap, which may have ended the process
    record = start(record)
    assert (record.state, record.live, record.loads) == (State.TRIAL, "a", 2)
    assert MAX_TRIAL_LOADS == 2
    record = start(record)
    assert (record.state, record.live) == (State.IDLE, "factory")
    assert record.notices[-1].what == "rolled_back"
    assert "2 starts in a row" in record.notices[-1].data["reason"]
    assert FIRST in record.refused


def on_trial(*events: Event, boot_id: str = "boot") -> Record:
    return msgspec.structs.replace(
        moved(Record(), *TO_TRIAL, *events, candidate=FIRST), boot_id=boot_id
    )


def test_a_plug_that_is_pulled_twice_condemns_nothing() -> None:
    record = on_trial()
    for boot in ("second", "third", "fourth"):
        record = start(record, boot)
        assert (record.state, record.live) == (State.TRIAL, "a"), boot
    assert (record.loads, record.cuts) == (1, 3)
    assert moved(record, Event.SETTLED).cuts == 0


def test_crashes_between_power_cuts_still_count() -> None:
    record = start(on_trial(), "second")  # the swap's boot ended by a cut
    record = start(start(record, "third"), "third")  # ... and this one's first process crashed
    assert (record.state, record.loads, record.cuts) == (State.TRIAL, 2, 2)
    record = start(record, "third")
    assert record.state is State.IDLE and FIRST in record.refused


def test_a_model_that_brings_the_board_down_is_left_and_the_second_time_for_good() -> None:
    record = on_trial()
    for n in range(MAX_CUTS - 1):
        record = start(record, f"boot {n}")
        assert record.state is State.TRIAL, n
    assert MAX_CUTS > 2 * MAX_TRIAL_LOADS
    record = start(record, "last")
    assert (record.state, record.live, record.cuts) == (State.IDLE, "factory", 0)
    notice = record.notices[-1]
    assert (notice.what, notice.data["final"]) == ("rolled_back", False)
    assert "cut off or reset soon after 6 starts in a row" in notice.data["reason"]
    assert objection(record, FIRST, 0, "1.0.0") == ""
    record = moved(record, *TO_TRIAL, Event.ACTIVE, Event.FAILED, candidate=FIRST)
    assert record.notices[-1].what == "rolled_back" and "final" not in record.notices[-1].data
    assert objection(record, FIRST, 0, "1.0.0") == "it was refused before"


@pytest.mark.parametrize("events", [TO_SHADOW[:1], TO_SHADOW[:2], TO_SHADOW, TO_TRIAL[:-1]])
def test_power_cuts_before_a_trial_put_a_candidate_off(events: tuple[Event, ...]) -> None:
    record = moved(Record(), *events, candidate=FIRST)
    for n in range(MAX_CUTS):
        record = start(record, f"boot {n}")
        assert record.candidate == FIRST, n
    record = start(record, "last")
    assert record.candidate is None and record.notices[-1].data["final"] is False
    assert objection(record, FIRST, 0, "1.0.0") == ""


def test_power_cuts_take_a_confirmed_model_later_than_crashes() -> None:
    record = moved(Record(), *CONFIRMED, candidate=FIRST)
    record = moved(record, *CONFIRMED, candidate=SECOND)
    for n in range(MAX_CUTS):
        record = start(record, f"boot {n}")
        assert record.live == "b"
    record = start(record, "last")
    assert (record.live, record.cuts) == ("a", 0) and SECOND not in record.refused


def test_starts_whose_boot_is_not_known_count_as_before() -> None:
    """A journal from before boots were written down."""
    old = msgspec.to_builtins(on_trial(boot_id=""))
    del old["boot_id"], old["cuts"]
    record = start(msgspec.convert(old, Record), "boot")
    assert (record.loads, record.cuts) == (2, 0)


def test_starts_that_hold_count_no_longer() -> None:
    record = moved(Record(), *TO_TRIAL, candidate=FIRST)
    for _ in range(10):
        record = moved(start(record), Event.SETTLED)
    assert record.state is State.TRIAL


@pytest.mark.parametrize("events", [TO_SHADOW[:1], TO_SHADOW[:2], TO_SHADOW, TO_TRIAL[:-1]])
def test_a_candidate_that_ends_the_device_each_time_is_given_up(events: tuple[Event, ...]) -> None:
    record = moved(Record(), *events, candidate=FIRST)
    for n in range(MAX_TRIES):
        record = start(record)
        assert record.candidate == FIRST, f"start {n + 1}"
    record = start(record)
    assert record.candidate is None and record.state is State.IDLE
    assert FIRST in record.refused


def test_a_confirmed_model_that_cannot_start_is_left_too() -> None:
    record = moved(Record(), *CONFIRMED, candidate=FIRST)
    record = moved(record, *CONFIRMED, candidate=SECOND)
    for _ in range(MAX_LOADS):
        record = start(record)
        assert record.live == "b"
    record = start(record)
    assert record.live == "a" and record.loads == 1
    # Whatever broke it, it may come again and prove itself anew.
    assert SECOND not in record.refused


def test_a_fetch_outlives_any_number_of_starts() -> None:
    record = moved(Record(), candidate=FIRST)
    for _ in range(50):
        record = start(record)
    assert record.state is State.FETCHING


# ---- the table ----


def reached() -> list[tuple[Record, Event]]:
    """A record of each state, once with the factory model and once with a slot behind it."""
    found = []
    for base in (Record(), moved(Record(), *CONFIRMED, candidate=SECOND)):
        newer = Candidate("fall-waist", "2.0.0", "7" * 64)
        way = [base, step(base, Event.CHOSEN, candidate=newer)]
        for event in TO_TRIAL:
            way.append(step(way[-1], event))
        found += [(record, event) for record in way for event in Event]
    return found


@pytest.mark.parametrize(("record", "event"), reached())
def test_each_entry_leaves_a_model_to_start_on(record: Record, event: Event) -> None:
    if event not in TABLE[record.state]:
        with pytest.raises(ValueError, match=f"{event} while {record.state}"):
            step(record, event)
        return
    after = step(record, event, candidate=FIRST, reason="x")
    assert after.state is TABLE[record.state][event] and after.step == record.step + 1
    assert after.live == "factory" or after.live in after.contents
    assert after.previous == "factory" or after.previous in after.contents
    assert after.live != after.previous or after.live == "factory"
    assert (after.candidate is None) == (after.state is State.IDLE)
    kept = msgspec.json.decode(msgspec.json.encode(after), type=Record)
    assert kept == after, "what is written down is what is read"
    started = start(after)
    assert started.live == "factory" or started.live in started.contents


def test_every_state_is_reached_and_can_be_left() -> None:
    assert {record.state for record, _ in reached()} == set(State) == set(TABLE)
    for state, row in TABLE.items():
        assert {Event.START, Event.SETTLED} <= set(row)
        assert state is State.IDLE or State.IDLE in row.values()
        assert Event.ROLLBACK in row and Event.BROKEN in row


def test_what_is_kept_is_bounded() -> None:
    record = Record()
    for n in itertools.count():
        if n > MAX_NOTICES + MAX_REFUSED:
            break
        one = Candidate("fall-waist", f"3.0.{n}", f"{n:064x}")
        record = moved(record, Event.REFUSED, candidate=one)
    assert len(record.notices) == MAX_NOTICES and len(record.refused) == MAX_REFUSED
    assert record.refused[-1].version == f"3.0.{n - 1}"


def test_refused_versions_do_not_come_round_for_ever() -> None:
    """A catalog of small models offers far more versions than are remembered."""
    offered = [Candidate("fall-waist", f"3.0.{n}", f"{n:064x}") for n in range(3 * MAX_REFUSED)]
    record = Record()
    tries = 0
    while tries < 10 * MAX_REFUSED:
        refused = {candidate.sha256 for candidate in record.refused}
        newest = [candidate for candidate in offered if candidate.sha256 not in refused][-1]
        if objection(record, newest, 0, "1.0.0"):
            break
        record = moved(record, Event.REFUSED, candidate=newest)
        tries += 1
    assert tries == MAX_REFUSED
    later = Candidate("fall-waist", "3.1.0", "f" * 64)
    assert objection(record, later, 0, "1.0.0") == ""


def test_the_table_prints() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "edge_rt.core.update"], capture_output=True, text=True, check=True
    ).stdout
    rows: list[Any] = [line.split("|") for line in out.splitlines()]
    assert len(rows) == len(State) + 2 and {len(row) for row in rows} == {len(Event) + 3}
