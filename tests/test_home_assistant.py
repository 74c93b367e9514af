"""The discovery payload against Home Assistant's documented keys, written down here as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jinja2
import msgspec
import pytest
from msgspec import Meta

from edge_rt.core.home_assistant import (
    MODELS,
    FallState,
    config_topic,
    discovery_payload,
    models_payload,
    state_payload,
)
from edge_rt.core.telemetry import Vitals
from edge_rt.core.update_record import State
from edge_rt.core.uplink_config import HomeAssistantConfig, MqttConfig
from edge_rt.core.uplink_wire import Topics
from edge_rt.core.wire import KINDS, make_event

TOPICS = Topics("home", "dev1")
ALL = Vitals(temperature_c=50.0, under_voltage=False, memory_free_mb=1.0, disk_free_mb=1.0)

Text = Annotated[str, Meta(min_length=1)]
Topic = Annotated[str, Meta(pattern=r"^[^+#\x00]+$", max_length=256)]
Template = Annotated[str, Meta(pattern=r"^\{\{ .* \}\}$")]


class Part(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Keys that integrations "MQTT Binary sensor", "Button", "Event", "Sensor" and "Update"
    share."""

    unique_id: Text
    name: Text
    icon: Annotated[str, Meta(pattern="^mdi:[a-z-]+$")] = "mdi:x"
    entity_category: Literal["diagnostic", "config"] | None = None
    json_attributes_topic: Topic | None = None
    json_attributes_template: Template | None = None


class BinarySensor(Part, tag_field="platform", tag="binary_sensor"):
    state_topic: Topic
    value_template: Template
    # Of the documented classes of binary sensors, those that fit here.
    device_class: Literal["problem", "safety"]
    expire_after: Annotated[int, Meta(gt=0)] | None = None


