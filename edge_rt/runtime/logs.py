"""The service log: the journal with fields, or one line a message on stderr; nobody waits for it.

A record may carry fields of its own: `log.info("...", extra=fields(event="fall.alarm"))`.
"""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import queue
import sys
from collections.abc import Mapping

from edge_rt.adapters.journal import Journal, goes_to_journal

# A reader that stalls (a full pipe, a journal on a dying card) loses lines, never the watch.
MAX_WAITING = 1000

IDENTIFIER = "edge-rt"
_FIELDS = "journal_fields"  # attribute of a record
# syslog(3) priorities, the journal's
_PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def fields(**values: str) -> dict[str, dict[str, str]]:
    """For `extra=`: `event="fall.alarm"` becomes the journal's EDGE_RT_EVENT=fall.alarm."""
    return {_FIELDS: {f"EDGE_RT_{name.upper()}": value for name, value in values.items()}}


class JournalHandler(logging.Handler):
    """Writes records to the journal; to `fallback` what the journal does not take."""

    def __init__(self, journal: Journal, fallback: logging.Handler) -> None:
        super().__init__()
        self._journal = journal
        self._fallback = fallback

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._journal.send(journal_fields(record))
        except OSError:
            self._fallback.emit(record)


def journal_fields(record: logging.LogRecord) -> dict[str, str]:
    """What the journal keeps of a record."""
    own: Mapping[str, str] = getattr(record, _FIELDS, {})
    return {
        "MESSAGE": record.getMessage(),
        "PRIORITY": str(next((p for level, p in _PRIORITY if record.levelno >= level), 7)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        "EDGE_RT_LOGGER": record.name,
        "EDGE_RT_THREAD": record.threadName or "",
        **own,
    }


class _Dropping(logging.handlers.QueueHandler):
    """Drops a record when the queue is full; the gap shows in the log's own times."""

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def set_up(level: int = logging.INFO) -> None:
    """Send the log of this process to the journal if stderr ends there, else to stderr, through a
    thread of its own."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
    writer: logging.Handler = logging.StreamHandler(sys.stderr)
    writer.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    if goes_to_journal(2):
        writer = JournalHandler(Journal(), writer)
    listener = logging.handlers.QueueListener(waiting, writer)
    listener.start()
    # Without a bound on waiting at exit a stalled reader would keep the process from ending.
    atexit.register(_stop, listener)
    root = logging.getLogger()
    root.handlers[:] = [_Dropping(waiting)]
    root.setLevel(level)


def _stop(listener: logging.handlers.QueueListener) -> None:
    thread = listener._thread
    listener.enqueue_sentinel()
    if thread is not None:
        thread.join(1.0)
