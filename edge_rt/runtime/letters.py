"""Messages besides events: who gets what is sent to the device, and what goes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from edge_rt.core.errors import InputError
from edge_rt.core.uplink_wire import Topics


class Letter(NamedTuple):
    """`topic` is what follows the device's own base."""

    topic: str
    payload: bytes
    retain: bool = False


# Gets topic (without the base) and payload; may answer. Runs on the uplink's thread: must not wait.
Handler = Callable[[str, bytes], Letter | None]


class Inbox:
    """handlers: by topic filter without the base; a filter ends in a plain word or in `/+`."""

    def __init__(self, topics: Topics, handlers: Mapping[str, Handler]) -> None:
        self._base = f"{topics.base}/"
        self._handlers = dict(handlers)

    @property
    def filters(self) -> list[str]:
        """What to subscribe to."""
        return [self._base + name for name in self._handlers]

    def deliver(self, topic: str, payload: bytes) -> Letter | None:
        """Hand it over; the answer. Raises InputError when it is for nobody."""
        name = topic.removeprefix(self._base)
        parent = name.rpartition("/")[0]
        handler = self._handlers.get(name) or self._handlers.get(f"{parent}/+")
        if handler is None or not topic.startswith(self._base):
            raise InputError(f"nobody waits for {topic!r:.100}")
        return handler(name, payload)
