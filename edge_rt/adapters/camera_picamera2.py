"""A Raspberry Pi's camera through picamera2, in the size that its image processor makes for us.

Not yet run on a Pi: written from the library's documentation. picamera2 comes from Raspberry Pi
OS, not from PyPI, and needs an environment that sees the system's packages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from edge_rt.core.errors import CameraError
from edge_rt.core.types import ImageArray

INSTALL = (
    "sudo apt-get install python3-picamera2, and make the environment with --system-site-packages"
)
BUFFERS = 3  # one being filled, one ready, one with us


class Settings(Protocol):
    """What the configuration says of the camera. None: left to the camera's own automatic."""

    @property
    def index(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def rate_hz(self) -> float: ...
    @property
    def exposure_ms(self) -> float | None: ...
    @property
    def gain(self) -> float | None: ...


class Picamera2Capture:
    """A device that is read by waiting for it; for one thread.

    found        what it delivers, one line
    differences  where that is not what was asked for, a line each
    """

    def __init__(
        self, settings: Settings, to_bgr: Callable[[ImageArray, int, int], ImageArray]
    ) -> None:
        """to_bgr: planar YUV 4:2:0 to blue-green-red (adapters.imaging.from_yuv420)."""
        self._settings = settings
        self._to_bgr = to_bgr
        self._size = (settings.width, settings.height)
        self._camera: Any = None
        self._planes: ImageArray | None = None
        self.found = ""
        self.differences: list[str] = []

    def open(self) -> None:
        """Raises CameraError when the package or the camera is missing, naming the remedy."""
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise CameraError(f"picamera2 cannot be used ({error}); {INSTALL}") from None
        chosen = self._settings
        try:
            # The list is of this moment; without a camera the constructor raises IndexError.
            camera = Picamera2(chosen.index)
        except (IndexError, RuntimeError) as error:
            raise CameraError(
                f"Pi camera {chosen.index}: {error}; check its ribbon, and see rpicam-hello"
            ) from None
        self._camera = camera
        try:
            self._start(camera)
        except Exception as error:  # libcamera raises what it likes; the device must be given back
            self.close()
            raise CameraError(f"Pi camera {chosen.index}: {error}; see rpicam-hello") from None

    def _start(self, camera: Any) -> None:
        chosen = self._settings
        period_us = round(1e6 / chosen.rate_hz)
        controls: dict[str, Any] = {"FrameDurationLimits": (period_us, period_us)}
        if chosen.exposure_ms is not None:
            controls["ExposureTime"] = round(chosen.exposure_ms * 1e3)
        if chosen.gain is not None:
            controls["AnalogueGain"] = chosen.gain
        size = (chosen.width, chosen.height)
        # The main stream has to be there; the small one is scaled from the whole field of view.
        configuration = camera.create_video_configuration(
            main={"size": size, "format": "YUV420"},
            lores={"size": size, "format": "YUV420"},
            controls=controls,
            buffer_count=BUFFERS,
        )
        camera.configure(configuration)
        given = tuple(camera.camera_configuration()["lores"]["size"])
        self.differences = (
            [f"size: {size[0]} x {size[1]} wanted, {given[0]} x {given[1]} given"]
            if given != size
            else []
        )
        self._size = given
        self.found = f"{given[0]} x {given[1]} YUV420 at {chosen.rate_hz:g} Hz"
        camera.start()

    def grab(self) -> bool:
        """Wait for the next picture."""
        self._planes = self._camera.capture_array("lores")
        return self._planes is not None

    def picture(self) -> ImageArray | None:
        """The one that was grabbed, in colours."""
        planes, self._planes = self._planes, None
        return None if planes is None else self._to_bgr(planes, *self._size)

    def present(self) -> bool:
        """A ribbon is not unplugged while the power is on."""
        return True

    def close(self) -> None:
        """Give the device back."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with contextlib.suppress(RuntimeError):  # it was never started
                camera.stop()
            camera.close()
