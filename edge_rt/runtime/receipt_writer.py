"""Hands receipts to the event log through the recorder, its only writer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from edge_rt.adapters.eventlog import EventLog
from edge_rt.core.uplink import Mark
from edge_rt.core.wire import Lane
from edge_rt.runtime.recorder import Recorder

log = logging.getLogger(__name__)


class ReceiptWriter:
    """One request at a time; what comes meanwhile is joined, so a drain costs few transactions.

    Use from one thread. wake  called from the recorder's thread when there is room again
    """

    def __init__(self, recorder: Recorder, wake: Callable[[], None]) -> None:
        self._recorder = recorder
        self._wake = wake
        self._marks: dict[Lane, Mark] = {}
        self._busy: Future[None] | None = None

    def add(self, mark: Mark) -> None:
        """The newest mark of a lane says all that the ones before it said."""
        self._marks[mark.lane] = mark

    def write(self, logid: str) -> None:
        """Ask the recorder to keep what has been added for the log of this id; does not wait."""
        if self._busy is not None:
            if not self._busy.done():
                return
            error = self._busy.exception()
            if error is not None:  # the events are sent again after a restart: repeats, no loss
                log.warning("uplink: receipts cannot be kept: %s", error)
            self._busy = None
        if self._marks:
            marks, self._marks = list(self._marks.values()), {}
            self._busy = self._recorder.ask(lambda events: _keep(events, logid, marks))
            self._busy.add_done_callback(lambda _: self._wake())

    def clear(self) -> None:
        """The log is another one now."""
        self._marks.clear()


def _keep(events: EventLog, logid: str, marks: list[Mark]) -> None:
    if events.logid == logid:
        for mark in marks:
            events.receipt(mark.lane, mark.upto, mark.exceptions)
