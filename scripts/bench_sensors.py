"""What scripts/bench-sensors runs. The clock is driven, so that nothing waits."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from edge_rt.adapters.accel_adxl345 import Adxl345
from edge_rt.adapters.accel_i2c import I2cAccelerometer
from edge_rt.adapters.accel_mpu6050 import Mpu6050
from edge_rt.adapters.bus_model import ModelBus
from edge_rt.core.register_models import Adxl345Model, Mpu6050Model

BUS_HZ = 400_000


class Metered:
    """A bus that keeps the model's time and its own count of transfers and bits."""

    def __init__(self, bus: ModelBus) -> None:
        self.bus, self.max_block = bus, bus.max_block
        self.inside_s, self.transfers, self.bits = 0.0, 0, 0

    def read_byte(self, address: int, register: int) -> int:
        return self._timed(self.bus.read_byte, 4, address, register)

    def write_byte(self, address: int, register: int, value: int) -> None:
        self._timed(self.bus.write_byte, 3, address, register, value)

    def read_block(self, address: int, register: int, length: int) -> bytes:
        return self._timed(self.bus.read_block, 3 + length, address, register, length)

    def close(self) -> None:
        self.bus.close()

    def _timed(self, call: Any, sent: int, *arguments: int) -> Any:
        begun_s = time.thread_time()
        try:
            return call(*arguments)
        finally:
            self.inside_s += time.thread_time() - begun_s
            self.transfers += 1
            self.bits += 9 * sent + 3  # a bit of acknowledgement each; start, again, stop


class Driven:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += max(0.0, seconds)


def measure(driver: Any, chip: Any, block: int, seconds: float) -> dict[str, float]:
    """A second's transfers, share of the bus and share of a core."""
    clock = Driven()
    acc_g = np.random.default_rng(1).normal(0, 1, (1000, 3)).astype(np.float32)
    model = ModelBus(chip, driver.address, acc_g, 100.0, max_block=block, clock=clock)
    bus = Metered(model)
    accel = I2cAccelerometer(driver, lambda: bus, "a model", clock=clock, sleep=clock.sleep)
    accel.open()
    bus.inside_s = bus.transfers = bus.bits = 0
    begun_s, cpu_s = clock.now_s, time.thread_time()
    while clock.now_s - begun_s < seconds:
        accel.read(0.5)
    cpu_s = time.thread_time() - cpu_s - bus.inside_s
    accel.close()
    return {
        "transfers": bus.transfers / seconds,
        "bus": bus.bits / BUS_HZ / seconds,
        "core": cpu_s / seconds,
    }


def main(seconds: float) -> None:
    print(f"{'':32}{'transfers/s':>12}{'bus 400 kHz':>13}{'of a core':>11}")
    for rate_hz in (50, 100):
        for fifo in (True, False):
            for block in (32, 512) if fifo else (32,):
                how = f"FIFO, {block}-byte blocks" if fifo else "polled"
                for driver, chip in (
                    (Mpu6050(0x68, 16, rate_hz, 44, fifo), Mpu6050Model()),
                    (Adxl345(0x53, 16, rate_hz, fifo), Adxl345Model()),
                ):
                    got = measure(driver, chip, block, seconds)
                    print(
                        f"{driver.name} {rate_hz:3} Hz {how:<20}{got['transfers']:12.0f}"
                        f"{got['bus']:12.1%}{got['core']:11.3%}"
                    )


if __name__ == "__main__":
    main(float(sys.argv[1]))
