"""Events as they are stored and sent: CloudEvents 1.0, JSON, structured mode.

Sources: CloudEvents 1.0.2 (core and JSON format), its `sequence` extension, RFC 9562 (UUIDv7),
RFC 3339 (time).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from edge_rt.core.errors import InputError

# A decision's `why` takes under 1 KiB and a `dropped` event with all its ranges under 3 KiB; 16 KiB
# leaves room for both and keeps a full in-memory backlog of alarms within tens of megabytes.
MAX_EVENT_BYTES = 16 * 1024
# Lexicographic order must equal numeric order (CloudEvents `sequence`): 12 digits are 31 years of
# 1,000 events a second.
SEQUENCE_DIGITS = 12

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Lane(StrEnum):
    """What overtakes what on the way out, and what goes first when the log is full."""

    ALARM = "alarm"  # power-safe before anyone is told; never dropped before its receipt
    EVENT = "event"
    TELEMETRY = "telemetry"  # repeats by itself; goes first


_FACE = ("unlocked", "denied", "lockout", "enrolled", "removed")
_MODEL = ("staged", "rejected", "shadow", "activated", "confirmed", "rolled_back")

KINDS: Mapping[str, Mapping[str, Lane]] = {
    "fall": {
        "suspected": Lane.ALARM,
        "prealarm": Lane.ALARM,
        "alarm": Lane.ALARM,
        "cancelled": Lane.ALARM,
        "resolved": Lane.ALARM,
    },
    "face": dict.fromkeys(_FACE, Lane.EVENT),
    "model": dict.fromkeys(_MODEL, Lane.EVENT),
    "device": {
        "started": Lane.EVENT,
        "stopped": Lane.EVENT,
        "degraded": Lane.EVENT,
        "sensor_lost": Lane.EVENT,
        "sensor_back": Lane.EVENT,
        "clock_stepped": Lane.TELEMETRY,
        "storage_low": Lane.EVENT,
        "power_low": Lane.EVENT,
        "not_worn": Lane.TELEMETRY,
        "dropped": Lane.EVENT,
        "uplink_refused": Lane.EVENT,
        "alarm_unheard": Lane.EVENT,
        "certificate_ending": Lane.EVENT,
        "command": Lane.EVENT,
    },
}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `sequence` and `logid` are empty until the log has given it its place.

    time         RFC 3339, UTC, milliseconds; only as good as `clocktrusted` says
    data         JSON-ready dict
    sequence     decimal, SEQUENCE_DIGITS wide, gapless within one `logid`
    monotonicms  milliseconds on the monotonic clock of `bootid`, decimal. A string, because a
                 CloudEvents Integer ends at 2^31: a device up for 25 days would pass it
    """

    id: str
    source: str
    type: str
    time: str
    data: dict[str, Any]
    bootid: str
    monotonicms: str
    clocktrusted: bool
    sequence: str = ""
    logid: str = ""
    specversion: str = "1.0"
    datacontenttype: str = "application/json"
    modelversion: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def kind(self) -> str:
        return self.type.split(".")[1]

    @property
    def what(self) -> str:
        return self.type.split(".")[2]

    @property
    def lane(self) -> Lane:
        """Raises ValueError when the type is not in KINDS."""
        return lane_of(self.kind, self.what)

    def sealed(self, sequence: int, logid: str) -> Event:
        """The same event with its place in the log."""
        return msgspec.structs.replace(
            self, sequence=str(sequence).zfill(SEQUENCE_DIGITS), logid=logid
        )


def lane_of(kind: str, what: str) -> Lane:
    """The lane of an event. Raises ValueError for a kind or what that the table does not hold."""
    try:
        return KINDS[kind][what]
    except KeyError:
        raise ValueError(f"no event edge_rt.{kind}.{what} exists; see core.wire.KINDS") from None


def source_of(fleet: str, device: str) -> str:
    """`/edge-rt/<fleet>/<device>`. Raises InputError for a name that is no plain word."""
    for name in (fleet, device):
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} is no fleet or device name; use letters, digits, . _ -")
    return f"/edge-rt/{fleet}/{device}"


