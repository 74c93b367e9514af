"""A V4L2 camera through OpenCV."""

from __future__ import annotations

import os
from typing import Protocol

import cv2

from edge_rt.core.errors import CameraError
from edge_rt.core.types import ImageArray

BUFFERS = 1  # frames the driver may hold: more would only be older
# OpenCV waits so long for a frame, and by itself 10 s: too long to give the device back in time. It
# takes whole seconds, and reads this at the first frame that it waits for.
SELECT_S = 2
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(SELECT_S))

# V4L2_CID_EXPOSURE_AUTO and V4L2_CID_EXPOSURE_ABSOLUTE of linux/v4l2-controls.h
_EXPOSURE_MANUAL, _EXPOSURE_AUTO = 1, 3
_EXPOSURE_UNITS_PER_MS = 10
RATE_TOLERANCE = 0.05  # cameras say 30.00003 or 14.985; a twentieth is another rate


class Settings(Protocol):
    """What the configuration says of a camera; format is a FOURCC such as MJPG or YUYV, empty for
    whatever the camera prefers. None: left to the camera's own automatic."""

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
    @property
    def exposure_ms(self) -> float | None: ...
    @property
    def gain(self) -> float | None: ...
    @property
    def white_balance_k(self) -> int | None: ...


class OpenCVCapture:
    """A device that is read by waiting for it; for one thread.

    found        what it delivers, one line
    differences  where that is not what was asked for, a line each
    """

    def __init__(self, settings: Settings, backend: int = cv2.CAP_V4L2) -> None:
        """backend: another of OpenCV's reads `settings.device` as something else, a file say."""
        self._settings = settings
        self._backend = backend
        self._path = device_path(settings.device)
        self._video: cv2.VideoCapture | None = None
        self.found = ""
        self.differences: list[str] = []

    def open(self) -> None:
        """Raises CameraError when the device is absent, busy or no camera, naming the remedy."""
        path = self._path
        if not os.path.exists(path):
            raise CameraError(f"{path}: no such camera; plug it in or set faces.camera.device")
        if not os.access(path, os.R_OK | os.W_OK):
            raise CameraError(f"{path}: may not be opened; add the user to the group video")
        # By its real name: a link in /dev/v4l/by-id points elsewhere after the next plugging in.
        video = cv2.VideoCapture(os.path.realpath(path), self._backend)
        if not video.isOpened():
            video.release()
            raise CameraError(f"{path}: does not open; it is no camera, or something else uses it")
        self.differences = _set_up(video, self._settings)
        self.found = _describe(video)
        self._video = video

    def grab(self) -> bool:
        """Wait for the next picture, at most SELECT_S; False if none came."""
        assert self._video is not None
        return self._video.grab()

    def picture(self) -> ImageArray | None:
        """The one that was grabbed, decoded; None if it came damaged."""
        assert self._video is not None
        good, image = self._video.retrieve()
        return in_colour(image) if good else None  # type: ignore[arg-type]

    def present(self) -> bool:
        """Whether the device is there at all."""
        return os.path.exists(self._path)

    def close(self) -> None:
        """Give the device back."""
        video, self._video = self._video, None
        if video is not None:
            video.release()


def in_colour(image: ImageArray) -> ImageArray:
    """uint8 (height, width, 3) of a picture that may be (height, width): infrared cameras see no
    colours, and a camera may prefer grey."""
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]


def device_path(device: str) -> str:
    """The path that a number or path in the configuration means."""
    return f"/dev/video{device}" if device.isdigit() else device


def _set_up(video: cv2.VideoCapture, wanted: Settings) -> list[str]:
    """Ask for everything, read it back; what came out differently."""
    fourcc = cv2.VideoWriter.fourcc(*wanted.format) if len(wanted.format) == 4 else None
    if fourcc is not None:
        video.set(cv2.CAP_PROP_FOURCC, fourcc)
    # Width and height belong together, and the rate after them: a new size resets it.
    video.set(cv2.CAP_PROP_FRAME_WIDTH, wanted.width)
    video.set(cv2.CAP_PROP_FRAME_HEIGHT, wanted.height)
    video.set(cv2.CAP_PROP_FPS, wanted.rate_hz)
    video.set(cv2.CAP_PROP_BUFFERSIZE, BUFFERS)
    found = []
    if fourcc is not None and (given := _fourcc(video)) != wanted.format:
        found.append(f"format: {wanted.format} wanted, {given or 'none'} given")
    for name, property, value in (
        ("width", cv2.CAP_PROP_FRAME_WIDTH, wanted.width),
        ("height", cv2.CAP_PROP_FRAME_HEIGHT, wanted.height),
    ):
        if (got := video.get(property)) != value:
            found.append(f"{name}: {value} wanted, {got:g} given")
    rate_hz = video.get(cv2.CAP_PROP_FPS)
    if abs(rate_hz - wanted.rate_hz) > RATE_TOLERANCE * wanted.rate_hz:
        found.append(f"rate_hz: {wanted.rate_hz:g} wanted, {rate_hz:g} given")
    return found + _set_controls(video, wanted)


def _set_controls(video: cv2.VideoCapture, wanted: Settings) -> list[str]:
    # A device keeps what was set before us: automatic has to be asked for too.
    automatic = wanted.exposure_ms is None
    video.set(cv2.CAP_PROP_AUTO_EXPOSURE, _EXPOSURE_AUTO if automatic else _EXPOSURE_MANUAL)
    video.set(cv2.CAP_PROP_AUTO_WB, 1 if wanted.white_balance_k is None else 0)
    found = []
    for name, property, value, scale in (
        ("exposure_ms", cv2.CAP_PROP_EXPOSURE, wanted.exposure_ms, _EXPOSURE_UNITS_PER_MS),
        ("gain", cv2.CAP_PROP_GAIN, wanted.gain, 1),
        ("white_balance_k", cv2.CAP_PROP_WB_TEMPERATURE, wanted.white_balance_k, 1),
    ):
        if value is None:
            continue
        if not video.set(property, round(value * scale)):
            found.append(f"{name}: {value:g} wanted, the camera does not take it")
        elif (got := video.get(property)) != round(value * scale):
            found.append(f"{name}: {value:g} wanted, {got / scale:g} given")
    return found


def _fourcc(video: cv2.VideoCapture) -> str:
    code = int(video.get(cv2.CAP_PROP_FOURCC))
    return "".join(chr(code >> shift & 0x7F) for shift in (0, 8, 16, 24)).strip("\0 ")


def _describe(video: cv2.VideoCapture) -> str:
    width, height = video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    rate_hz = video.get(cv2.CAP_PROP_FPS)
    return f"{width:g} x {height:g} {_fourcc(video)} at {rate_hz:g} Hz"
