"""The recorder: everything that happens goes through here to the log, then to whoever listens.

`announce` never waits for the disk; one thread writes, another (runtime/teller.py) tells.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from edge_rt.adapters.eventlog import MAX_BATCH, Draft, EventLog
from edge_rt.core.errors import StorageError
from edge_rt.core.wire import Event, Lane, lane_of
from edge_rt.runtime.checkpointer import PAGES, Checkpointer
from edge_rt.runtime.stamps import Stamps
from edge_rt.runtime.teller import Listener, Teller

log = logging.getLogger(__name__)
T = TypeVar("T")

# Kept in memory while the disk does not take them. A fall has up to five stages of about 1 KiB:
# 800 falls in 4 MB (64 MB if each were of the largest size). Far more than a day without a disk.
MAX_PENDING_ALARMS = 4096
MAX_PENDING_OTHERS = 1024
MAX_CALLS = 64
# A full or sick disk is asked again soon, then seldom: each try may itself take seconds.
RETRY_FIRST_S = 0.25
RETRY_LAST_S = 5.0
TURN_S = 1.0  # an idle writer shows that it is alive
FLOODED = 0.1  # how far a log may exceed its bound while its WAL is long or being copied


class RecorderStatus(NamedTuple):
    """storage: "opening", "ok" or "failing" (then `error` says why, in one line).

    pending, pending_alarms  announced, not committed (alarms are part of pending)
    dropped                  lost for want of room in memory since the start
    aside                    what became of a log that could not be gone on with; empty: none was
    """

    storage: str
    error: str
    pending: int
    pending_alarms: int
    dropped: int
    last_sequence: int = 0
    logid: str = ""
    log_bytes: int = 0
    aside: str = ""


class Recorder:
    """Owns the event log. All methods may be called from any thread.

    open_log  opens the log with the given Draft; called again after a failure, with True for
              EventLog's `check`. Raises StorageError
    """

    def __init__(self, open_log: Callable[[Draft, bool], EventLog], stamps: Stamps) -> None:
        self._open_log = open_log
        self._stamps = stamps
        self._teller = Teller()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # for the writer
        self._written = threading.Condition(self._lock)  # for flush
        self._pending: deque[tuple[Event, Future[Event]]] = deque()
        self._alarms = 0  # of the pending
        self._dropped = self._dropped_untold = 0
        self._calls: deque[tuple[Callable[[EventLog], Any], Future[Any]]] = deque()
        self._storage, self._error = "opening", ""
        self._place = (0, "", 0)
        self._aside = ""
        self._stopping = False
        self._turned_s = stamps.monotonic_s()
        # The writer's own:
        self._log: EventLog | None = None
        self._told_low = False
        self._trim_on = False  # the log has more to drop, and the WAL has room for it again
        self._checkpointer = Checkpointer(self._copied)
        self._thread = threading.Thread(target=self._run, name="recorder-write", daemon=True)
        self._thread.start()

    def announce(
        self, kind: str, what: str, data: Mapping[str, Any], *, model_version: str | None = None
    ) -> Future[Event]:
        """Take an event; never waits for the disk.

        The ticket's result is the event with its place in the log once that is committed, or a
        StorageError if it was dropped. Raises ValueError for an event that make_event refuses; an
        alarm stage is never refused for its data: what cannot be told is left out and said so.
        """
        lane = lane_of(kind, what)
        try:
            event = self._stamps.draft(kind, what, data, model_version)
        except ValueError as error:
            if lane is not Lane.ALARM:
                raise
            log.error("alarm stage with data that cannot be written: %s", error)
            slim = {"incident": str(data.get("incident", ""))[:64], "fault": str(error)[:200]}
            event = self._stamps.draft(kind, what, slim, model_version)
        ticket: Future[Event] = Future()
        with self._lock:
            if self._stopping:
                return _failed(ticket, "the recorder is closed")
            if lane is Lane.ALARM:  # sounds even if there is no more room to remember it
                self._teller.expect(event)
            if not self._has_room(lane):
                self._dropped += 1
                self._dropped_untold += 1
                return _failed(ticket, f"no room in memory for {event.type}; {self._error}")
            self._pending.append((event, ticket))
            self._alarms += lane is Lane.ALARM
            self._work.notify()
        return ticket

    def listen(self, listener: Listener, *, urgent: bool = False) -> Callable[[], None]:
        """Have a function called with a Notice of each event from now on, in order, until the
        function that is returned is called.

        It runs on a thread that all listeners share and must return at once (put it into a queue).
        urgent  for sirens and screens: an alarm stage comes after its commit or
                teller.ALARM_PATIENCE_S, whichever is first, and only once. The others hear of
                committed events only
        """
        return self._teller.listen(listener, urgent=urgent)

    def listen_ahead(self, listener: Listener) -> Callable[[], None]:
        """Have a function called with each alarm stage before it is written, until the function
        that is returned is called.

        It runs on the thread that announces, with the recorder locked: it may note, and no more.
        """
        return self._teller.listen_ahead(listener)

    def ask(self, function: Callable[[EventLog], T]) -> Future[T]:
        """Run a function with the log on the writer's thread: marks, receipts, figures.

        The future fails with StorageError while the disk does, or when too many are waiting.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._stopping or self._storage == "failing" or len(self._calls) >= MAX_CALLS:
                return _failed(future, self._error or "the recorder is busy or closed")
            self._calls.append((function, future))
            self._work.notify()
        return future

    def status(self) -> RecorderStatus:
        """Now."""
        with self._lock:
            counts = len(self._pending), self._alarms, self._dropped
            return RecorderStatus(self._storage, self._error, *counts, *self._place, self._aside)

    def stuck_s(self) -> float:
        """How long ago the writer last turned; a disk that takes nothing holds it up."""
        return self._stamps.monotonic_s() - self._turned_s

    def teller_stuck_s(self) -> float:
        """How long one listener has kept all others waiting."""
        return self._teller.stuck_s()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all announced so far is committed and told; False if that takes longer."""
        with self._lock:
            done = self._written.wait_for(self._is_idle, timeout_s)
        return self._teller.wait_idle(timeout_s) and done

    def close(self, timeout_s: float) -> bool:
        """Flush, then stop. False if events were left unwritten or disk or listener hang."""
        clean = self.flush(timeout_s)
        with self._lock:
            self._stopping = True
            self._work.notify()
        self._thread.join(timeout_s)
        stopped = self._teller.close(timeout_s) and not self._thread.is_alive()
        stopped = self._checkpointer.close(timeout_s) and stopped
        if stopped:
            for event, ticket in self._pending:
                log.error("not written before the end: %s %s", event.type, event.id)
                _failed(ticket, f"closed before the disk took it: {self._error}")
            for _, future in self._calls:
                _failed(future, "the recorder is closed")
        return clean and stopped

    # ---- the writer's thread ----

    def _run(self) -> None:
        retry_s, again = RETRY_FIRST_S, False
        while True:
            self._turned_s = self._stamps.monotonic_s()
            with self._lock:
                self._work.wait_for(self._has_work, TURN_S)
                trimming = self._log is not None and self._log.trimming
                if not (self._has_work() or trimming):
                    continue
                if self._stopping:
                    break
            try:
                if self._log is None:
                    self._log = self._open_log(self._stamps.draft, again)
                    self._aside = self._log.set_aside or self._aside
                self._write(self._log, again)
                retry_s, again = RETRY_FIRST_S, False
                continue
            except StorageError as error:
                self._fail(str(error))
            except Exception as error:  # the writer must outlive our own bugs: alarms need it
                log.exception("the recorder failed")
                self._fail(f"bug: {type(error).__name__}: {error}")
            again = True
            with self._lock:
                self._work.wait_for(lambda: self._stopping, retry_s)
            retry_s = min(retry_s * 2, RETRY_LAST_S)
        if self._log is not None:
            self._log.close()

    def _write(self, events: EventLog, again: bool) -> None:
        with self._lock:
            batch = list(islice(self._pending, MAX_BATCH))
        stored = events.append([event for event, _ in batch], again=again) if batch else []
        placed = zip(batch, stored, strict=True)
        sealed = [event.sealed(place.sequence, events.logid) for (event, _), place in placed]
        with self._lock:
            self._storage, self._error = "ok", ""
        self._teller.hurry(False)
        self._teller.committed(sealed)
        for event, (_, ticket) in zip(sealed, batch, strict=True):
            ticket.set_result(event)
        with self._lock:
            for event in sealed:
                self._pending.popleft()
                self._alarms -= event.lane is Lane.ALARM
        self._tell_own(events)
        with self._lock:
            self._place = (events.last_sequence, events.logid, events.used_bytes())
            self._written.notify_all()
        self._answer_calls(events)
        alarm = any(event.lane is Lane.ALARM for event in sealed)
        self._checkpointer.committed(events, alarm)

    def _answer_calls(self, events: EventLog) -> None:
        """Marks and figures: none is answered while an alarm waits, but one each time."""
        for _ in range(MAX_CALLS):
            with self._lock:
                if not self._calls:
                    return
                function, future = self._calls.popleft()
            _answer(function, future, events)
            if self._alarms:
                return

    def _tell_own(self, events: EventLog) -> None:
        """What the log and the recorder have to tell of themselves."""
        with self._lock:
            self._trim_on = False
        # Deleting can outrun the copying by far; the WAL begins anew only once all is copied. But
        # a log that a flood takes well past its bound is trimmed whatever the WAL is like.
        flooded = events.used_bytes() > events.max_bytes * (1 + FLOODED)
        if flooded or not self._checkpointer.busy:
            told = events.trim(None if flooded else PAGES)
            self._teller.committed(stored.event for stored in told)
        with self._lock:
            dropped = self._dropped_untold
        drafts = []
        if dropped:
            data: dict[str, Any] = {"reason": "memory_full", "count": dropped}
            drafts.append(self._stamps.draft("device", "dropped", data))
        used_bytes = events.used_bytes()
        low = used_bytes > events.max_bytes and not events.trimming
        if low and not self._told_low:
            data = {"reason": "alarms_without_receipt", "log_bytes": used_bytes}
            drafts.append(self._stamps.draft("device", "storage_low", data))
        if drafts:
            self._teller.committed(stored.event for stored in events.append(drafts))
        self._told_low = low
        with self._lock:
            self._dropped_untold -= dropped

    def _fail(self, reason: str) -> None:
        # Reopening is what finds a damaged file and notices a disk that came back.
        if self._log is not None:
            self._log.close()
            self._log = None
        with self._lock:
            if self._storage != "failing":
                log.error("events are kept in memory: %s", reason)
            self._storage, self._error = "failing", reason
            calls, self._calls = self._calls, deque()
        self._teller.hurry(True)
        for _, future in calls:
            _failed(future, reason)

    def _copied(self) -> None:
        """The WAL is in the database. On the checkpointer's thread."""
        with self._lock:
            self._trim_on = self._log is not None and self._log.trimming
            self._work.notify()

    # ---- conditions; called with the lock held ----

    def _has_room(self, lane: Lane) -> bool:
        if lane is Lane.ALARM:
            return self._alarms < MAX_PENDING_ALARMS
        return len(self._pending) - self._alarms < MAX_PENDING_OTHERS

    def _has_work(self) -> bool:
        waiting = self._pending or self._calls or self._dropped_untold or self._trim_on
        return bool(waiting or self._stopping or self._log is None)

    def _is_idle(self) -> bool:
        return not (self._pending or self._dropped_untold) and self._log is not None


def _answer(function: Callable[[EventLog], Any], future: Future[Any], events: EventLog) -> None:
    try:
        future.set_result(function(events))
    except Exception as error:  # belongs to the asker, who gets it from the future
        future.set_exception(error)


def _failed(future: Future[T], reason: str) -> Future[T]:
    future.set_exception(StorageError(reason))
    return future
