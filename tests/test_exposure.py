"""fleet.exposure: hours watched, with which model, and what is counted in them."""

from __future__ import annotations

import pytest
from diaries import START_S, Diary

from edge_rt.core.update_record import BY_PUBLISHER
from edge_rt.fleet.exposure import Story, tell


def story(diary: Diary, until_h: float, status: str = "online", since_h: float = 0.0) -> Story:
    def unix_s(hour: float) -> float:
        return START_S + 3600.0 * hour

    return tell(diary.events, "fall-waist", "1.1.0", status, unix_s(since_h), unix_s(until_h))


def hours(found: Story, treated: bool) -> float:
    spans = (span.end_s - span.start_s for span in found.spans if span.treated is treated)
    return pytest.approx(sum(spans) / 3600.0)  # type: ignore[no-any-return]


def counted(found: Story) -> list[tuple[str, bool]]:
    return [(happened.metric, happened.treated) for happened in found.happened]


def upgraded() -> Diary:
    """Ten hours with the old model, then the new one."""
    diary = Diary()
    diary.started()
    diary.hour = 9
    diary.tell("staged")
    diary.hour = 10
    diary.tell("activated")
    return diary


def test_hours_before_and_with_the_version() -> None:
    diary = upgraded()
    diary.hour = 14
    diary.tell("confirmed")
    found = story(diary, until_h=24)
    assert (hours(found, False), hours(found, True)) == (10, 14)
    assert found.first_s == START_S + 36_000 and found.outcome.state == "confirmed"


def test_a_quiet_device_watches_as_long_as_one_would_have_heard_of_it() -> None:
    assert hours(story(upgraded(), until_h=34), True) == 24
    assert hours(story(upgraded(), 34, "offline", since_h=16), True) == 6
    assert hours(story(upgraded(), 34, "", since_h=0), True) == 0, "nobody knows of it"


def test_a_clean_end_is_neither_watched_nor_a_crash() -> None:
    diary = upgraded()
    diary.hour = 12
    diary.stopped()
    diary.hour = 20
    diary.started()
    found = story(diary, until_h=21)
    assert hours(found, True) == 2 + 1
    assert counted(found) == []


def test_an_end_that_nobody_asked_for_is_a_crash_of_what_ran() -> None:
    diary = Diary()
    diary.started()
    diary.hour = 1
    diary.started()
    diary.tell("activated")
    diary.hour = 3
    diary.started()
    diary.hour = 4
    diary.tell("rolled_back", "2 starts in a row did not hold with this model")
    found = story(diary, until_h=5)
    assert counted(found) == [("crash", False), ("crash", True)]
    assert (hours(found, False), hours(found, True)) == (2, 3)
    assert found.outcome.state == "rolled back" and not found.treated


def test_a_machine_without_power_is_watched_up_to_its_last_event() -> None:
    diary = upgraded()
    diary.hour = 13
    diary.alarm()
    diary.hour = 40
    diary.boot("boot2")
    diary.started()
    found = story(diary, until_h=42)
    assert hours(found, True) == 3 + 2
    assert counted(found) == [("alarm", True), ("crash", True)]


def test_an_incident_counts_once_and_calls_for_help_do_not() -> None:
    diary = Diary()
    diary.started()
    diary.alarm("prealarm")
    first = diary.alarm()
    diary.add("fall", "alarm", first.data)
    diary.alarm("cancelled")
    diary.alarm(trigger="help_now")
    diary.add("fall", "resolved", first.data)
    assert counted(story(diary, 1)) == [("alarm", False), ("cancel", False)]


def test_what_an_event_names_as_its_model_counts_where_the_swap_was_not_told() -> None:
    diary = Diary()
    diary.model = "fall-waist 1.1.0"
    diary.started()
    diary.hour = 1
    diary.alarm()
    diary.hour = 2
    diary.model = "fall-waist 1.2.0"
    diary.alarm()
    found = story(diary, 5)
    assert (hours(found, True), hours(found, False)) == (1, 4)
    assert counted(found) == [("alarm", True), ("alarm", False)]


def test_a_clock_that_was_wrong_is_put_right_by_a_later_event() -> None:
    diary = Diary(hour=-100_000)
    diary.trusted = False
    diary.started()
    diary.hour += 2  # two hours later the clock is set
    late = diary.alarm()
    diary.trusted = True
    diary.hour = 2
    diary.boot("boot1")
    diary._boot_hour = 0.0
    diary.alarm()
    found = story(diary, 3)
    assert late.monotonicms == "7200000"
    assert hours(found, False) == 3
    assert found.happened[0].at_s == START_S + 7200


def test_a_boot_whose_clock_was_never_set_is_left_out_days_and_counts() -> None:
    diary = Diary()
    diary.trusted = False
    diary.started()
    diary.hour = 5
    diary.alarm()
    diary.trusted = True
    diary.boot("boot2")
    diary.started()
    found = story(diary, 7)
    assert (hours(found, False), found.unclocked) == (2, 1)
    assert counted(found) == [("crash", False)]


@pytest.mark.parametrize(
    ("what", "reason", "more", "state"),
    [
        ("staged", "", {}, "on its way"),
        ("shadow", "", {}, "on its way"),
        ("rejected", "it hardly tells lively moments from quiet ones", {}, "rejected"),
        ("rejected", "no space left", {"final": False}, "put off"),
        ("rejected", f"aborted {BY_PUBLISHER}", {"final": False}, "called back"),
        ("activated", "", {}, "on trial"),
        ("confirmed", "", {}, "confirmed"),
        ("rolled_back", "12 alarms in 3.0 h", {}, "rolled back"),
        ("rolled_back", f"withdrawn {BY_PUBLISHER}", {}, "called back"),
    ],
)
def test_outcomes(what: str, reason: str, more: dict[str, bool], state: str) -> None:
    diary = Diary()
    diary.started()
    diary.tell(what, reason, **more)
    found = story(diary, 1)
    assert found.outcome == (state, reason)
    diary.tell("confirmed", version="1.2.0")
    assert not story(diary, 1).treated