def uuid7(unix_s: float, random: bytes) -> str:
    """UUID version 7 (RFC 9562, section 5.7) of a time in Unix seconds and 10 random bytes."""
    if len(random) != 10:
        raise ValueError(f"uuid7 needs 10 random bytes, not {len(random)}")
    value = max(0, int(unix_s * 1000)) & (1 << 48) - 1
    value = value << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def rfc3339(unix_s: float) -> str:
    """UTC with milliseconds, e.g. 2026-01-31T12:00:00.000Z."""
    stamp = datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


def make_event(
    kind: str,
    what: str,
    data: Mapping[str, Any],
    *,
    source: str,
    unix_s: float,
    random: bytes,
    boot_id: str,
    monotonic_s: float,
    clock_trusted: bool,
    model_version: str | None = None,
) -> Event:
    """An event without its place in a log. `random`: 10 bytes.

    Raises ValueError when the kind or what is unknown, the data is not JSON-ready (numpy values
    are turned into plain ones), the event would exceed MAX_EVENT_BYTES, or a face event tells more
    than it may.
    """
    lane_of(kind, what)
    try:
        plain = msgspec.to_builtins(data, enc_hook=_plain, str_keys=True)
    except (TypeError, msgspec.ValidationError, RecursionError) as error:
        raise ValueError(f"edge_rt.{kind}.{what}: data is not JSON-ready: {error}") from None
    if kind == "face":
        check_face_data(plain)
    event = Event(
        id=uuid7(unix_s, random),
        source=source,
        type=f"edge_rt.{kind}.{what}",
        time=rfc3339(unix_s),
        data=plain,
        bootid=boot_id,
        monotonicms=str(int(monotonic_s * 1000)),
        clocktrusted=clock_trusted,
        modelversion=msgspec.UNSET if model_version is None else model_version,
    )
    encode(event.sealed(0, "0" * 32))
    return event


def encode(event: Event) -> bytes:
    """Wire bytes of a sealed event. Raises ValueError when unsealed or over MAX_EVENT_BYTES."""
    if not event.sequence or not event.logid:
        raise ValueError(f"{event.type} {event.id} has no place in a log yet")
    body = msgspec.json.encode(event)
    if len(body) > MAX_EVENT_BYTES:
        raise ValueError(f"{event.type} takes {len(body)} bytes; at most {MAX_EVENT_BYTES} may be")
    return body


_decoder = msgspec.json.Decoder(Event)


def decode(body: bytes) -> Event:
    """The event in wire bytes; unknown extensions are ignored, as CloudEvents asks.

    Raises InputError when the bytes are too many, no JSON, or no event.
    """
    if len(body) > MAX_EVENT_BYTES:
        raise InputError(f"event of {len(body)} bytes; at most {MAX_EVENT_BYTES} are accepted")
    try:
        event = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not an event: {error}") from None
    if event.specversion != "1.0":
        raise InputError(f"event has specversion {event.specversion!r}; 1.0 is understood")
    parts = event.type.split(".")
    if len(parts) != 3 or parts[0] != "edge_rt":
        raise InputError(f"event has type {event.type!r}; edge_rt.<kind>.<what> is understood")
    return event


# Words only: a digit could carry a score.
_REASON = re.compile(r"[a-z]+(_[a-z]+){0,5}")
_PERSON = re.compile(r"p-[0-9a-f]{16}")
_LIVENESS = frozenset(("not_checked", "passed", "failed"))


def check_face_data(data: Mapping[str, Any]) -> None:
    """Hold back what could rebuild a template: exact distances, scores, boxes, pictures, names.

    A face event may hold `outcome` and `reason` (words), `person` (a pseudonym, p- and 16 hex
    digits) and `liveness`, nothing else. Raises ValueError naming the offending key.
    """
    for key, value in data.items():
        if key in ("outcome", "reason"):
            fine = isinstance(value, str) and len(value) <= 40 and bool(_REASON.fullmatch(value))
        elif key == "person":
            fine = value is None or isinstance(value, str) and bool(_PERSON.fullmatch(value))
        else:
            fine = key == "liveness" and isinstance(value, str) and value in _LIVENESS
        if not fine:
            raise ValueError(
                f"face event may not hold {key}={value!r:.40}; it would leave the device"
            )
    decided = data.get("outcome") in ("unlocked", "denied")
    if "outcome" not in data or decided and "liveness" not in data:
        raise ValueError("a face event needs outcome and, if one was decided, liveness")


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
