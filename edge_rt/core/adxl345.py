"""Analog Devices ADXL345: registers and numbers. Pure; `adapters.accel_adxl345` speaks to the chip.

Source: ADXL345 data sheet, revision G: "Register Map" (table 19), "Register Definitions", "FIFO",
and tables 7 and 8 for the rates.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from edge_rt.core.bus import Words

ADDRESS, OTHER_ADDRESS = 0x53, 0x1D  # pin SDO/ALT ADDRESS low, high
IDENTITY = 0xE5

DEVID = 0x00
THRESH_TAP = 0x1D  # up to 0x2A: offsets, thresholds and times of taps, activity and free fall
OFSX = 0x1E  # three offsets that the chip would add; kept 0, a calibration is ours
TAP_AXES = 0x2A
BW_RATE = 0x2C  # bits 3..0: rate = 3200 Hz / 2^(15 - code); bandwidth is half of it
POWER_CTL = 0x2D  # bit 3 Measure
INT_ENABLE, INT_MAP = 0x2E, 0x2F
INT_SOURCE = 0x30  # bit 0 Overrun: cleared by reading the FIFO
DATA_FORMAT = 0x31  # bit 3 FULL_RES, bits 1..0 range
DATAX0 = 0x32  # three little-endian words; all six bytes in one burst pop one sample
FIFO_CTL = 0x38  # bits 7..6 mode, bits 4..0 watermark
FIFO_STATUS = 0x39  # bits 5..0 entries

MEASURE = 0x08
OVERRUN = 0x01
FULL_RES = 0x08
BYPASS, STREAM = 0x00, 0x80  # bypass empties the FIFO; stream keeps the newest 32
ENTRIES = 0x3F

RANGES = {2: 0, 4: 1, 8: 2, 16: 3}
LSB_PER_G = 256.0  # full resolution: 3.9 mg a count whatever the range
RATES = {25: 0x8, 50: 0x9, 100: 0xA, 200: 0xB, 400: 0xC, 800: 0xD}
DEPTH = 32  # and one more, which waits in the output filter
FRAME = 6

_SAMPLE = struct.Struct("<3h")


# It has no reset: what somebody else set up before (taps, activity, interrupts) is taken back.
CLEARED = (*range(THRESH_TAP, TAP_AXES + 1), INT_ENABLE, INT_MAP)


class Settings(NamedTuple):
    """What is written to the chip: (register, value) in order; the FIFO is not among them."""

    writes: tuple[tuple[int, int], ...]


def settings(range_g: int, rate_hz: int) -> Settings:
    """Raises KeyError for a range or rate that it has not."""
    return Settings(
        (
            # To standby first: the data sheet advises to set up before measuring.
            (POWER_CTL, 0),
            *((OFSX + axis, 0) for axis in range(3)),
            (DATA_FORMAT, FULL_RES | RANGES[range_g]),
            (BW_RATE, RATES[rate_hz]),
            (POWER_CTL, MEASURE),
        )
    )


def words(frames: bytes) -> Words:
    """Samples as they were read from DATAX0, six bytes each: int16 (n, 3)."""
    return np.frombuffer(frames, "<i2").reshape(-1, 3).astype(np.int16)


def sample(six: bytes) -> tuple[int, int, int]:
    """One sample's words."""
    x, y, z = _SAMPLE.unpack(six)
    return x, y, z
