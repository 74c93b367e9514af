"""Scans of IIO taken apart, on byte layouts: sign, bits, storage, shift, endianness, alignment."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.errors import SensorError
from edge_rt.core.iio import Element, channel, lay_out, nearest_scale, parse_element

ELEMENTS = st.builds(
    lambda big, signed, storage, bits, shift, repeat: Element(
        big, signed, max(1, min(bits, storage - min(shift, storage - 1))), storage, repeat,
        min(shift, storage - 1),
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from([8, 16, 32, 64]),
    st.integers(1, 64),
    st.integers(0, 31),
    st.sampled_from([1, 1, 1, 2, 4]),
)  # fmt: skip


def written(element: Element) -> str:
    """As the kernel prints it (iio_show_fixed_type)."""
    repeat = f"X{element.repeat}" if element.repeat > 1 else ""
    order, sign = "be" if element.big_endian else "le", "s" if element.signed else "u"
    return f"{order}:{sign}{element.bits}/{element.storage_bits}{repeat}>>{element.shift}\n"


def stored(element: Element, value: int, around: int) -> bytes:
    """A value as hardware stores it; `around` fills the bits that do not belong to it."""
    mask = ((1 << element.bits) - 1) << element.shift
    raw = (value << element.shift) & mask | around & ~mask & ((1 << element.storage_bits) - 1)
    return raw.to_bytes(element.storage_bits // 8, "big" if element.big_endian else "little")


@given(ELEMENTS)
def test_what_the_kernel_prints_is_read_back(element: Element) -> None:
    assert parse_element(written(element)) == element


@given(st.lists(ELEMENTS, min_size=1, max_size=6), st.data())
def test_every_value_is_found_whatever_lies_around_it(
    elements: list[Element], data: object
) -> None:
    """Three scans of channels that are placed as iio_compute_scan_bytes() places them."""
    draw = data.draw  # type: ignore[attr-defined]
    indices = draw(st.permutations(range(len(elements))))
    layout = lay_out([(i, f"c{i}", e) for i, e in zip(indices, elements, strict=True)])
    scans, expected = b"", {f"c{i}": [] for i in indices}
    for _ in range(3):
        scan = bytearray(draw(st.binary(min_size=layout.scan_bytes, max_size=layout.scan_bytes)))
        at = 0
        for index, element in sorted(zip(indices, elements, strict=True)):
            size = element.storage_bits // 8 * element.repeat
            at += -at % size
            low = -(1 << element.bits - 1) if element.signed else 0
            high = (1 << element.bits - element.signed) - 1
            high = min(high, 2**63 - 1)
            values = [draw(st.integers(low, high)) for _ in range(element.repeat)]
            around = draw(st.integers(0, 2**64 - 1))
            scan[at : at + size] = b"".join(stored(element, value, around) for value in values)
            expected[f"c{index}"].append(values if element.repeat > 1 else values[0])
            at += size
        scans += bytes(scan)
    for name, values in expected.items():
        assert channel(layout, name, scans).tolist() == values


def test_a_layout_as_the_kernel_documents_it() -> None:
    """Three 16-bit axes and a 64-bit time stamp: 6 bytes, 2 of padding, 8."""
    axis, stamp = parse_element("be:s16/16>>0"), parse_element("le:s64/64>>0")
    layout = lay_out([(3, "in_timestamp", stamp), *((k, f"in_accel_{a}", axis) for k, a in
                      enumerate("xyz"))])  # fmt: skip
    assert layout.scan_bytes == 16 and layout.offsets["in_timestamp"] == 8
    scan = struct.pack(">3h", 1, -2, 16384) + b"\xaa\xaa" + struct.pack("<q", 1_700_000_000_123)
    assert [int(channel(layout, f"in_accel_{a}", scan * 2)[1]) for a in "xyz"] == [1, -2, 16384]
    assert channel(layout, "in_timestamp", scan).tolist() == [1_700_000_000_123]


def test_twelve_bits_in_the_upper_part_of_a_word() -> None:
    element = parse_element("le:s12/16>>4")
    layout = lay_out([(0, "x", element)])
    values = np.array([-2048, -1, 0, 1, 2047])
    scans = ((values << 4) | 0xF).astype("<i2").tobytes()
    assert channel(layout, "x", scans).tolist() == values.tolist()


@pytest.mark.parametrize(
    "text", ["", "le:s16", "xe:s16/16", "le:s17/16>>0", "le:s16/24>>0", "le:s12/16>>8", "le:s0/8"]
)
def test_what_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(SensorError, match="mode = 'poll'"):
        parse_element(text)


def test_the_scale_that_reaches_a_range() -> None:
    scales = [0.000598, 0.001196, 0.002392, 0.004785]  # of the kernel's inv-mpu6050
    assert [nearest_scale(scales, g, 16) for g in (2, 3, 8, 16, 40)] == [
        0.000598, 0.001196, 0.002392, 0.004785, 0.004785
    ]  # fmt: skip
