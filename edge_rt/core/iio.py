"""Linux IIO: how a device describes its scans, and samples out of their bytes. Pure.

Source: kernel documentation, Documentation/driver-api/iio/buffers.rst and
Documentation/ABI/testing/sysfs-bus-iio; placement of elements within a scan as in
iio_compute_scan_bytes() of drivers/iio/industrialio-buffer.c.

Proved on byte layouts only; no buffered IIO device has been read with this yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import SensorError

STANDARD_GRAVITY = 9.80665  # m/s^2; IIO gives acceleration in m/s^2 after offset and scale

_TYPE = re.compile(r"(be|le):([su])(\d+)/(\d+)(?:X(\d+))?(?:>>(\d+))?\Z")

Integers = npt.NDArray[np.int64]


class Element(NamedTuple):
    """One channel of a scan: `[be|le]:[s|u]bits/storagebits[Xrepeat][>>shift]`."""

    big_endian: bool
    signed: bool
    bits: int
    storage_bits: int
    repeat: int
    shift: int

    @property
    def size(self) -> int:
        """Bytes that it takes, all repetitions together."""
        return self.storage_bits // 8 * self.repeat


def parse_element(text: str) -> Element:
    """What `scan_elements/in_*_type` holds. Raises SensorError for what it cannot mean."""
    found = _TYPE.match(text.strip())
    if found is None:
        raise SensorError(f"scan element type {text.strip()!r} is none; use mode = 'poll'")
    order, sign, bits, storage, repeat, shift = found.groups()
    element = Element(
        order == "be", sign == "s", int(bits), int(storage), int(repeat or 1), int(shift or 0)
    )
    fits = element.bits > 0 and element.bits + element.shift <= element.storage_bits
    if element.storage_bits not in (8, 16, 32, 64) or not fits or element.repeat < 1:
        raise SensorError(f"scan element type {text.strip()!r} does not fit; use mode = 'poll'")
    return element


class Layout(NamedTuple):
    """Where each channel lies in a scan, and how many bytes a scan has."""

    offsets: Mapping[str, int]
    elements: Mapping[str, Element]
    scan_bytes: int


def lay_out(elements: Sequence[tuple[int, str, Element]]) -> Layout:
    """From (index, channel, element) of all *enabled* channels, in any order.

    Each lies at the next multiple of its own size, in the order of their indices; the scan is
    padded to a multiple of the largest.
    """
    offsets, at, largest = {}, 0, 1
    ordered = sorted(elements)
    for _, name, element in ordered:
        at = _align(at, element.size)
        offsets[name] = at
        at += element.size
        largest = max(largest, element.size)
    return Layout(offsets, {name: e for _, name, e in ordered}, _align(at, largest))


def channel(layout: Layout, name: str, scans: bytes) -> Integers:
    """One channel's values out of n whole scans: int64 (n,), or (n, repeat) where it repeats.

    Unsigned values of all 64 bits do not fit and wrap around; no accelerometer has them.
    """
    element = layout.elements[name]
    at, width = layout.offsets[name], element.storage_bits // 8
    rows = np.frombuffer(scans, np.uint8).reshape(-1, layout.scan_bytes)
    own = np.ascontiguousarray(rows[:, at : at + element.size])
    stored = own.view(f"{'>' if element.big_endian else '<'}u{width}").astype(np.uint64)
    value = stored >> np.uint64(element.shift)
    if element.bits < 64:
        value &= np.uint64((1 << element.bits) - 1)
    numbers: Integers = value.astype(np.int64)
    if element.signed and element.bits < 64:
        numbers -= (numbers >> (element.bits - 1)) << element.bits
    return numbers if element.repeat > 1 else numbers[:, 0]


def nearest_scale(available: Sequence[float], range_g: float, bits: int) -> float:
    """The scale (m/s^2 a count) among those that reaches range_g or, if none does, the furthest."""
    wanted = range_g * STANDARD_GRAVITY / 2 ** (bits - 1)
    # Drivers round their scales: 16 g of 16 bits is given as 0.004785 and is 0.004788.
    enough = [scale for scale in available if scale >= 0.99 * wanted]
    return min(enough) if enough else max(available)


def _align(at: int, size: int) -> int:
    return -(-at // size) * size
