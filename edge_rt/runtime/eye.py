"""The face worker's camera: opened while it is needed, opened again when lost, counted."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_rt.core.errors import CameraError, InputError
from edge_rt.core.types import Camera, Frame
from edge_rt.runtime.face_messages import CameraOpened, CameraOpening, CameraState
from edge_rt.runtime.grabber import CameraHung, GrabbingCamera

READ_S = 0.3
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)  # a camera that is plugged back in is found soon
HUNG_S = 20.0  # a driver that holds a thread for so long does not let go any more

Tell = Callable[[CameraState | CameraOpening | CameraOpened], None]


class Eye:
    """One camera. state: "off", "on", "lost" or "ended" (a recording).

    frames   taken so far; dropped: those among them that were passed over because the worker was
             busy (frames between two checks of the wake mode are not)
    """

    def __init__(
        self, make: Callable[[], Camera], tell: Tell, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make, self._tell, self._clock = make, tell, clock
        self._camera: Camera | None = None
        self._open = False
        self._losses = 0
        self._reopen_s = 0.0
        self._hung_s: float | None = None
        self._dropped = 0  # of the camera, as it was at the frame before
        self._resting = False
        self.state, self.reason = "off", ""
        self.frames = self.dropped = 0

    def next_frame(self) -> Frame | None:
        """The newest frame; None if there is none now. Loss and return are told once each.

        Raises CameraHung when only a new process helps.
        """
        if not self._open and not self._opened():
            return None
        assert self._camera is not None
        try:
            frame = self._camera.read(READ_S)
        except (CameraError, InputError) as error:
            self._lose(str(error))
            return None
        except EOFError:
            self.close()
            self.state = "ended"
            self._reopen_s = float("inf")
            return None
        if frame is not None:
            if self.state == "lost":
                self._tell(CameraState(False))
            self.state, self.reason, self._losses = "on", "", 0
            self.frames += 1
            dropped = self._camera.dropped
            if not self._resting:
                self.dropped += max(0, dropped - self._dropped)
            self._dropped, self._resting = dropped, False
        return frame

    def rest(self) -> None:
        """No frame is wanted for a while."""
        self._resting = True
        if isinstance(self._camera, GrabbingCamera):
            self._camera.rest()

    def close(self) -> None:
        """Give the device back: nothing is captured from now on."""
        if self._open and self._camera is not None:
            self._camera.close()
        self._open = False
        if self.state in ("on", "lost"):  # lost, too: who does not look misses nothing
            self.state, self.reason = "off", ""
            self._reopen_s = 0.0

    def _opened(self) -> bool:
        now_s = self._clock()
        if now_s < self._reopen_s:
            time.sleep(0.05)
            return False
        try:
            if self._camera is None:
                self._camera = self._make()
            self._tell(CameraOpening())
            self._camera.open()
        except CameraHung as error:
            self._hung_s = now_s if self._hung_s is None else self._hung_s
            self._lose(str(error))
            if now_s - self._hung_s > HUNG_S:
                raise
            return False
        except (CameraError, InputError) as error:  # InputError: a replayed file
            self._lose(str(error))
            return False
        self._open, self._hung_s, self._dropped = True, None, self._camera.dropped
        if isinstance(self._camera, GrabbingCamera):
            self._tell(CameraOpened(self._camera.found, self._camera.differences))
        return True

    def _lose(self, reason: str) -> None:
        if self.state != "lost":
            self._tell(CameraState(True, reason))
        self.close()
        self.state, self.reason = "lost", reason
        self._reopen_s = self._clock() + BACKOFF_S[min(self._losses, len(BACKOFF_S) - 1)]
        self._losses += 1
