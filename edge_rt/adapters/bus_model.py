"""A bus with a chip on it, both in memory: for those without hardware, and for tests.

The chip is a register model of `core.register_models`, driven through a recording by the clock; the
bus carries transfers and, as told, fails: the driver that reads it is the one that reads hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from edge_rt.core.bus import SMBUS_BLOCK
from edge_rt.core.config import BusFault
from edge_rt.core.errors import InputError, SensorError
from edge_rt.core.register_models import RegisterModel
from edge_rt.core.types import Float32Array

# No FIFO of ours holds more samples; what came before would be overwritten anyway. The first of
# them overflow it, as they should.
MAX_CATCH_UP = 400


class ModelBus:
    """A `Bus` with one chip; closing and opening it again changes nothing.

    chip         the registers
    address      where it answers
    acc_g        float32 (N, 3), what it feels, at rate_hz; begins with the first sample it takes
    repeat       over and over; else it keeps feeling the last sample
    clock_error  of the chip: 0.03 samples three per cent too fast
    transfer_s   so long a transfer takes
    faults       by time since the first transfer, see `BusFault`
    clock, sleep  seconds
    """

    def __init__(
        self,
        chip: RegisterModel,
        address: int,
        acc_g: Float32Array,
        rate_hz: float,
        *,
        repeat: bool = True,
        clock_error: float = 0.0,
        transfer_s: float = 0.0,
        faults: Sequence[BusFault] = (),
        max_block: int = SMBUS_BLOCK,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if acc_g.ndim != 2 or acc_g.shape[1] != 3 or not len(acc_g):
            raise InputError(f"samples of shape {acc_g.shape}; give three axes for each sample")
        self.max_block = max_block
        self.taken = 0  # samples that the chip has taken
        self._chip = chip
        self._address = address
        self._acc_g = np.asarray(acc_g, np.float64)
        self._rate_hz = rate_hz
        self._repeat = repeat
        self._speed = 1.0 + clock_error
        self._transfer_s = transfer_s
        self._faults = sorted(faults, key=lambda fault: fault.at_s)
        self._clock = clock
        self._sleep = sleep
        self._begun_s: float | None = None
        # The chip's rate, since when it has it, samples since then, and the recording's time then.
        self._own_hz, self._since_s, self._count, self._base_s = 0.0, 0.0, 0, 0.0

    def read_byte(self, address: int, register: int) -> int:
        """One register."""
        self._transfer(address)
        return self._chip.read(register, 1)[0]

    def write_byte(self, address: int, register: int, value: int) -> None:
        """One register; from now on the chip samples as it is set."""
        self._transfer(address)
        self._chip.write(register, value)
        if self._chip.rate_hz != self._own_hz:
            self._set_rate()

    def read_block(self, address: int, register: int, length: int) -> bytes:
        """`length` bytes; a torn transfer takes some of them from the chip and delivers none."""
        torn = self._transfer(address)
        if torn:
            self._chip.read(register, max(1, length // 2))
            raise SensorError(f"model bus: transfer with 0x{address:02x} was cut (injected fault)")
        return self._chip.read(register, length)

    def close(self) -> None:
        """Nothing: the chip stays where it is."""

    def _transfer(self, address: int) -> bool:
        """Let time pass up to this transfer; whether it is to be torn. Raises SensorError."""
        if self._transfer_s:
            self._sleep(self._transfer_s)
        now_s = self._clock()
        if self._begun_s is None:
            self._begun_s = now_s
        self._advance(now_s)
        torn = False
        for fault in list(self._faults):
            into_s = now_s - self._begun_s - fault.at_s
            if into_s < 0:
                break
            if fault.kind == "stall":
                self._faults.remove(fault)
                self._sleep(fault.seconds)
                self._advance(self._clock())
            elif into_s >= fault.seconds:
                self._faults.remove(fault)
            elif fault.kind == "torn":
                torn = True
            else:
                if fault.kind == "unplug":
                    self._chip.power_on()
                    self._set_rate()
                raise SensorError(f"model bus: no answer from 0x{address:02x} (injected fault)")
        if address != self._address:
            raise SensorError(
                f"model bus: no answer from 0x{address:02x}; the chip has 0x{self._address:02x}"
            )
        return torn

    def _advance(self, now_s: float) -> None:
        """The samples that are due."""
        if self._own_hz == 0.0:
            return
        # A hair early, so that a moment that rounding has moved is still this one.
        due = int((now_s - self._since_s) * self._own_hz * self._speed + 1e-6)
        first = max(self._count, due - MAX_CATCH_UP)
        for k in range(first, due):
            index = int((self._base_s + k / self._own_hz) * self._rate_hz + 1e-6)
            n = len(self._acc_g)
            acc_g = self._acc_g[index % n if self._repeat else min(index, n - 1)]
            words = np.rint(acc_g * self._chip.lsb_per_g).clip(-32768, 32767).astype(int)
            self._chip.sample(*words.tolist())
        self.taken += max(0, due - self._count)
        self._count = max(self._count, due)

    def _set_rate(self) -> None:
        if self._own_hz:
            self._base_s += self._count / self._own_hz
        self._own_hz, self._since_s, self._count = self._chip.rate_hz, self._clock(), 0
