"""The reading thread of an accelerometer: opens it, reads it, opens it again when it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from edge_rt.core.errors import SensorError
from edge_rt.core.types import Accelerometer, SampleBlock

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.5
# At once first: a blink of the power is over, and may be the jerk of a fall. Then seldom enough; a
# sensor that is plugged back in is found within 2 s.
BACKOFF_S = (0.01, 0.2, 0.5, 1.0, 2.0)


class AccelerometerReader:
    """Feeds what a sensor delivers to three callbacks, all called in the reader's thread.

    on_block  a block of samples
    on_lost   why the sensor cannot be read; told once for each loss
    on_end    a recording is over; nothing comes after it
    """

    def __init__(
        self,
        source: Accelerometer,
        on_block: Callable[[SampleBlock], Any],
        on_lost: Callable[[str], Any],
        on_end: Callable[[], Any],
    ) -> None:
        self._source = source
        self._on_block = on_block
        self._on_lost = on_lost
        self._on_end = on_end
        self._turned_s = time.monotonic()
        self._stopping = threading.Event()
        self._again = threading.Event()
        self._thread = threading.Thread(target=self._run, name="accelerometer", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._turned_s = time.monotonic()
        self._thread.start()

    def reopen(self) -> None:
        """Close the sensor and open it anew, which resets it: what it delivers is not the truth.
        From any thread."""
        self._again.set()

    def stuck_s(self) -> float:
        """How long ago the thread last turned, a failed try included; 0 once it has ended."""
        return time.monotonic() - self._turned_s if self._thread.is_alive() else 0.0

    def close(self) -> None:
        """Stop; a thread stuck in a driver is left behind (it is a daemon thread)."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * READ_TIMEOUT_S)

    def _run(self) -> None:
        losses = 0
        while not self._stopping.is_set():
            try:
                self._turned_s = time.monotonic()
                self._source.open()
                self._again.clear()
                while not (self._stopping.is_set() or self._again.is_set()):
                    self._turned_s = time.monotonic()
                    block = self._source.read(READ_TIMEOUT_S)
                    if block is not None:
                        losses = 0
                        self._on_block(block)
            except EOFError:
                self._on_end()
                return
            except Exception as error:  # whatever a driver raises: this thread must try again
                if losses == 0:
                    if isinstance(error, SensorError):
                        log.error("accelerometer: %s", error)
                    else:
                        log.exception("accelerometer: the driver failed")
                    self._on_lost(str(error))
                # Not held while it is waited for: a kernel removes no bus that somebody has open.
                self._close_source()
                self._stopping.wait(BACKOFF_S[min(losses, len(BACKOFF_S) - 1)])
                losses += 1
            finally:
                self._close_source()

    def _close_source(self) -> None:
        try:
            self._source.close()
        except Exception:  # a driver that cannot even close is opened anew all the same
            log.exception("accelerometer: closing failed")
