"""MPU-6050 and ADXL345 as registers and FIFO, driven by samples: what a driver sees of the chips.

Each does what its data sheet says of the registers that a driver of ours uses (sources in
`core.mpu6050` and `core.adxl345`); other registers only remember. No clock in here: who owns a
model calls `sample` as often as `rate_hz` says.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Protocol

from edge_rt.core import adxl345 as adxl
from edge_rt.core import mpu6050 as mpu


class RegisterModel(Protocol):
    """A chip in memory. Registers wrap around at 128.

    rate_hz    it samples so often as it is set now; 0 while it sleeps
    lsb_per_g  counts of 1 g as it is set now
    """

    @property
    def rate_hz(self) -> float: ...

    @property
    def lsb_per_g(self) -> float: ...

    def power_on(self) -> None:
        """Registers as after power-on, nothing in the FIFO."""
        ...

    def sample(self, x: int, y: int, z: int) -> None:
        """It has sampled: words within +-32768, which it limits to its range."""
        ...

    def read(self, register: int, length: int) -> bytes: ...

    def write(self, register: int, value: int) -> None: ...


class Mpu6050Model:
    """The MPU-6050."""

    def __init__(self) -> None:
        self.power_on()

    def power_on(self) -> None:
        self._registers = bytearray(128)
        self._registers[mpu.WHO_AM_I] = mpu.IDENTITY
        self._registers[mpu.PWR_MGMT_1] = mpu.ASLEEP
        self._fifo = bytearray()

    @property
    def rate_hz(self) -> float:
        if self._registers[mpu.PWR_MGMT_1] & mpu.ASLEEP:
            return 0.0
        # (26): without the low-pass the divider divides 8 kHz.
        base_hz = mpu.BASE_HZ if self._registers[mpu.CONFIG] & 7 in range(1, 7) else 8000.0
        return base_hz / (1 + self._registers[mpu.SMPLRT_DIV])

    @property
    def lsb_per_g(self) -> float:
        return float(mpu.LSB_PER_G[2 << (self._registers[mpu.ACCEL_CONFIG] >> 3 & 3)])

    def sample(self, x: int, y: int, z: int) -> None:
        frame = struct.pack(">3h", x, y, z)
        self._registers[mpu.ACCEL_XOUT_H : mpu.ACCEL_XOUT_H + mpu.FRAME] = frame
        on = self._registers[mpu.USER_CTRL] & mpu.FIFO_ON
        if on and self._registers[mpu.FIFO_EN] & mpu.ACCEL_TO_FIFO:
            self.stray(frame)

    def stray(self, data: bytes) -> None:
        """Bytes go into the FIFO, whole frames or not."""
        self._fifo += data
        # (116): when full, the oldest bytes are lost; it counts bytes, not frames.
        if len(self._fifo) > mpu.FIFO_BYTES:
            del self._fifo[: -mpu.FIFO_BYTES]
            # (56): the status shows what is enabled.
            self._registers[mpu.INT_STATUS] |= self._registers[mpu.INT_ENABLE] & mpu.FIFO_OVERFLOW

    def read(self, register: int, length: int) -> bytes:
        if register == mpu.FIFO_R_W:
            taken = bytes(self._fifo[:length])
            del self._fifo[:length]
            return taken.ljust(length, taken[-1:] or b"\0")  # (116): the last byte again
        self._registers[mpu.FIFO_COUNT_H : mpu.FIFO_COUNT_H + 2] = len(self._fifo).to_bytes(
            2, "big"
        )
        found = bytes(self._registers[(register + k) % 128] for k in range(length))
        if register <= mpu.INT_STATUS < register + length:
            self._registers[mpu.INT_STATUS] = 0  # (58)
        return found

    def write(self, register: int, value: int) -> None:
        if register == mpu.PWR_MGMT_1 and value & mpu.DEVICE_RESET:
            self.power_on()
            return
        if register == mpu.USER_CTRL and value & mpu.FIFO_RESET:
            if not value & mpu.FIFO_ON:
                self._fifo.clear()
            value &= ~mpu.FIFO_RESET
        if register not in (mpu.WHO_AM_I, mpu.FIFO_R_W, mpu.INT_STATUS):
            self._registers[register] = value


class Adxl345Model:
    """The ADXL345, at full resolution only."""

    def __init__(self) -> None:
        self.power_on()

    def power_on(self) -> None:
        self._registers = bytearray(128)
        self._registers[adxl.DEVID] = adxl.IDENTITY
        self._registers[adxl.BW_RATE] = 0x0A
        self._fifo: deque[bytes] = deque()

    @property
    def rate_hz(self) -> float:
        if not self._registers[adxl.POWER_CTL] & adxl.MEASURE:
            return 0.0
        return float(3200 / 2 ** (15 - (self._registers[adxl.BW_RATE] & 0xF)))

    @property
    def lsb_per_g(self) -> float:
        return adxl.LSB_PER_G

    def sample(self, x: int, y: int, z: int) -> None:
        limit = 256 << ((self._registers[adxl.DATA_FORMAT] & 3) + 1)
        frame = struct.pack("<3h", *(min(max(word, -limit), limit - 1) for word in (x, y, z)))
        if self._registers[adxl.FIFO_CTL] & 0xC0 != adxl.STREAM:
            self._fifo.clear()
        elif len(self._fifo) == adxl.DEPTH:
            self._fifo.popleft()
            self._registers[adxl.INT_SOURCE] |= adxl.OVERRUN
        self._fifo.append(frame)

    def read(self, register: int, length: int) -> bytes:
        streaming = self._registers[adxl.FIFO_CTL] & 0xC0 == adxl.STREAM
        self._registers[adxl.FIFO_STATUS] = len(self._fifo) if streaming else 0
        if register == adxl.DATAX0 and self._fifo:
            frame = self._fifo[0]
            self._registers[adxl.DATAX0 : adxl.DATAX0 + adxl.FRAME] = frame
            if streaming:  # however far the burst came: the rest of the sample is gone
                self._fifo.popleft()
                self._registers[adxl.INT_SOURCE] &= ~adxl.OVERRUN
        return bytes(self._registers[(register + k) % 128] for k in range(length))

    def write(self, register: int, value: int) -> None:
        if register == adxl.FIFO_CTL and value & 0xC0 == adxl.BYPASS:
            self._fifo.clear()
        if register not in (adxl.DEVID, adxl.FIFO_STATUS, adxl.INT_SOURCE):
            self._registers[register] = value
