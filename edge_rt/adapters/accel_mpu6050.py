"""The MPU-6050 (and MPU-6000) on an I2C bus: a `Chip`. Registers stand in `core.mpu6050`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from edge_rt.core import mpu6050 as chip
from edge_rt.core.bus import Bus, Drained, check_identity
from edge_rt.core.errors import SensorError

TURN_S = 0.1  # 10 of 170 frames at 100 Hz: a host that is late by a second and a half loses nothing
MAX_FAST = 1.12  # its clock is no faster than that, see core.fifo_clock


class Mpu6050:
    """What to say to the chip.

    address       0x68, or 0x69 with pin AD0 high
    range_g       2, 4, 8, 16
    rate_hz       4 to 1000; the chip does 1000 / n
    bandwidth_hz  of its low-pass: 184, 94, 44, 21, 10, 5
    fifo          False: poll the newest sample; the chip then samples at 1 kHz, so that what is
                  polled is at most 1 ms old
    """

    name = "mpu6050"
    turn_s = TURN_S

    def __init__(
        self, address: int, range_g: int, rate_hz: float, bandwidth_hz: int, fifo: bool = True
    ) -> None:
        self.address = address
        self.fifo = fifo
        self.range_g = float(range_g)
        own_hz = rate_hz if fifo else chip.BASE_HZ
        self._settings = chip.settings(range_g, own_hz, bandwidth_hz)
        self.rate_hz = self._settings.rate_hz if fifo else rate_hz
        self.lsb_per_g = self._settings.lsb_per_g

    def set_up(self, bus: Bus, sleep: Callable[[float], None]) -> None:
        """Check who answers, reset it, set everything, read it back, empty the FIFO."""
        self._identify(bus)
        self._reset(bus, sleep)
        for register, value in self._settings.writes:
            bus.write_byte(self.address, register, value)
        if self.fifo:
            self.restart(bus)
        self.verify(bus)

    def _reset(self, bus: Bus, sleep: Callable[[float], None]) -> None:
        """A fall may be going on: no longer than it takes. What comes of it is read back later."""
        bus.write_byte(self.address, chip.PWR_MGMT_1, chip.DEVICE_RESET)
        for _ in range(round(chip.RESET_S / chip.RESET_STEP_S)):
            sleep(chip.RESET_STEP_S)
            with contextlib.suppress(SensorError):  # it may not answer meanwhile
                if not bus.read_byte(self.address, chip.PWR_MGMT_1) & chip.DEVICE_RESET:
                    return

    def verify(self, bus: Bus) -> None:
        """Identity and settings; a chip that lost power for a moment has forgotten them."""
        self._identify(bus)
        expected = [*self._settings.writes]
        if self.fifo:
            expected += [(chip.FIFO_EN, chip.ACCEL_TO_FIFO), (chip.USER_CTRL, chip.FIFO_ON)]
        for register, value in expected:
            found = bus.read_byte(self.address, register)
            if found != value:
                raise SensorError(
                    f"{self._who}: register 0x{register:02x} reads 0x{found:02x}, was set to "
                    f"0x{value:02x}; check power and wiring"
                )

    def restart(self, bus: Bus) -> None:
        """Throw away what the FIFO holds. (106): it can be reset while it is off."""
        bus.write_byte(self.address, chip.FIFO_EN, 0)
        for value in (0, chip.FIFO_RESET, chip.FIFO_ON):
            bus.write_byte(self.address, chip.USER_CTRL, value)
        bus.read_byte(self.address, chip.INT_STATUS)  # an overflow is over
        bus.write_byte(self.address, chip.FIFO_EN, chip.ACCEL_TO_FIFO)

    def drain(self, bus: Bus, clock: Callable[[], float]) -> Drained:
        """All whole frames. None and `lost` where nobody knows how they lie: it was emptied.

        Full, it is made to stand still (`gap`, until `restart`): its newest 170 frames remain.
        """
        before_s = clock()
        count = self._count(bus)
        if count % chip.FRAME and count < chip.FIFO_FULL:  # a frame may be half written: look again
            before_s = clock()
            count = self._count(bus)
        after_s = clock()
        if count >= chip.FIFO_FULL:
            return self._drain_full(bus, clock)
        frames, error = b"", None
        framed = count % chip.FRAME == 0
        if framed:
            frames, error = self._burst(bus, 0, count)
            framed = self._still_framed(bus, count, clock() - before_s, error)
        if framed:
            return Drained(chip.words(frames), count // chip.FRAME, before_s, after_s, error=error)
        if error is None:
            self.restart(bus)
        return Drained(chip.words(b""), 0, before_s, after_s, lost=True, error=error)

    def _drain_full(self, bus: Bus, clock: Callable[[], float]) -> Drained:
        bus.write_byte(self.address, chip.FIFO_EN, 0)
        before_s = clock()
        count = self._count(bus)
        after_s = clock()
        odd = count % chip.FRAME  # of a frame that was overwritten in part
        frames, error = self._burst(bus, odd, count - odd)
        counted = count // chip.FRAME
        return Drained(chip.words(frames), counted, before_s, after_s, True, True, error)

    def _count(self, bus: Bus) -> int:
        count = int.from_bytes(bus.read_block(self.address, chip.FIFO_COUNT_H, 2), "big")
        if count > chip.FIFO_BYTES:
            raise SensorError(
                f"{self._who}: its FIFO of {chip.FIFO_BYTES} bytes counts {count}; check the wiring"
            )
        return count

    def _burst(self, bus: Bus, odd: int, left: int) -> tuple[bytes, SensorError | None]:
        """`left` bytes behind `odd` others, or as many whole portions as came before an error."""
        parts = []
        try:
            while left:
                size = min(left, (bus.max_block - odd) // chip.FRAME * chip.FRAME)
                parts.append(bus.read_block(self.address, chip.FIFO_R_W, odd + size)[odd:])
                left, odd = left - size, 0
        except SensorError as error:
            return b"".join(parts), error
        return b"".join(parts), None

    def _still_framed(self, bus: Bus, count: int, took_s: float, error: SensorError | None) -> bool:
        """Whether the FIFO did not overflow between the count and the end of the burst."""
        if error is None:
            return not bus.read_byte(self.address, chip.INT_STATUS) & chip.FIFO_OVERFLOW
        # The bus may not tell; then time does.
        return took_s < (chip.FIFO_FULL - count) / chip.FRAME / (MAX_FAST * self.rate_hz)

    def poll(self, bus: Bus) -> tuple[int, int, int]:
        """The newest sample, all three words of one moment."""
        return chip.sample(bus.read_block(self.address, chip.ACCEL_XOUT_H, chip.FRAME))

    def _identify(self, bus: Bus) -> None:
        found = bus.read_byte(self.address, chip.WHO_AM_I)
        check_identity(self._who, "WHO_AM_I", found, chip.IDENTITY)

    @property
    def _who(self) -> str:
        return f"{self.name} at 0x{self.address:02x}"
