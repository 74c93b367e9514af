"""Home Assistant MQTT discovery: one retained device payload that names every entity.

Sources: home-assistant.io, integrations "MQTT" (device discovery payload, availability), "MQTT
Binary sensor", "MQTT Button", "MQTT Event", "MQTT Sensor" and "MQTT Update". Full keys, no
abbreviations.

Where the entities read:
- what a person may act on (fall or not, state of the alarm) from `ha/state`, retained. Events will
  not do for that: they are not retained, so that after a restart Home Assistant would not know of
  an open alarm, and one that is sent again after its incident was resolved would raise it anew
- stages of a fall, as an event entity, from `evt/fall`; repeats show as repeats
- figures from the `dt/` reports, by templates, and they expire when three reports are missing
- availability from `status`, which is retained and has a last will
- which model runs and which one is offered to this device from `ha/models`, retained. There is
  nothing to press: who gets a model is signed by the publisher
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from edge_rt.core.fall_table import State
from edge_rt.core.telemetry import Vitals
from edge_rt.core.update_record import State as Update
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_wire import Topics
from edge_rt.core.wire import KINDS

STATE_TOPIC = "ha/state"
MODELS_TOPIC = "ha/models"
# Tasks whose models may come from afar (core.catalog), and what a person calls them.
MODELS = {"fall": "Fall model", "face-detect": "Face detector", "face-embed": "Face embedder"}
# By the state of an update; idle says nothing.
_SUMMARIES = {
    Update.FETCHING: "is on its way",
    Update.TESTING: "is being tested",
    Update.CHALLENGING: "is being tested",
    Update.SHADOWING: "runs beside the live model, and announces nothing",
    Update.INSTALLING: "is about to go live",
    Update.TRIAL: "is on trial: it is confirmed in the end, or the former model comes back",
}


class FallState(NamedTuple):
    """Payload of `ha/state`: fall is ON from the alarm until it is resolved."""

    state: str
    incident: str = ""


def state_payload(now: FallState) -> bytes:
    """A pre-alarm is not ON: it may still be cancelled by the person it is about."""
    on = "ON" if now.state == State.ALARM else "OFF"
    return msgspec.json.encode({"fall": on, "state": now.state, "incident": now.incident})


def models_payload(report: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Payload of `ha/models`: by task what an update entity shows.

    report  as runtime.update_task makes it: name, version, state, candidate
    An offered version is told as soon as the device takes it up; one that it refused is not offered
    any more. A model on trial is the installed one, for it is what runs; the summary says so.
    """
    return msgspec.json.encode({task: _shown(row) for task, row in report.items()})


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    version, candidate = row["version"], row["candidate"] or row["version"]
    summary = _SUMMARIES.get(Update(row["state"]), "")
    return {
        "installed_version": version,
        "latest_version": candidate,
        "title": row["name"],
        "release_summary": f"{candidate} {summary}" if summary else "",
        "in_progress": bool(summary),
    }


def config_topic(topics: Topics, prefix: str) -> str:
    """The one topic of this device; an empty retained payload there removes all its entities."""
    return f"{prefix}/device/{topics.device}/config"


def discovery_payload(
    topics: Topics,
    config: MqttConfig,
    vitals: Vitals,
    version: str,
    *,
    falls: bool = True,
    faces: bool = False,
    models: Collection[str] = (),
) -> bytes:
    """The device with its entities.

    models  tasks whose models come from afar
    vitals  only what this board tells becomes an entity; a None never changes to a number later
    """
    return msgspec.json.encode(
        {
            "device": {
                "identifiers": [_unique(topics, "device")],
                "name": topics.device,
                "manufacturer": "edge_rt",
                "model": "fall detection and face unlock",
                "sw_version": version,
            },
            "origin": {"name": "edge_rt", "sw_version": version},
            "availability": [
                {
                    "topic": topics.status,
                    # A clean end says `stopped`: no more there than after the last will.
                    "value_template": "{{ 'online' if value_json.status == 'online' "
                    "else 'offline' }}",
                }
            ],
            "qos": 1,
            "components": _components(topics, config, vitals, falls, faces)
            | {_model_key(task): _model(topics, task, task in models) for task in MODELS},
        }
    )


def _unique(topics: Topics, name: str) -> str:
    return f"edge_rt_{topics.fleet}_{topics.device}_{name}"


