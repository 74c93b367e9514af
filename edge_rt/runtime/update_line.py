"""The connection of the updates: what is asked for, what no longer, what came unasked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from edge_rt.adapters import mqtt
from edge_rt.core.mqtt_facts import Fact
from edge_rt.core.uplink_link import Backoff, Event, Link, State

log = logging.getLogger(__name__)

# A chunk and its topic; the shipped broker takes no more.
MAX_PACKET_BYTES = 128 * 1024
BATCH = 16  # such packets at once in memory: 2 MB
# What the kernel may hold for us is on the line still when we hang up for an alarm: 2 s of
# 256 kbit/s. It doubles this for its own use (socket(7)).
RECEIVE_BUFFER_BYTES = 64 * 1024
# After what was not asked for came to so much, the connection is dropped, and the next one waits as
# after a refusal.
MAX_NUISANCE_BYTES = 1024 * 1024
# What an empty message costs us all the same.
_OVERHEAD_BYTES = 64


class Line:
    """Use from one thread, but wake()."""

    def __init__(
        self,
        settings: mqtt.Settings,
        window: int,
        backoff: Backoff,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.error = ""
        self.connects = 0
        self._mqtt = mqtt.Mqtt(
            settings._replace(
                client_id=f"{settings.client_id}-updates",
                session_s=0,
                receive_maximum=2 * window,
                max_packet_bytes=MAX_PACKET_BYTES,
                batch=BATCH,
                receive_buffer_bytes=RECEIVE_BUFFER_BYTES,
            )
        )
        self._link = Link(backoff, random)
        self._clock = clock
        self._nuisance_bytes = 0
        self._left: list[str] = []
        self.wake = self._mqtt.wake  # from any thread

    @property
    def state(self) -> State:
        return self._link.state

    @property
    def online(self) -> bool:
        return self._link.state is State.ONLINE

    @property
    def due_s(self) -> float:
        """When keep_up() may have something to do."""
        return self._link.due_s if self._link.state is State.WAITING else float("inf")

    def keep_up(self) -> None:
        """Connect, if it is time to."""
        now = self._clock()
        if self._link.state is State.WAITING and now >= self._link.due_s:
            self._link.step(Event.DUE, now)
            self._mqtt.open()

    def ask(self, topics: Iterable[str]) -> None:
        """Have what is retained there sent."""
        self._leave()  # first: the same may be asked for anew
        if wanted := list(topics):
            self._mqtt.subscribe(wanted)

    def leave(self, topics: Iterable[str]) -> None:
        """Ask for it no longer; said to the broker with the next ask() or poll()."""
        self._left += topics

    def poll(self, timeout_s: float) -> list[Fact]:
        """What has happened. A Closed among it is dealt with already."""
        self._leave()
        facts = self._mqtt.poll(timeout_s)
        for fact in facts:
            match fact:
                case mqtt.Connected():
                    self._link.step(Event.ACCEPTED, self._clock())
                    self.connects += 1
                    self._nuisance_bytes = 0
                    self.error = ""
                case mqtt.Closed():
                    self.hang_up(fact.line, refused=fact.refused)
                case mqtt.Subscribed():
                    for name, reason in fact.refused:
                        self.error = f"the broker refused the subscription to {name}: {reason}"
                        log.error("updates: %s", self.error)
        return facts

    def unasked(self, fact: mqtt.Received) -> bool:
        """Nobody asked for this message; True if that was once too often."""
        self._nuisance_bytes += len(fact.payload) + len(fact.topic) + _OVERHEAD_BYTES
        return self._nuisance_bytes > MAX_NUISANCE_BYTES

    def hang_up(self, reason: str, *, refused: bool = False) -> None:
        """Drop the connection, and what is on its way with it."""
        if reason and reason != self.error:  # a day's outage is one line, not a thousand
            log.warning("updates: no connection: %s", reason)
        self.error = reason
        if self._link.state in (State.CONNECTING, State.ONLINE):
            self._link.step(Event.REFUSED if refused else Event.LOST, self._clock())
        self._mqtt.abort()
        self._left.clear()

    def close(self) -> None:
        """Say goodbye; the object is of no more use."""
        self._link.step(Event.STOP, self._clock())
        self._mqtt.disconnect()
        self._mqtt.close()

    def _leave(self) -> None:
        self._mqtt.unsubscribe(self._left)
        self._left.clear()
