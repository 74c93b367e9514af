"""Settings from afar: an allow-list, versions, and the configuration's own types as the judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from edge_rt.core.config import Config
from edge_rt.core.errors import InputError
from edge_rt.core.uplink_wire import decode_payload

# What a fleet may move. Never: actuators, endpoints, keys, liveness, anything that runs code or
# turns a watch over a person off.
ALLOWED = (
    "falls.threshold",  # within the signed bundle's own bounds
    "falls.alarm.cancel_window_s",
    "falls.alarm.escalated_window_s",
    "falls.alarm.cancel_on_recovery",
    "mqtt.alarm_patience_s",
)
# A version near the end of the numbers would shut out every later one. A device that has none yet
# may come into an old fleet.
MAX_JUMP = 1000
MAX_FIRST = 1_000_000
MAX_DESIRED_BYTES = 16 * 1024


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `twin/desired`: all settings that shall differ from the configuration file."""

    version: Annotated[int, Meta(ge=1, le=2**53)]
    settings: dict[str, Any]


class Rejected(msgspec.Struct, frozen=True):
    """A desired version that was not applied, and why."""

    version: int
    reason: str


class Reported(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payload of `twin/reported`: the version in force (0: none) and every allowed setting.

    models: by task {name, version, slot, previous, state, candidate}; see runtime.update_task
    """

    version: int
    settings: dict[str, Any]
    rejected: Rejected | None = None
    models: dict[str, Any] = {}


class Choice(NamedTuple):
    """The configuration that a desired version asks for."""

    version: int
    settings: dict[str, Any]
    config: Config


_desired = msgspec.json.Decoder(Desired)


def decode_desired(payload: bytes) -> Desired:
    """Raises InputError for what is no desired state."""
    return decode_payload(_desired, payload, "desired state", MAX_DESIRED_BYTES)


def choose(base: Config, current: int, desired: Desired) -> Choice:
    """What `desired` asks for, over the configuration file `base`; `current`: version in force.

    Raises InputError for an older version, too large a jump, a setting that is not on the
    allow-list, or a value that the configuration would not take.
    """
    if desired.version < current:
        raise InputError(f"version {desired.version} is older than {current}, which is in force")
    highest = current + MAX_JUMP if current else MAX_FIRST
    if desired.version > highest:
        raise InputError(f"version {desired.version} jumps too far; up to {highest} are accepted")
    flat = _flatten(desired.settings)
    for path in flat:
        if path not in ALLOWED:
            raise InputError(f"{path} is not on the allow-list")
    merged = msgspec.to_builtins(base)
    for path, value in flat.items():
        *sections, key = path.split(".")
        place = merged
        for section in sections:
            place = place[section]
        place[key] = value
    try:
        return Choice(desired.version, desired.settings, msgspec.convert(merged, Config))
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from None


def settings_of(config: Config) -> dict[str, Any]:
    """Every allowed setting as it is, by its path."""
    found = {}
    for path in ALLOWED:
        value: Any = config
        for step in path.split("."):
            value = getattr(value, step)
        found[path] = value
    return found


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested or dotted keys to paths; the payload's size bounds the depth well before Python's."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if (prefix + key).count(".") > 3:
                raise InputError(f"{prefix + key:.60} is not on the allow-list")
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
