"""One command to one device, and what became of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from edge_rt.adapters.mqtt import Settings
from edge_rt.core.errors import DaemonError, InputError
from edge_rt.core.remote_command import Payload
from edge_rt.core.uplink_wire import Topics, decode_status
from edge_rt.core.wire import Event, decode
from edge_rt.fleet.operations import Line


class Heard(NamedTuple):
    """The outcome, None if it did not come; the device's last status, empty if it never had one."""

    event: Event | None
    status: str


class Code(IntEnum):
    """Exit codes by outcome; 5 is that of core.errors for a daemon that refuses."""

    DONE = 0
    FAILED = 1
    REFUSED = 5
    UNHEARD = 75  # sysexits.h: a temporary failure, to be tried again


AGAIN_S = 5.0

# What a person can do about a reason.
REMEDIES = {
    "unknown": "the device knows no such command",
    "not_configured": "set mqtt.operations_key at the device",
    "unsigned": "sign it: --sign-key",
    "bad_signature": "the device has another operations key",
    "replayed": "another holder of the key was faster, or its clock is ahead: send it again",
    "expired": "it came too late, or the clocks differ; send it again",
    "id_used": "send it again",
    "too_soon": "wait a minute",
    "busy": "one of this kind is still running",
    "bad_arguments": "correct --arg",
    "storage": "the device cannot write to its disk",
    "not_possible": "not in the state that the device is in",
    "not_available": "turned off, or not there, at the device",
    "other_incident": "that incident is over",
    "no_presence": "nobody was at the device",
    "checks_failed": "run edge-rt doctor at the device",
    "interrupted": "the device stopped in the middle of it; look before you send it again",
    "failed": "see the device's log",
}


def send(
    settings: Settings,
    topics: Topics,
    name: str,
    payload: Payload,
    wait_s: float,
    expiry_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Heard:
    """Send it until its outcome is heard, or `wait_s` is over.

    expiry_s  the broker drops it when the device was away for so long: that helps a device without
              a clock; 0: never
    It is sent again after AGAIN_S, a lost connection, or when the device comes back: a broker keeps
    nothing for a device that it has never seen. A device acts on it once.
    Raises DaemonError when the broker refuses it, or is not there.
    """
    line = Line(settings, [topics.event("device"), topics.status], clock=clock)
    topic, body = f"{topics.base}/cmd/{name}", msgspec.json.encode(payload)
    end_s = clock() + wait_s
    sent_s, status = -math.inf, ""
    try:
        while (left_s := end_s - clock()) > 0:
            for fact in line.turn(min(left_s, 1.0)):
                if fact.topic == topics.status:
                    before, status = status, _status(fact.payload)
                    if before and status == "online":
                        sent_s = -math.inf
                elif (event := _outcome(fact.payload, payload.id)) is not None:
                    return Heard(event, status)
            if line.denied:
                raise DaemonError(f"{topics.device}: {line.denied}; see its access list")
            if not line.ready:
                sent_s = -math.inf
            elif clock() - sent_s >= AGAIN_S and line.publish(topic, body, expiry_s):
                sent_s = clock()
    finally:
        line.close()
    if line.error:
        raise DaemonError(f"no connection to the broker in {wait_s:g} s: {line.error}")
    return Heard(None, status)


def judged(event: Event) -> tuple[Code, str]:
    """The exit code of an outcome, and a line for a person."""
    outcome, reason = (str(event.data.get(key, "")) for key in ("outcome", "reason"))
    if outcome == "done":
        return Code.DONE, "done"
    code = Code.REFUSED if outcome == "refused" else Code.FAILED
    remedy = REMEDIES.get(reason, "see the device's log")
    return code, f"{outcome}, {reason}: {remedy}"


def details(event: Event) -> dict[str, Any]:
    """What else the device told of it."""
    known = ("id", "name", "outcome", "reason")
    return {key: value for key, value in event.data.items() if key not in known}


def _status(payload: bytes) -> str:
    try:
        return decode_status(payload).status
    except InputError:  # it is only for a hint
        return ""


def _outcome(payload: bytes, id: str) -> Event | None:
    try:
        event = decode(payload)
    except InputError:  # another event, of another edge_rt perhaps: not what is waited for
        return None
    mine = event.kind == "device" and event.what == "command" and event.data.get("id") == id
    return event if mine else None
