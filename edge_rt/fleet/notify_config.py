"""fleet.toml: who is told, by which services, in which order."""

from __future__ import annotations

import difflib
import re

import msgspec

from edge_rt.core.errors import ConfigError
from edge_rt.core.manifest import Struct
from edge_rt.fleet.escalation import Person, Rules


class NotifyConfig(Struct, frozen=True):
    """The whole file. Every service of every person is asked: 100 are a thread each at most."""

    people: tuple[Person, ...]
    escalation: Rules = Rules()

    def __post_init__(self) -> None:
        names = [person.name for person in self.people]
        if not names:
            raise ValueError("nobody to tell; add [[people]] with name and urls")
        if len(set(names)) < len(names):
            raise ValueError("two people have one name")
        if sum(len(person.urls) for person in self.people) > MAX_SERVICES:
            raise ValueError(f"more than {MAX_SERVICES} services")


MAX_SERVICES = 100
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<path>[^`]*)`)?")


def parse_notify_config(text: bytes, where: str) -> NotifyConfig:
    """Raises ConfigError that names the file and the key, never a URL: it holds secrets."""
    try:
        return msgspec.toml.decode(text, type=NotifyConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None


def _explain(message: str) -> str:
    unknown = _UNKNOWN.search(message)
    if not unknown:
        return message
    key, path = unknown["key"], unknown["path"] or ""
    sections: dict[str, type[msgspec.Struct]] = {"people": Person, "escalation": Rules}
    kind = sections.get(path.split("[")[0], NotifyConfig)
    valid = sorted(kind.__struct_fields__)
    near = difflib.get_close_matches(key, valid, 1, 0.5)
    remedy = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
    return f"unknown key {key!r} in [{path.split('[')[0] or 'the top level'}]; {remedy}"
