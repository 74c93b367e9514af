"""Hands receipts to the event log through the recorder, its only writer."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from edge_rt.adapters.eventlog import EventLog
from edge_rt.core.uplink import Mark
from edge_rt.core.wire import Lane
from edge_rt.runtime.recorder import Recorder

log = logging.getLogger(__name__)


# A mark that is lost costs repeats, no event. Writing each would keep the disk busy under alarms.
PERIOD_S = 0.05


class ReceiptWriter:
    """One request at a time, PERIOD_S apart; what comes meanwhile is joined.

    Use from one thread. Times are monotonic seconds.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._next_s = 0.0
        self._marks: dict[Lane, Mark] = {}
        self._busy: Future[None] | None = None

    def add(self, mark: Mark) -> None:
        """The newest mark of a lane says all that the ones before it said."""
        self._marks[mark.lane] = mark

    @property
    def due_s(self) -> float:
        """When write() has something to do; infinity if nothing."""
        return self._next_s if self._marks else float("inf")

    def write(self, logid: str, now_s: float) -> None:
        """Ask the recorder to keep what has been added for the log of this id; does not wait."""
        if now_s < self._next_s:
            return
        if self._busy is not None:
            if not self._busy.done():
                self._next_s = now_s + PERIOD_S
                return
            error = self._busy.exception()
            if error is not None:  # the events are sent again after a restart: repeats, no loss
                log.warning("uplink: receipts cannot be kept: %s", error)
            self._busy = None
        if self._marks:
            self._next_s = now_s + PERIOD_S
            marks, self._marks = list(self._marks.values()), {}
            self._busy = self._recorder.ask(lambda events: _keep(events, logid, marks))

    def clear(self) -> None:
        """The log is another one now."""
        self._marks.clear()


def _keep(events: EventLog, logid: str, marks: list[Mark]) -> None:
    if events.logid == logid:
        for mark in marks:
            events.receipt(mark.lane, mark.upto, mark.exceptions)
