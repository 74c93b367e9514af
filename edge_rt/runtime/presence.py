"""Whether somebody is at the device: a button was pressed there, or an enrolled person was seen."""

from __future__ import annotations

import threading
import time

from edge_rt.runtime.teller import Notice


class Presence:
    """shown() from any thread; wait() counts only what is shown from then on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._times = 0

    def shown(self) -> None:
        """A button at the device was pressed, or the like; returns at once."""
        with self._changed:
            self._times += 1
            self._changed.notify_all()

    def notice(self, notice: Notice) -> None:
        """For Recorder.listen: somebody who is enrolled unlocked."""
        if notice.event.kind == "face" and notice.event.what == "unlocked":
            self.shown()

    def wait(self, timeout_s: float) -> bool:
        """Whether it was shown within the time."""
        end_s = time.monotonic() + timeout_s
        with self._changed:
            before = self._times
            while self._times == before:
                left_s = end_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    return self._times != before
            return True
