"""A sensor as it sits on a body: its calibration and its axes applied to what it delivers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_rt.core.calibration import Calibration
from edge_rt.core.types import Accelerometer, Float32Array, FloatArray, SampleBlock

Listener = Callable[[SampleBlock], None]


class MountedAccelerometer:
    """An `Accelerometer` round another one: body = axes @ (scale * (measured - offset)).

    axes  float64 (3, 3), a rotation, see `core.orientation`

    Without a calibration, and with axes as they are, samples pass unchanged to the last bit.
    """

    def __init__(self, source: Accelerometer, axes: FloatArray) -> None:
        self.rate_hz = source.rate_hz
        self.range_g = source.range_g  # what is surely not reached without saturating
        self._source = source
        self._axes = axes
        self._listeners: tuple[Listener, ...] = ()
        # Replaced whole, so that no block sees half of one; None: nothing to do.
        self._correction: tuple[Float32Array, Float32Array] | None = None
        self.calibrate(None)

    def calibrate(self, calibration: Calibration | None) -> None:
        """From the next block on; also while another thread reads."""
        offset = np.array(calibration.offset_g if calibration else (0.0,) * 3)
        scale = np.array(calibration.scale if calibration else (1.0,) * 3)
        matrix = self._axes * scale
        plain = not offset.any() and np.array_equal(matrix, np.eye(3))
        correction = (offset.astype(np.float32), matrix.T.astype(np.float32))
        self._correction = None if plain else correction
        self.range_g = self._source.range_g * min(1.0, *scale) - float(np.abs(offset).max())

    def open(self) -> None:
        """Raises SensorError."""
        self._source.open()

    def read(self, timeout_s: float) -> SampleBlock | None:
        """As of the source. Raises what that raises."""
        block = self._source.read(timeout_s)
        if block is None:
            return None
        for listener in self._listeners:
            listener(block)
        if self._correction is None:
            return block
        offset, turned = self._correction
        return SampleBlock(block.t_s, (block.acc_g - offset) @ turned)

    def close(self) -> None:
        """As of the source."""
        self._source.close()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Blocks as they were measured, uncorrected, from the reading thread; call the answer to
        stop. A listener may neither wait nor raise."""
        self._listeners = (*self._listeners, listener)

        def forget() -> None:
            # Equality, not identity: a bound method is made anew each time it is named.
            self._listeners = tuple(each for each in self._listeners if each != listener)

        return forget
