"""Events: wire form, table of kinds, bounds, and what a face event may not tell."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core import wire
from edge_rt.core.errors import InputError
from edge_rt.core.wire import Event, Lane


def event(kind: str = "fall", what: str = "alarm", data: Any = None, **changes: Any) -> Event:
    facts: dict[str, Any] = {
        "source": "/edge-rt/home/hall",
        "unix_s": 1_700_000_000.125,
        "random": bytes(range(10)),
        "boot_id": "b" * 32,
        "monotonic_s": 12.3456,
        "clock_trusted": True,
    }
    return wire.make_event(kind, what, data or {}, **(facts | changes))


def test_the_wire_form_is_cloudevents() -> None:
    made = event(data={"incident": "i", "score": np.float32(1.5), "v": np.arange(2)})
    told = json.loads(wire.encode(made.sealed(7, "a" * 32)))
    assert told == {
        "specversion": "1.0",
        "id": "018bcfe5-687d-7001-8203-040506070809",
        "source": "/edge-rt/home/hall",
        "type": "edge_rt.fall.alarm",
        "time": "2023-11-14T22:13:20.125Z",
        "datacontenttype": "application/json",
        "data": {"incident": "i", "score": 1.5, "v": [0, 1]},
        "sequence": "000000000007",
        "logid": "a" * 32,
        "bootid": "b" * 32,
        "monotonicms": "12345",
        "clocktrusted": True,
    }


def test_every_attribute_name_is_one_that_cloudevents_allows() -> None:
    names = [field.encode_name for field in msgspec.structs.fields(Event)]
    assert all(name.isalnum() and name == name.lower() and len(name) <= 20 for name in names)


@given(st.floats(0, 2**47 / 1000), st.binary(min_size=10, max_size=10))
def test_ids_are_version_7_and_ordered_by_time(unix_s: float, random: bytes) -> None:
    made = uuid.UUID(wire.uuid7(unix_s, random))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == int(unix_s * 1000)
    assert wire.uuid7(unix_s + 1, random) > str(made)


def test_an_id_of_other_than_ten_random_bytes_is_a_bug() -> None:
    with pytest.raises(ValueError, match="10 random bytes, not 4"):
        wire.uuid7(0, b"1234")


def test_what_is_decoded_is_what_was_encoded() -> None:
    made = event("model", "confirmed", {"x": [1, None]}, model_version="1.2.3").sealed(1, "l")
    assert wire.decode(wire.encode(made)) == made


def test_unknown_extensions_are_ignored() -> None:
    body = json.loads(wire.encode(event().sealed(1, "l"))) | {"traceparent": "00-1"}
    assert wire.decode(json.dumps(body).encode()).what == "alarm"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not an event"),
        (b"\xff\xfe", "not an event"),
        (b"{}", "missing required field"),
        (b" " * (wire.MAX_EVENT_BYTES + 1), "at most 16384"),
    ],
)
def test_foreign_bytes_are_refused(body: bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        wire.decode(body)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [("specversion", "0.3", "specversion"), ("type", "com.example.x", "type")],
)
def test_other_peoples_events_are_refused(key: str, value: str, complaint: str) -> None:
    body = json.loads(wire.encode(event().sealed(1, "l"))) | {key: value}
    with pytest.raises(InputError, match=complaint):
        wire.decode(json.dumps(body).encode())


def test_only_fall_stages_are_alarms() -> None:
    lanes = {(kind, what): lane for kind, row in wire.KINDS.items() for what, lane in row.items()}
    alarms = {key for key, lane in lanes.items() if lane is Lane.ALARM}
    stages = ("suspected", "prealarm", "alarm", "cancelled", "resolved")
    assert alarms == {("fall", stage) for stage in stages}


@pytest.mark.parametrize(("kind", "what"), [("fall", "fell"), ("weather", "rain")])
def test_an_unknown_event_is_a_bug(kind: str, what: str) -> None:
    with pytest.raises(ValueError, match=rf"edge_rt\.{kind}\.{what}"):
        event(kind, what)


def test_an_event_without_a_place_is_not_sent() -> None:
    with pytest.raises(ValueError, match="no place in a log"):
        wire.encode(event())


def test_data_that_is_too_large_or_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 16384"):
        event(data={"x": "y" * wire.MAX_EVENT_BYTES})
    with pytest.raises(ValueError, match="not JSON-ready"):
        event(data={"x": object()})


FACE = {"outcome": "denied", "reason": "stranger", "liveness": "not_checked"}


@pytest.mark.parametrize(
    "more",
    [
        {"distance": 0.58},
        {"reason": "distance_0.58"},
        {"reason": 0.58},
        {"person": "Ada"},
        {"outcome": "u" * 41},
        {"liveness": 0.93},
        {"why": {"distance": 0.5}},
        {"embedding": [0.1, 0.2]},
    ],
)
def test_no_face_event_tells_more_than_it_may(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"may not hold {next(iter(more))}"):
        event("face", "denied", FACE | more)


def test_a_face_event_tells_outcome_and_liveness() -> None:
    assert event("face", "denied", FACE | {"person": "p-0123456789abcdef"}).lane is Lane.EVENT
    with pytest.raises(ValueError, match="needs outcome"):
        event("face", "denied", {"outcome": "denied"})
    assert event("face", "enrolled", {"outcome": "enrolled", "person": "p-" + "0" * 16})


@pytest.mark.parametrize("name", ["", "a/b", "+", "ü", "-x", "a" * 65])
def test_a_name_that_would_break_a_topic_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        wire.source_of("home", name)