def _components(
    topics: Topics, config: MqttConfig, vitals: Vitals, falls: bool, faces: bool
) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    if falls:
        parts |= _fall(topics)
        if config.home_assistant.ok_topic:
            parts["ok"] = {
                "platform": "button",
                "name": "I'm OK",
                "icon": "mdi:account-check",
                "command_topic": config.home_assistant.ok_topic,
                "payload_press": msgspec.json.encode(
                    {"fleet": topics.fleet, "device": topics.device, "command": "cancel"}
                ).decode(),
            }
    if faces:
        parts["face"] = _event(topics, "face", "Face unlock")
    if config.telemetry_s:
        expire_s = math.ceil(3 * config.telemetry_s)
        parts |= _figures(topics, vitals, falls, expire_s)
    for name, part in parts.items():
        part["unique_id"] = _unique(topics, name)
    return parts


def _fall(topics: Topics) -> dict[str, dict[str, Any]]:
    state = f"{topics.base}/{STATE_TOPIC}"
    return {
        "fall": {
            "platform": "binary_sensor",
            "name": "Fall",
            # `safety` is shown as safe or unsafe; `problem` is for the device itself.
            "device_class": "safety",
            "state_topic": state,
            "value_template": "{{ value_json.fall }}",
            "json_attributes_topic": state,
            "json_attributes_template": "{{ {'incident': value_json.incident} | tojson }}",
        },
        "alarm_state": {
            "platform": "sensor",
            "name": "Alarm state",
            "device_class": "enum",
            "options": list(State),
            "state_topic": state,
            "value_template": "{{ value_json.state }}",
        },
        "fall_stage": _event(topics, "fall", "Fall stage"),
    }


def _event(topics: Topics, kind: str, name: str) -> dict[str, Any]:
    """An event entity: the CloudEvent's type, its incident (falls) or outcome, and its time."""
    detail = "incident" if kind == "fall" else "outcome"
    return {
        "platform": "event",
        "name": name,
        "event_types": list(KINDS[kind]),
        "state_topic": topics.event(kind),
        "value_template": "{{ {'event_type': value_json.type.split('.')[2], "
        f"'{detail}': value_json.data.{detail}, 'time': value_json.time, "
        "'sequence': value_json.sequence} | tojson }}",
    }


def _model_key(task: str) -> str:
    return f"model_{task.replace('-', '_')}"


def _model(topics: Topics, task: str, there: bool) -> dict[str, Any]:
    """An update entity. A component that names its platform alone takes one back that an earlier
    configuration announced."""
    if not there:
        return {"platform": "update"}
    return {
        "platform": "update",
        "unique_id": _unique(topics, _model_key(task)),
        "name": MODELS[task],
        "entity_category": "diagnostic",
        "state_topic": f"{topics.base}/{MODELS_TOPIC}",
        # Of a task that is not told of nothing is changed.
        "value_template": f"{{{{ value_json.get('{task}', {{}}) | tojson }}}}",
    }


def _figures(
    topics: Topics, vitals: Vitals, falls: bool, expire_s: int
) -> dict[str, dict[str, Any]]:
    def figure(name: str, what: str, path: str, **more: Any) -> dict[str, Any]:
        return {
            "platform": "sensor",
            "name": name,
            "entity_category": "diagnostic",
            "state_topic": f"{topics.base}/dt/{what}",
            "value_template": f"{{{{ value_json.{path} }}}}",
            "expire_after": expire_s,
            **more,
        }

    def size(name: str, path: str) -> dict[str, Any]:
        return figure(
            name,
            "health",
            path,
            device_class="data_size",
            unit_of_measurement="MB",
            state_class="measurement",
        )

    parts = {}
    if vitals.temperature_c is not None:
        parts["temperature"] = figure(
            "Temperature",
            "health",
            "temperature_c",
            device_class="temperature",
            unit_of_measurement="°C",
            state_class="measurement",
        )
    if vitals.under_voltage is not None:
        parts["power"] = figure("Power supply", "health", "under_voltage") | {
            "platform": "binary_sensor",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.under_voltage else 'OFF' }}",
        }
    if vitals.memory_free_mb is not None:
        parts["memory_free"] = size("Memory free", "memory_free_mb")
    if vitals.disk_free_mb is not None:
        parts["disk_free"] = size("Disk free", "disk_free_mb")
    if falls:
        # Nothing decided in the period: no figure, the last one expires.
        parts["latency"] = figure(
            "Decision time p99",
            "latency",
            "falls.push.p99_ms",
            unit_of_measurement="ms",
            state_class="measurement",
        ) | {"value_template": "{{ (value_json.falls or {}).get('push', {}).get('p99_ms', '') }}"}
    return parts
