"""fleet.toml: who is told, by which services, in which order."""

from __future__ import annotations

from edge_rt.core.errors import ConfigError
from edge_rt.core.manifest import Struct
from edge_rt.core.typed_toml import decode_toml
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


def parse_notify_config(text: bytes, where: str) -> NotifyConfig:
    """Raises ConfigError that names the file and the key, never a URL: it holds secrets."""
    config: NotifyConfig = decode_toml(text, NotifyConfig, where, ConfigError)
    return config
