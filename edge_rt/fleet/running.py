"""Who runs what: the `models` that devices report in their retained `twin/reported`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from edge_rt.adapters import mqtt
from edge_rt.core.errors import InputError
from edge_rt.core.uplink_wire import ROOT, Topics, decode_status

# Retained messages come right behind the answer to the subscription; a pause of this is the end.
QUIET_S = 1.0
PATIENCE_S = 15.0
MAX_DEVICES = 10_000
MAX_REPORT_BYTES = 64 * 1024


class Model(msgspec.Struct, frozen=True):
    """What a device says of one task; more keys are its own business."""

    name: str = ""
    version: str = ""
    state: str = ""


class _Reported(msgspec.Struct, frozen=True):
    models: dict[str, Model] = {}


class Row(NamedTuple):
    """One device and one task of it; task and model are empty for one that reports none."""

    device: str
    status: str
    task: str
    model: Model


def running(
    settings: mqtt.Settings, fleet: str, clock: Callable[[], float] = time.monotonic
) -> list[Row]:
    """What the broker remembers of a fleet, by device and task.

    Raises InputError when the broker cannot be asked.
    """
    place = f"{settings.host}:{settings.port}"
    filters = [f"{ROOT}/{fleet}/+/twin/reported", f"{ROOT}/{fleet}/+/status"]
    statuses: dict[str, str] = {}
    models: dict[str, dict[str, Model]] = {}
    link = mqtt.Mqtt(settings)
    link.open()
    end_s = clock() + PATIENCE_S
    subscribed = False
    try:
        while (left_s := end_s - clock()) > 0:
            for fact in link.poll(left_s):
                match fact:
                    case mqtt.Connected():
                        link.subscribe(filters)
                    case mqtt.Closed():
                        raise InputError(f"no connection: {fact.line}")
                    case mqtt.Subscribed():
                        if fact.refused:
                            raise InputError(f"{place}: refused: {fact.refused[0][1]}")
                        subscribed, end_s = True, clock() + QUIET_S
                    case mqtt.Received():
                        end_s = clock() + QUIET_S if subscribed else end_s
                        if len(statuses) + len(models) < 2 * MAX_DEVICES:
                            _take(fact, statuses, models)
    finally:
        link.disconnect()
        link.close()
    if not subscribed:
        raise InputError(f"{place}: no answer within {PATIENCE_S:g} s")
    return [
        Row(device, statuses.get(device, "unknown"), task, model)
        for device in sorted(statuses.keys() | models)
        for task, model in sorted(models.get(device, {}).items()) or [("", Model())]
    ]


def share(rows: list[Row], name: str, version: str) -> dict[str, Any]:
    """Of a release: how many devices run it, and in which state."""
    states: dict[str, int] = {}
    for row in rows:
        if (row.model.name, row.model.version) == (name, version):
            state = row.model.state or "unknown"
            states[state] = states.get(state, 0) + 1
    return {"devices": sum(states.values()), **states}


def _take(
    fact: mqtt.Received, statuses: dict[str, str], models: dict[str, dict[str, Model]]
) -> None:
    try:
        topics, rest = Topics.parse(fact.topic)
        if rest == "status":
            statuses[topics.device] = decode_status(fact.payload).status
        elif len(fact.payload) <= MAX_REPORT_BYTES:
            models[topics.device] = msgspec.json.decode(fact.payload, type=_Reported).models
    except (InputError, msgspec.DecodeError):  # another's nonsense must not hide the rest
        return
