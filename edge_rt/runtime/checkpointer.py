"""Copies the log's WAL into its database when no alarm needs the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.eventreader import checkpoint
from edge_rt.core.errors import StorageError

log = logging.getLogger(__name__)

# 4 MB: copying takes tens of milliseconds on a memory card.
PAGES = 1000
# A stage of an alarm is often followed by another: the disk is left to them for so long, but only
# while the WAL is below this.
QUIET_S = 1.0
MAX_PAGES = 3000
# What is committed during one pass is left for the next, which is shorter: SQLite begins the WAL
# anew only when a commit finds all of it copied.
PASSES = 3


class Checkpointer:
    """A thread of its own, so that the writer never waits for the copying.

    done  called on that thread after each copy, or try of one
    """

    def __init__(self, done: Callable[[], None] = lambda: None) -> None:
        self.busy = False  # a copy has been asked for and has not ended
        self._done = done
        self._path: Path | None = None
        self._alarm_s = float("-inf")
        self._stopping = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="recorder-checkpoint", daemon=True)
        self._thread.start()

    def committed(self, events: EventLog, alarm: bool) -> None:
        """The writer has committed something; returns at once."""
        now_s = time.monotonic()
        if alarm:
            self._alarm_s = now_s
        pages = events.wal_pages
        if pages < PAGES or pages < MAX_PAGES and now_s - self._alarm_s < QUIET_S:
            return
        events.wal_pages = 0
        with self._change:
            self._path, self.busy = events.path, True
            self._change.notify()

    def close(self, timeout_s: float) -> bool:
        """Stop; False if the disk hangs."""
        with self._change:
            self._stopping = True
            self._change.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._path is not None or self._stopping)
                path, self._path = self._path, None
                if path is None or self._stopping:  # closing the log copies what is left
                    return
            try:
                for _ in range(PASSES):
                    checkpoint(path)
            except StorageError as error:  # the writer meets the same disk, and says so
                log.debug("the log was not checkpointed: %s", error)
            with self._change:
                self.busy = self._path is not None
            self._done()