class Sensor(Part, tag_field="platform", tag="sensor"):
    state_topic: Topic
    value_template: Template
    device_class: Literal["temperature", "data_size", "enum"] | None = None
    unit_of_measurement: Literal["°C", "MB", "ms"] | None = None
    state_class: Literal["measurement"] | None = None
    options: list[Text] | None = None
    expire_after: Annotated[int, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        # "Sensor" documentation: options go with device class enum, and with nothing numeric.
        if (self.options is None) != (self.device_class != "enum"):
            raise ValueError("options without enum, or enum without options")
        if self.options is not None and (self.unit_of_measurement or self.state_class):
            raise ValueError("an enum has neither unit nor state class")
        units = {"temperature": "°C", "data_size": "MB"}
        if self.device_class in units and units[self.device_class] != self.unit_of_measurement:
            raise ValueError(f"{self.device_class} in {self.unit_of_measurement}")


class Event(Part, tag_field="platform", tag="event"):
    state_topic: Topic
    event_types: Annotated[list[Text], Meta(min_length=1)]
    value_template: Template


class Button(Part, tag_field="platform", tag="button"):
    command_topic: Topic
    payload_press: str = "PRESS"


class Update(Part, tag_field="platform", tag="update"):
    """No command topic: without one there is nothing to install from Home Assistant."""

    state_topic: Topic
    value_template: Template


class Shown(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON that integration "MQTT Update" takes as a state."""

    installed_version: Text
    latest_version: Text
    title: str
    release_summary: Annotated[str, Meta(max_length=255)]
    in_progress: bool


class Device(msgspec.Struct, forbid_unknown_fields=True):
    """Integration "MQTT", device registry keys; identifiers or connections must be there."""

    identifiers: Annotated[list[Text], Meta(min_length=1)]
    name: Text
    manufacturer: Text
    model: Text
    sw_version: Text


class Origin(msgspec.Struct, forbid_unknown_fields=True):
    """`name` is required."""

    name: Text
    sw_version: Text | None = None


class Availability(msgspec.Struct, forbid_unknown_fields=True):
    topic: Topic
    value_template: Template
    payload_available: str = "online"
    payload_not_available: str = "offline"


class Payload(msgspec.Struct, forbid_unknown_fields=True):
    """Device discovery payload: `device` and `origin` are mandatory, the rest are shared options
    that the documentation allows at the root."""

    device: Device
    origin: Origin
    components: dict[
        Annotated[str, Meta(pattern="^[a-z_]+$")], BinarySensor | Sensor | Event | Button | Update
    ]
    availability: list[Availability]
    qos: Literal[0, 1, 2] = 0


def payload(config: MqttConfig | None = None, vitals: Vitals = ALL, **parts: Any) -> Payload:
    made = discovery_payload(TOPICS, config or MqttConfig(), vitals, "1.2.3", **parts)
    assert len(made) < 16 * 1024, "fits any broker's packet"
    whole = msgspec.json.decode(made)
    # By the documentation of device discovery a platform alone removes a component.
    removed = [name for name, part in whole["components"].items() if part == {"platform": "update"}]
    for name in removed:
        del whole["components"][name]
    assert len(removed) == len(MODELS) - len(parts.get("models", ()))
    return msgspec.convert(whole, Payload)


def render(template: str, value: Any) -> str:
    """The template by Jinja, as Home Assistant renders it."""
    made: str = jinja2.Environment().from_string(template).render(value_json=value)
    return made


def test_all_of_it_follows_the_documented_keys() -> None:
    found = payload(faces=True)
    names = set(found.components)
    assert names == {
        *("fall", "alarm_state", "fall_stage", "face", "temperature", "power", "memory_free"),
        *("disk_free", "latency"),
    }
    ids = [part.unique_id for part in found.components.values()]
    assert len(set(ids)) == len(ids)
    assert all(
        part.unique_id.startswith("edge_rt_home_dev1_") for part in found.components.values()
    )
    fall = found.components["fall"]
    assert isinstance(fall, BinarySensor) and fall.device_class == "safety"
    assert config_topic(TOPICS, "homeassistant") == "homeassistant/device/dev1/config"


def test_only_what_the_board_tells_and_the_daemon_runs_becomes_an_entity() -> None:
    assert set(payload(vitals=Vitals()).components) == {
        *("fall", "alarm_state", "fall_stage", "latency")
    }
    assert set(payload(vitals=Vitals(), falls=False, faces=True).components) == {"face"}
    silent = MqttConfig(telemetry_s=0)
    assert set(payload(silent).components) == {"fall", "alarm_state", "fall_stage"}


def test_the_button_is_there_only_where_somebody_signs() -> None:
    assert "ok" not in payload().components
    config = MqttConfig(
        operations_key="ops.pub", home_assistant=HomeAssistantConfig(ok_topic="signer/press")
    )
    button = payload(config).components["ok"]
    assert isinstance(button, Button) and button.command_topic == "signer/press"
    pressed = msgspec.json.decode(button.payload_press)
    assert pressed == {"fleet": "home", "device": "dev1", "command": "cancel"}
    assert not button.command_topic.startswith(TOPICS.base), "no device obeys an unsigned press"


def test_figures_expire_when_three_reports_are_missing() -> None:
    found = payload(MqttConfig(telemetry_s=20.5)).components
    assert {part.expire_after for part in found.values() if hasattr(part, "expire_after")} == {
        62,
        None,
    }
    # The state of an alarm must not expire: it is retained, and told by presence when stale.
    fall = found["fall"]
    assert isinstance(fall, BinarySensor) and fall.expire_after is None


@pytest.mark.parametrize(
    ("state", "on"), [("monitoring", "OFF"), ("prealarm", "OFF"), ("alarm", "ON")]
)
def test_a_fall_is_on_from_the_alarm_on(state: str, on: str) -> None:
    found = msgspec.json.decode(state_payload(FallState(state, "i")))
    assert found == {"fall": on, "state": state, "incident": "i"}
    sensor = payload().components["alarm_state"]
    assert isinstance(sensor, Sensor) and sensor.options is not None and state in sensor.options


def test_templates_give_what_home_assistant_expects() -> None:
    parts = payload(faces=True).components
    data = {"incident": "i1", "why": {"score": 1}}
    stamp: dict[str, Any] = {"random": bytes(10), "boot_id": "b", "unix_s": 0, "monotonic_s": 0}
    for kind, name, what, content in (
        ("fall", "fall_stage", "prealarm", data),
        ("face", "face", "denied", {"outcome": "denied", "liveness": "not_checked"}),
    ):
        event = make_event(
            kind, what, content, source="/edge-rt/home/dev1", clock_trusted=True, **stamp
        )
        value = msgspec.json.decode(msgspec.json.encode(event.sealed(3, "l" * 32)))
        part = parts[name]
        assert isinstance(part, Event) and part.event_types == list(KINDS[kind])
        made = msgspec.json.decode(render(part.value_template, value))
        assert made["event_type"] == what
        assert made.get("incident", made.get("outcome")) in ("i1", "denied")
    online = payload().availability[0]
    for status, expected in (("online", "online"), ("stopped", "offline"), ("offline", "offline")):
        assert render(online.value_template, {"status": status}) == expected
    latency, power = parts["latency"], parts["power"]
    assert isinstance(latency, Sensor) and isinstance(power, BinarySensor)
    row = {"push": {"p99_ms": 1.5}}
    for falls, shown in ((row, "1.5"), ({}, ""), (None, "")):
        assert render(latency.value_template, {"falls": falls}) == shown
    assert [render(power.value_template, {"under_voltage": v}) for v in (True, False)] == [
        "ON",
        "OFF",
    ]


ROW = {"name": "fall-waist", "version": "1.0.0", "slot": "factory", "previous": None}


@pytest.mark.parametrize("state", list(State))
def test_an_update_entity_shows_what_runs_and_what_is_offered(state: State) -> None:
    candidate = None if state is State.IDLE else "1.1.0"
    live = "1.1.0" if state is State.TRIAL else "1.0.0"
    report = {"fall": {**ROW, "version": live, "state": state.value, "candidate": candidate}}
    part = payload(models=["fall"]).components["model_fall"]
    assert isinstance(part, Update) and part.state_topic == f"{TOPICS.base}/ha/models"
    made = render(part.value_template, msgspec.json.decode(models_payload(report)))
    shown = msgspec.json.decode(made, type=Shown)
    assert (shown.installed_version, shown.latest_version) == (live, candidate or "1.0.0")
    assert shown.in_progress is (state is not State.IDLE)
    assert bool(shown.release_summary) is shown.in_progress
    assert ("on trial" in shown.release_summary) is (state is State.TRIAL)


def test_nothing_can_be_installed_from_home_assistant() -> None:
    found = payload(models=list(MODELS)).components
    parts = [part for part in found.values() if isinstance(part, Update)]
    assert len(parts) == len(MODELS) == len({part.unique_id for part in parts})
    made = discovery_payload(TOPICS, MqttConfig(), ALL, "1", models=list(MODELS))
    assert b"command_topic" not in made and b"payload_install" not in made
    # Of a task that is not told of, Home Assistant hears an empty object, which it ignores.
    assert {render(part.value_template, {}) for part in parts} == {"{}"}
