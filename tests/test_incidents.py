"""Which falls are open, whatever the order and however often their events come."""

from __future__ import annotations

from itertools import permutations

from test_store import arrived

from edge_rt.core.wire import Event
from edge_rt.fleet.escalation import Kind
from edge_rt.fleet.incidents import MAX_ENDED, MAX_OPEN, Incidents, unix_s

RECEIVED = "2026-01-01T00:00:00.000Z"


def fall(what: str, incident: object = "i1") -> Event:
    return arrived(1, "fall", what, incident=incident).event


def taken(*events: Event) -> Incidents:
    incidents = Incidents()
    for event in events:
        incidents.take(event, RECEIVED)
    return incidents


def test_an_alarm_takes_the_place_of_its_prealarm_in_any_order() -> None:
    stages = [fall("suspected"), fall("prealarm"), fall("alarm"), fall("alarm")]
    for order in permutations(stages):
        (matter,) = taken(*order).open()
        assert (matter.kind, matter.device) == (Kind.ALARM, "dev1")
        assert matter.since_s == unix_s(RECEIVED) == 1767225600.0


def test_an_end_closes_even_if_it_overtakes_the_alarm() -> None:
    for order in permutations([fall("prealarm"), fall("alarm"), fall("resolved")]):
        assert taken(*order).open() == []
    incidents = taken(fall("alarm"))
    (matter,) = incidents.open()
    assert incidents.end_of(matter.key) == ""
    incidents.take(fall("resolved"), RECEIVED)
    assert incidents.end_of(matter.key) == "resolved"


def test_an_alarm_without_a_usable_incident_is_told_of_all_the_same() -> None:
    for incident in (None, 7, "", "x" * 65):
        first, second = (arrived(k, "fall", "alarm", incident=incident).event for k in (1, 2))
        assert len(taken(first, second, second).open()) == 2


def test_what_a_device_says_does_not_reach_the_message_unchecked() -> None:
    bad = Event(**{name: getattr(fall("alarm"), name) for name in Event.__struct_fields__})
    bad = Event(**{**{n: getattr(bad, n) for n in Event.__struct_fields__}, "time": "<b>\nnow"})
    (matter,) = taken(bad).open()
    assert matter.what == "fall alarm at an unreadable time"


def test_a_clock_that_is_not_set_is_said() -> None:
    event = fall("alarm")
    fields = {name: getattr(event, name) for name in Event.__struct_fields__}
    (matter,) = taken(Event(**{**fields, "clocktrusted": False})).open()
    assert matter.what.endswith(f"not yet set; here {RECEIVED})")


def test_a_flood_is_bounded_and_the_newest_stay() -> None:
    incidents = taken(*(fall("alarm", f"i{k}") for k in range(MAX_OPEN + 3)))
    keys = [matter.key.rsplit(" ", 1)[1] for matter in incidents.open()]
    assert keys == [f"i{k}" for k in range(3, MAX_OPEN + 3)]
    for k in range(MAX_ENDED + 10):
        incidents.take(fall("resolved", f"e{k}"), RECEIVED)
    assert len(incidents._ended) == MAX_ENDED


def test_other_events_are_none_of_its_business() -> None:
    assert taken(arrived(1, incident="i1").event).open() == []
