"""The service log: one line a message on stderr, and nobody ever waits for it to be read."""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import queue
import sys

# A reader that stalls (a full pipe, a journal on a dying card) loses lines, never the watch.
MAX_WAITING = 1000


class _Dropping(logging.handlers.QueueHandler):
    """Drops a record when the queue is full; the gap shows in the log's own times."""

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def set_up(level: int = logging.INFO) -> None:
    """Send the log of this process to stderr through a thread of its own."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
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
