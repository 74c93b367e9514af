"""A V4L2 camera through OpenCV."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

import cv2

from edge_rt.core.errors import CameraError
from edge_rt.core.types import Frame

BUFFERS = 1  # frames the driver may hold: more would only be older
FAILURES = 30  # grabs in a row that may fail, a second at 30 Hz, before the camera counts as lost
JOIN_S = 2.0  # a read that hangs in the driver is left behind; the face worker may be ended for it


class Settings(Protocol):
    """What the configuration says of a camera; format is a FOURCC such as MJPG or YUYV."""

    @property
    def device(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def rate_hz(self) -> float: ...
    @property
    def format(self) -> str: ...


class OpenCVCamera:
    """Keeps grabbing on a thread of its own; `read` hands out the newest frame only.

    dropped: frames that were overwritten before anybody read them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._video: cv2.VideoCapture | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._fresh = threading.Condition()
        self._frame: Frame | None = None
        self._lost = ""
        self.dropped = 0

    def open(self) -> None:
        """Raises CameraError when the device is absent, busy or no camera, naming the remedy."""
        self.close()
        chosen = self._settings
        path = f"/dev/video{chosen.device}" if chosen.device.isdigit() else chosen.device
        if not os.path.exists(path):
            raise CameraError(f"{path}: no such camera; plug it in or set faces.camera.device")
        if not os.access(path, os.R_OK | os.W_OK):
            raise CameraError(f"{path}: may not be opened; add the user to the group video")
        video = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if not video.isOpened():
            video.release()
            raise CameraError(f"{path}: does not open; it is no camera, or something else uses it")
        if len(chosen.format) == 4:
            video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*chosen.format))
        video.set(cv2.CAP_PROP_FRAME_WIDTH, chosen.width)
        video.set(cv2.CAP_PROP_FRAME_HEIGHT, chosen.height)
        video.set(cv2.CAP_PROP_FPS, chosen.rate_hz)
        video.set(cv2.CAP_PROP_BUFFERSIZE, BUFFERS)
        self._video, self._lost, self._frame = video, "", None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._grab,
            args=(video, self._stop, path),
            name="camera",
            daemon=True,
        )
        self._thread.start()

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame not yet read, None if none came in time. Raises CameraError if lost."""
        with self._fresh:
            self._fresh.wait_for(lambda: self._frame is not None or self._lost, timeout_s)
            frame, self._frame = self._frame, None
            if frame is None and self._lost:
                raise CameraError(self._lost)
            if frame is None and self._thread is None:
                raise CameraError("the camera is not open")
            return frame

    def close(self) -> None:
        """Stop grabbing and give the device back; harmless when closed already."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(JOIN_S)
        # Releasing under a thread that hangs inside the driver would crash the process.
        if self._video is not None and (thread is None or not thread.is_alive()):
            self._video.release()
        self._video = None

    def _grab(self, video: cv2.VideoCapture, stop: threading.Event, path: str) -> None:
        failures = 0
        while not stop.is_set():
            good, image = video.read()
            now_s = time.monotonic()
            if good:
                failures = 0
                self._put(Frame(now_s, image))  # type: ignore[arg-type]
                continue
            failures += 1
            if failures >= FAILURES or not os.path.exists(path):
                with self._fresh:
                    self._lost = f"{path}: delivers no picture any more; check its cable"
                    self._fresh.notify_all()
                return
            stop.wait(1.0 / self._settings.rate_hz)

    def _put(self, frame: Frame) -> None:
        with self._fresh:
            if self._frame is not None:
                self.dropped += 1
            self._frame = frame
            self._fresh.notify_all()
