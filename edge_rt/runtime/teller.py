"""Tells listeners of events on a thread of its own, so that a hanging disk silences no siren."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from edge_rt.core.wire import Event

log = logging.getLogger(__name__)

# An alarm sounds after this at the latest, written or not: a person on the floor does not wait for
# a memory card.
ALARM_PATIENCE_S = 0.2
# Listeners return at once, so this much never waits. If one hangs, the oldest are lost to the
# listeners only: the log has them.
MAX_UNTOLD = 8192


class Notice(NamedTuple):
    """What listeners get. committed: False only for an alarm that the disk has not taken yet;
    its `sequence` and `logid` are empty then."""

    event: Event
    committed: bool


Listener = Callable[[Notice], None]


class Teller:
    """Urgent listeners get each alarm once, after its commit or ALARM_PATIENCE_S; all listeners
    get other events after their commit; patient ones get alarms after their commit only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._settled = threading.Condition(self._lock)
        self._expected: dict[str, tuple[float, Event]] = {}  # alarms by id, oldest first
        self._told_early: dict[str, None] = {}
        self._queue: deque[tuple[Notice, bool, bool]] = deque(maxlen=MAX_UNTOLD)
        self._urgent: list[Listener] = []
        self._patient: list[Listener] = []
        self._ahead: list[Listener] = []
        self._hurry = self._stopping = False
        self._telling_s: float | None = None  # since when a listener has been called
        self._thread = threading.Thread(target=self._run, name="recorder-tell", daemon=True)
        self._thread.start()

    def listen(self, listener: Listener, *, urgent: bool) -> Callable[[], None]:
        """Call it with every notice from now on, until the function that is returned is called."""
        return self._join(self._urgent if urgent else self._patient, listener)

    def listen_ahead(self, listener: Listener) -> Callable[[], None]:
        """Call it with each alarm that is expected, at once, on the thread that announces it."""
        return self._join(self._ahead, listener)

    def expect(self, alarm: Event) -> None:
        """An alarm stage that will be told soon, whatever the disk does."""
        with self._lock:
            self._expected[alarm.id] = (time.monotonic() + ALARM_PATIENCE_S, alarm)
            self._news.notify()
            ahead = tuple(self._ahead)
        for listener in ahead:
            _call(listener, Notice(alarm, False))

    def committed(self, events: Iterable[Event]) -> None:
        """These are in the log now."""
        with self._lock:
            for event in events:
                self._expected.pop(event.id, None)
                urgent = event.id not in self._told_early
                self._told_early.pop(event.id, None)
                self._queue.append((Notice(event, True), urgent, True))
            self._news.notify()

    def hurry(self, failing: bool) -> None:
        """While the disk is known to fail, alarms wait for nothing."""
        with self._lock:
            self._hurry = failing
            self._news.notify()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until all that is known has been told."""
        with self._lock:
            return self._settled.wait_for(self._is_idle, timeout_s)

    def stuck_s(self) -> float:
        """How long one listener has kept all others waiting."""
        since_s = self._telling_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def close(self, timeout_s: float) -> bool:
        """Tell what is left and stop; False if a listener does not return."""
        with self._lock:
            self._stopping = self._hurry = True
            self._news.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _join(self, group: list[Listener], listener: Listener) -> Callable[[], None]:
        with self._lock:
            group.append(listener)

        def forget() -> None:
            with self._lock:
                if listener in group:
                    group.remove(listener)

        return forget

    def _run(self) -> None:
        while True:
            with self._lock:
                self._telling_s = None
                self._take_due()
                while not self._queue:
                    self._settled.notify_all()
                    if self._stopping:
                        return
                    self._news.wait(self._patience_s())
                    self._take_due()
                queue, self._queue = self._queue, deque(maxlen=MAX_UNTOLD)
                urgent, patient = tuple(self._urgent), tuple(self._patient)
                self._telling_s = time.monotonic()
            for notice, to_urgent, to_patient in queue:
                for listener in (*urgent * to_urgent, *patient * to_patient):
                    self._telling_s = time.monotonic()
                    _call(listener, notice)

    def _take_due(self) -> None:
        now_s = time.monotonic()
        for due_s, event in list(self._expected.values()):
            if not self._hurry and due_s > now_s:
                break
            del self._expected[event.id]
            self._told_early[event.id] = None
            self._queue.append((Notice(event, False), True, False))
        while len(self._told_early) > MAX_UNTOLD:  # those that were never written
            del self._told_early[next(iter(self._told_early))]

    def _patience_s(self) -> float | None:
        for due_s, _ in self._expected.values():
            return max(0.0, due_s - time.monotonic())
        return None

    def _is_idle(self) -> bool:
        return not (self._queue or self._expected or self._telling_s is not None)


def _call(listener: Listener, notice: Notice) -> None:
    try:
        listener(notice)
    except Exception:  # one listener's fault must not silence the siren behind it
        log.exception("a listener failed on %s", notice.event.type)
