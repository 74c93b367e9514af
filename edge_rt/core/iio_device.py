"""What a Linux IIO device says of its accelerations, and how it is set. Pure: attributes come in.

Source: kernel documentation, Documentation/ABI/testing/sysfs-bus-iio.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edge_rt.core.errors import SensorError
from edge_rt.core.iio import STANDARD_GRAVITY, Layout, lay_out, nearest_scale, parse_element
from edge_rt.core.orientation import parse_mount_matrix
from edge_rt.core.types import FloatArray

AXES = ("x", "y", "z")
POLLED_FASTER = 2.0


class Attributes(Protocol):
    """A device's folder in sysfs. Raises SensorError."""

    def has(self, name: str) -> bool: ...

    def text(self, name: str) -> str: ...

    def write(self, name: str, value: object) -> None: ...

    def names(self, folder: str, ending: str) -> list[str]:
        """Names in a folder below, without the ending that they share."""
        ...


class IioDevice:
    """An accelerometer of the kernel. All methods raise SensorError.

    label  names it in messages
    """

    def __init__(self, attributes: Attributes, label: str) -> None:
        self._attributes = attributes
        self.label = label
        self.has, self.text, self.write = attributes.has, attributes.text, attributes.write

    def number(self, name: str) -> float:
        """An attribute that is a number."""
        text = self.text(name)
        try:
            return float(text)
        except ValueError:
            raise SensorError(
                f"IIO: {name} of {self.label} is {text!r}, no number; see dmesg"
            ) from None

    def numbers(self, name: str) -> list[float]:
        """A list of numbers, as the kernel's `*_available` are; empty if there is none."""
        if not self.has(name):
            return []
        try:
            return [float(part) for part in self.text(name).split()]
        except ValueError:  # "[min step max]": a range, not a list
            return []

    def gains(self) -> tuple[FloatArray, FloatArray]:
        """(offset, scale), float64 (3,) each: g = (raw + offset) * scale."""
        offset = [self._of_axis(axis, "offset", 0.0) for axis in AXES]
        scale = [self._of_axis(axis, "scale", 1.0) for axis in AXES]
        return np.array(offset), np.array(scale) / STANDARD_GRAVITY

    def _of_axis(self, axis: str, what: str, otherwise: float) -> float:
        for name in (f"in_accel_{axis}_{what}", f"in_accel_{what}"):
            if self.has(name):
                return self.number(name)
        return otherwise

    def mount_matrix(self) -> FloatArray:
        """float64 (3, 3); as it is where the kernel has none."""
        for name in ("in_accel_mount_matrix", "in_mount_matrix", "mount_matrix"):
            if self.has(name):
                return parse_mount_matrix(self.text(name))
        return np.eye(3)

    def bits(self) -> int | None:
        """Of a count, if the kernel tells."""
        name = "scan_elements/in_accel_x_type"
        return parse_element(self.text(name)).bits if self.has(name) else None

    def range_g(self) -> float | None:
        """It saturates at +- this, if the kernel tells."""
        bits = self.bits()
        return None if bits is None else float(self.gains()[1].min() * 2 ** (bits - 1))

    def set_range(self, range_g: float) -> None:
        """Choose the smallest scale that reaches it, where it can be chosen.

        Without a buffer a device does not tell the bits of a count, and so no range: then it gets
        its largest scale. Resolution may be lost by that, the peak of a fall may not.
        """
        available, bits = self.numbers("in_accel_scale_available"), self.bits()
        if not available:
            return
        scale = max(available) if bits is None else nearest_scale(available, range_g, bits)
        if abs(self.number("in_accel_scale") / scale - 1.0) > 0.01:
            # As it is offered: drivers compare it digit by digit, nine decimals of some.
            offered = self.text("in_accel_scale_available").split()
            self.write("in_accel_scale", offered[available.index(scale)])

    def set_rate(self, rate_hz: float, polled: bool) -> None:
        """Set the sampling rate, or the next above that is offered, where it can be set.

        polled: it should sample faster than it is looked at, so that what is read is fresh.
        """
        name = self.rate_name()
        if name is None:
            return
        wanted_hz = POLLED_FASTER * rate_hz if polled else rate_hz
        now_hz, offered = self.number(name), self.numbers(f"{name}_available")
        if not offered and polled and now_hz >= rate_hz:
            return  # what it can do is not told: enough is enough
        above = [rate for rate in offered if rate >= 0.99 * wanted_hz]
        target_hz = min(above) if above else max(offered, default=wanted_hz)
        if abs(now_hz / target_hz - 1.0) > 0.01:
            self.write(name, f"{target_hz:g}")

    def rate_name(self) -> str | None:
        """The attribute that holds the sampling rate."""
        for name in ("in_accel_sampling_frequency", "sampling_frequency"):
            if self.has(name):
                return name
        return None

    def buffer_on(self) -> bool:
        """Whether scans are being gathered."""
        return self.has("buffer/enable") and self.text("buffer/enable") == "1"

    def layout(self) -> Layout:
        """Of the scans as they are enabled now."""
        elements = []
        for name in self._attributes.names("scan_elements", "_en"):
            if self.text(f"scan_elements/{name}_en") == "1":
                index = int(self.number(f"scan_elements/{name}_index"))
                element = parse_element(self.text(f"scan_elements/{name}_type"))
                elements.append((index, name, element))
        return lay_out(elements)
