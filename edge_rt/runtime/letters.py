"""Messages besides events: who gets what is sent to the device, and what goes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edge_rt.core.errors import InputError
from edge_rt.core.uplink_wire import Topics


class Letter(NamedTuple):
    """`topic` is what follows the device's own base; absolute: it is the whole topic.

    qos  0: for what a later one makes worthless; lost with the connection, and no PUBACK comes
    """

    topic: str
    payload: bytes
    retain: bool = False
    qos: int = 1
    absolute: bool = False


# Gets topic (without the base) and payload; may answer. Runs on the uplink's thread: must not wait.
Handler = Callable[[str, bytes], Letter | None]


# Reports and states; what overflows is older than what stays.
MAX_LETTERS = 64


class Outbox:
    """What other threads send: if there is a connection, else it is forgotten (greetings say what
    must be known later)."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._letters: deque[Letter] = deque(maxlen=MAX_LETTERS)
        self._wake = wake

    def put(self, letter: Letter) -> None:
        """Any thread; returns at once."""
        self._letters.append(letter)
        self._wake()

    def take(self) -> Iterator[Letter]:
        """What has been put, oldest first."""
        while self._letters:
            yield self._letters.popleft()


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
