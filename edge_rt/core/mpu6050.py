"""InvenSense MPU-6050: registers and numbers. Pure; `adapters.accel_mpu6050` speaks to the chip.

Source: "MPU-6000 and MPU-6050 Register Map and Descriptions", RM-MPU-6000A-00 revision 4.2, by the
register's decimal number as there (in brackets), and "Product Specification", PS-MPU-6000A-00
revision 3.4, for tolerances.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from edge_rt.core.bus import Words

ADDRESS, OTHER_ADDRESS = 0x68, 0x69  # pin AD0 low, high
IDENTITY = 0x68  # WHO_AM_I (117) holds the upper six bits of 0x68, whatever AD0 says

SMPLRT_DIV = 0x19  # (25) sample rate = 1 kHz / (1 + SMPLRT_DIV) while the low-pass is on
CONFIG = 0x1A  # (26) bits 2..0 DLPF_CFG
ACCEL_CONFIG = 0x1C  # (28) bits 4..3 AFS_SEL
FIFO_EN = 0x23  # (35) bit 3: acceleration goes into the FIFO
INT_ENABLE = 0x38  # (56) bit 4 FIFO_OFLOW_EN
INT_STATUS = 0x3A  # (58) bit 4 FIFO_OFLOW_INT; reading it clears it
ACCEL_XOUT_H = 0x3B  # (59) three big-endian words; read in one burst they are of one sample
USER_CTRL = 0x6A  # (106) bit 6 FIFO_EN, bit 2 FIFO_RESET, which clears itself
PWR_MGMT_1 = (
    0x6B  # (107) bit 7 DEVICE_RESET, bit 6 SLEEP, set after power-on; bits 2..0 clock source
)
PWR_MGMT_2 = 0x6C  # (108) bits 2..0 put the gyroscope's axes to standby
FIFO_COUNT_H = 0x72  # (114) number of bytes, big-endian; reading the high byte latches both
FIFO_R_W = 0x74  # (116) the oldest byte; does not count up in a burst
WHO_AM_I = 0x75  # (117)

ACCEL_TO_FIFO = 0x08
FIFO_ON, FIFO_RESET = 0x40, 0x04
FIFO_OVERFLOW = 0x10
DEVICE_RESET, ASLEEP = 0x80, 0x40
# (107): DEVICE_RESET clears itself once it is done; at most that long. What (104) resets is among
# it: the map asks for both, and for waiting, on SPI only.
RESET_S, RESET_STEP_S = 0.1, 0.01
CLOCK_GYRO_X = 0x01  # (107) recommends a gyroscope's clock: 1 % off at most, the inner one 5 %
GYRO_YZ_STANDBY = 0x03

AFS_SEL = {2: 0, 4: 1, 8: 2, 16: 3}  # (28) range in g
LSB_PER_G = {2: 16384, 4: 8192, 8: 4096, 16: 2048}  # (59)
DLPF_CFG = {184: 1, 94: 2, 44: 3, 21: 4, 10: 5, 5: 6}  # (26) bandwidth of acceleration in Hz
BASE_HZ = 1000.0  # (25)

FIFO_BYTES = 1024
FRAME = 6
# (116): when it is full, the oldest bytes are overwritten. 170 frames leave 4 bytes: from here on
# the next frame overwrites two bytes of the oldest; the newest still ends where the FIFO does.
FIFO_FULL = FIFO_BYTES // FRAME * FRAME

_SAMPLE = struct.Struct(">3h")


class Settings(NamedTuple):
    """What is written to the chip.

    writes   (register, value) in order; the FIFO is not among them
    rate_hz  at which it will sample: the nearest that it can to what was asked
    """

    writes: tuple[tuple[int, int], ...]
    rate_hz: float
    lsb_per_g: float


def settings(range_g: int, rate_hz: float, bandwidth_hz: int) -> Settings:
    """Raises KeyError for a range or bandwidth that it has not."""
    divider = min(max(round(BASE_HZ / rate_hz) - 1, 0), 255)
    writes = (
        (PWR_MGMT_1, CLOCK_GYRO_X),
        (PWR_MGMT_2, GYRO_YZ_STANDBY),
        (INT_ENABLE, FIFO_OVERFLOW),
        (SMPLRT_DIV, divider),
        (CONFIG, DLPF_CFG[bandwidth_hz]),
        (ACCEL_CONFIG, AFS_SEL[range_g] << 3),
    )
    return Settings(writes, BASE_HZ / (divider + 1), float(LSB_PER_G[range_g]))


def words(frames: bytes) -> Words:
    """Frames of the FIFO, or the six registers from ACCEL_XOUT_H: int16 (n, 3)."""
    return np.frombuffer(frames, ">i2").reshape(-1, 3).astype(np.int16)


def sample(six: bytes) -> tuple[int, int, int]:
    """The words of one frame."""
    x, y, z = _SAMPLE.unpack(six)
    return x, y, z
