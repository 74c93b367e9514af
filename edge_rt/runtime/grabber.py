"""Makes a camera of a device that can only be waited for: a thread waits, the newest frame wins."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from edge_rt.core.errors import CameraError
from edge_rt.core.frozen import Repeats
from edge_rt.core.types import Frame, ImageArray

log = logging.getLogger(__name__)

FIRST_S = 5.0  # a camera that was just opened starts its sensor and settles its exposure
STALL_S = 3.0  # without a good picture for so long it is lost
PAUSE_S = 0.05  # after a grab that failed at once
JOIN_S = 2.5  # longer than OpenCV waits in the driver; a thread that hangs is left behind

# What it delivers instead of good pictures, and the remedy.
NOTHING = "no picture; check its cable"
DAMAGED = "only damaged pictures; check its cable"
FROZEN = "the same picture again and again; unplug it and plug it in again"


class Capture(Protocol):
    """A device that is read by waiting for it (adapters.camera_opencv, camera_picamera2)."""

    found: str
    differences: list[str]

    def open(self) -> None: ...

    def grab(self) -> bool: ...

    def picture(self) -> ImageArray | None: ...

    def present(self) -> bool: ...

    def close(self) -> None: ...


class CameraHung(CameraError):
    """A thread hangs in the driver; only the end of this process gives the device back."""


class GrabbingCamera:
    """A Camera; `open` and `close` may follow one another as often as needed.

    dropped      frames that were overwritten before anybody read them, while somebody read
    found        what the device delivers; differences: where that is not what was asked for
    """

    def __init__(
        self, name: str, make: Callable[[], Capture], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """name: of the device, for errors; make: a new Capture for each opening."""
        self._name, self._make, self._clock = name, make, clock
        self._thread: threading.Thread | None = None
        self._left: threading.Thread | None = None
        self._stop = threading.Event()
        self._fresh = threading.Condition()
        # Kept over an opening: a camera that is frozen still has not come back by it.
        self._repeats = Repeats()
        self._begin()
        self.dropped = 0
        self.found = ""
        self.differences: list[str] = []

    def _begin(self) -> None:
        """As it is at each opening."""
        self._frame: Frame | None = None
        self._lost = ""
        self._came_s, self._patience_s = self._clock(), FIRST_S
        self._instead = NOTHING
        self._resting = False

    def open(self) -> None:
        """Raises CameraError, CameraHung while an earlier thread hangs in the driver."""
        self.close()
        if self._left is not None and self._left.is_alive():
            raise CameraHung(f"{self._name}: hangs in its driver; unplug it, or start anew")
        capture = self._make()
        capture.open()
        self.found, self.differences = capture.found, capture.differences
        self._begin()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._grab, args=(capture, self._stop), name="camera", daemon=True
        )
        self._thread.start()

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame not yet read, None if none came in time. Raises CameraError if lost."""
        if self._thread is None:
            raise CameraError("the camera is not open")
        with self._fresh:
            self._resting = False
            self._fresh.wait_for(lambda: self._frame is not None or self._lost, timeout_s)
            frame, self._frame = self._frame, None
            if frame is not None:
                return frame
            if self._lost:
                raise CameraError(self._lost)
            if self._clock() - self._came_s > self._patience_s:
                raise CameraError(f"{self._name}: delivers {self._instead}")
            return None

    def rest(self) -> None:
        """Until the next `read` frames are taken off the driver, so that the next is new, and not
        decoded."""
        with self._fresh:
            self._resting, self._frame = True, None

    def close(self) -> None:
        """Stop grabbing and give the device back; harmless when closed already."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(JOIN_S)
            if thread.is_alive():
                self._left = thread

    # ---- in the grabbing thread ----

    def _grab(self, capture: Capture, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                if capture.grab():
                    self._take(capture, self._clock())
                elif not self._miss(capture):
                    return
                else:
                    stop.wait(PAUSE_S)
        except Exception as error:  # whatever a driver raises: the camera is lost, the thread told
            log.exception("camera: the driver failed")
            self._lose(f"{self._name}: {error}")
        finally:
            # Here, for releasing it under a thread that hangs inside the driver would crash.
            capture.close()

    def _take(self, capture: Capture, now_s: float) -> None:
        if self._resting:  # nobody looks whether it is a good one
            self._came(now_s)
            return
        image = capture.picture()
        if image is None:
            self._instead = DAMAGED
            return
        if self._repeats.repeats(image):  # no further look at whoever is in it
            self._instead = FROZEN
            return
        self._came(now_s)
        with self._fresh:
            if self._resting:
                return
            self.dropped += self._frame is not None
            self._frame = Frame(now_s, image)
            self._fresh.notify_all()

    def _came(self, now_s: float) -> None:
        self._came_s, self._patience_s, self._instead = now_s, STALL_S, NOTHING

    def _miss(self, capture: Capture) -> bool:
        """A grab has failed; False when that was the last."""
        if capture.present() and self._clock() - self._came_s <= self._patience_s:
            return True
        self._lose(f"{self._name}: delivers {self._instead}")
        return False

    def _lose(self, reason: str) -> None:
        with self._fresh:
            self._lost = reason
            self._fresh.notify_all()
