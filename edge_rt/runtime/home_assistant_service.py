"""Keeps Home Assistant's picture of the device: announced, its state retained, or taken back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.core.home_assistant import (
    MODELS_TOPIC,
    STATE_TOPIC,
    FallState,
    models_payload,
    state_payload,
)
from edge_rt.runtime.letters import Letter
from edge_rt.runtime.teller import Notice

log = logging.getLogger(__name__)

# A device changes its discovery prefix once or twice in its life.
MAX_TOPICS = 8


class Announced(msgspec.Struct, frozen=True):
    """Topics that a broker may hold an announcement of ours in."""

    topics: tuple[str, ...] = ()


class HomeAssistantService:
    """greet() on the uplink's thread, notice() on the recorder's, refresh() on telemetry's,
    show_models() on the one of updates.

    topic   of the announcement, None while turned off
    config  its payload
    state   now; must return at once. None: this device watches no falls
    models  tasks whose models are announced
    send    uplink's post(): in order, forgotten without a connection; set once there is an uplink
    """

    def __init__(
        self,
        file: StateFile[Announced],
        topic: str | None,
        config: bytes,
        state: Callable[[], FallState] | None,
        models: Collection[str] = (),
    ) -> None:
        self.send: Callable[[Letter], None] = lambda letter: None
        self._topic = topic
        self._config = config
        self._state = state
        self._lock = threading.Lock()
        self._last: FallState | None = None
        self._tasks = frozenset(models)
        self._models: dict[str, Mapping[str, Any]] = {}
        known = _load(file).topics
        self._stale = tuple(name for name in known if name != topic)
        if topic is not None and topic not in known:
            # Before the first announcement: one that is not remembered could never be taken back.
            _save(file, Announced((*known[1 - MAX_TOPICS :], topic)))

    def greet(self) -> list[Letter]:
        """What to say at each connect, besides the state, which goes by `send`.

        A broker may have lost what it held, or missed what we sent.
        What was turned off is taken back at each connect, too: clearing what is clear harms
        nothing, and no PUBACK has to be waited for.
        """
        said = [Letter(topic, b"", retain=True, absolute=True) for topic in self._stale]
        if self._topic is not None:
            self._tell(always=True)
            self._tell_models()
            return [*said, Letter(self._topic, self._config, retain=True, absolute=True)]
        topics = (STATE_TOPIC, MODELS_TOPIC) if said else ()
        return [*said, *(Letter(topic, b"", retain=True) for topic in topics)]

    def notice(self, notice: Notice) -> None:
        """An event was committed."""
        if notice.event.kind == "fall":
            self._tell(always=False)

    def refresh(self) -> None:
        """Some changes are no events: armed, disarmed, ready again."""
        self._tell(always=False)

    def show_models(self, report: Mapping[str, Mapping[str, Any]]) -> None:
        """Which models run and where their updates stand has changed (runtime.update_task)."""
        with self._lock:
            self._models = {task: row for task, row in report.items() if task in self._tasks}
        self._tell_models()

    def _tell_models(self) -> None:
        """With no update entity, what an earlier one read is cleared."""
        if self._topic is None:
            return
        with self._lock:
            if self._models or not self._tasks:
                payload = models_payload(self._models) if self._models else b""
                self.send(Letter(MODELS_TOPIC, payload, retain=True))

    def _tell(self, *, always: bool) -> None:
        if self._topic is None or self._state is None:
            return
        with self._lock:  # two threads at once must not send the older state last
            now = self._state()
            if always or now != self._last:
                self._last = now
                self.send(Letter(STATE_TOPIC, state_payload(now), retain=True))


def _load(file: StateFile[Announced]) -> Announced:
    try:
        return file.load() or Announced()
    except StorageError as error:
        log.warning("home assistant: what was announced before is not known: %s", error)
        return Announced()


def _save(file: StateFile[Announced], announced: Announced) -> None:
    try:
        file.save(announced)
    except StorageError as error:  # a full disk must not keep the device from running
        log.warning("home assistant: the announcement cannot be remembered: %s", error)
