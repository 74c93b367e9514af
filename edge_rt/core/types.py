"""Values and protocols that the layers exchange. No behaviour, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]


class SampleBlock(NamedTuple):
    """A run of accelerometer samples in order of arrival.

    t_s    float64 (n,)    seconds on one clock; as the sensor or its reader stamped them
    acc_g  float32 (n, 3)  x, y, z in units of standard gravity (1 g = 9.80665 m/s^2)
    """

    t_s: FloatArray
    acc_g: Float32Array


class Frame(NamedTuple):
    """One camera picture.

    t_s    seconds on the monotonic clock (or the recording's own)
    image  uint8 (height, width, 3), blue-green-red as OpenCV delivers it
    """

    t_s: float
    image: ImageArray


class Accelerometer(Protocol):
    """Anything that yields sample blocks. Raises SensorError when the device is lost."""

    rate_hz: float  # nominal
    range_g: float  # values beyond +-range_g cannot be represented: they saturate

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> SampleBlock | None:
        """The next block, None if none came in time. Raises EOFError at a recording's end."""
        ...

    def close(self) -> None: ...


class Camera(Protocol):
    """Anything that yields frames. Raises CameraError when the device is lost."""

    dropped: int  # frames passed over because the reader was late

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame, None if none came in time. Raises EOFError at a recording's end."""
        ...

    def close(self) -> None: ...


class Announce(Protocol):
    """How a pipeline tells of something: ``announce("fall", "alarm", {...})``; False: refused."""

    def __call__(self, kind: str, what: str, data: Mapping[str, Any]) -> bool | None: ...
