"""The ADXL345 on an I2C bus: a `Chip`. Registers stand in `core.adxl345`."""

from __future__ import annotations

from collections.abc import Callable

from edge_rt.core import adxl345 as chip
from edge_rt.core.bus import Bus, Drained, check_identity
from edge_rt.core.errors import SensorError

# A quarter of its 32 samples: a host late by three times that still loses nothing.
TURN_SAMPLES = chip.DEPTH // 4
MAX_TURN_S = 0.1  # what a hop can wait for


class Adxl345:
    """What to say to the chip.

    address  0x53, or 0x1d with pin SDO high
    range_g  2, 4, 8, 16; always at full resolution
    rate_hz  25, 50, 100, 200, 400; its bandwidth is half of that
    fifo     False: poll the newest sample; the chip then samples twice as often
    """

    name = "adxl345"
    lsb_per_g = chip.LSB_PER_G

    def __init__(self, address: int, range_g: int, rate_hz: int, fifo: bool = True) -> None:
        self.address = address
        self.fifo = fifo
        self.range_g = float(range_g)
        self.rate_hz = float(rate_hz)
        self.turn_s = min(MAX_TURN_S, TURN_SAMPLES / rate_hz)
        self._settings = chip.settings(range_g, rate_hz if fifo else 2 * rate_hz)

    def set_up(self, bus: Bus, sleep: Callable[[float], None]) -> None:
        """Check who answers, set every register (it has no reset), read them back, empty the FIFO.

        sleep is not needed: what was set counts at once.
        """
        self._identify(bus)
        cleared = ((register, 0) for register in chip.CLEARED)
        for register, value in (*cleared, *self._settings.writes):
            bus.write_byte(self.address, register, value)
        self.restart(bus)
        self.verify(bus)

    def verify(self, bus: Bus) -> None:
        """Identity and settings; a chip that lost power for a moment has forgotten them."""
        self._identify(bus)
        expected = {**dict(self._settings.writes), chip.FIFO_CTL: self._mode}
        for register, value in expected.items():
            found = bus.read_byte(self.address, register)
            if found != value:
                raise SensorError(
                    f"{self._who}: register 0x{register:02x} reads 0x{found:02x}, was set to "
                    f"0x{value:02x}; check power and wiring"
                )

    def restart(self, bus: Bus) -> None:
        """Throw away what the FIFO holds."""
        bus.write_byte(self.address, chip.FIFO_CTL, chip.BYPASS)
        if self.fifo:
            bus.write_byte(self.address, chip.FIFO_CTL, self._mode)

    def drain(self, bus: Bus, clock: Callable[[], float]) -> Drained:
        """All samples that it counted. After an overflow these are the newest 32, still whole."""
        before_s = clock()
        count = bus.read_byte(self.address, chip.FIFO_STATUS) & chip.ENTRIES
        after_s = clock()
        if count > chip.DEPTH + 1:
            raise SensorError(
                f"{self._who}: its FIFO of {chip.DEPTH} samples counts {count}; check the wiring"
            )
        lost = count >= chip.DEPTH and bool(
            bus.read_byte(self.address, chip.INT_SOURCE) & chip.OVERRUN
        )
        # A sample leaves the FIFO when a burst over its six registers ends: one transfer each.
        frames, failure = [], None
        try:
            for _ in range(count):
                frames.append(bus.read_block(self.address, chip.DATAX0, chip.FRAME))
        except SensorError as error:
            failure = error
        words = chip.words(b"".join(frames))
        return Drained(words, count, before_s, after_s, lost, error=failure)

    def poll(self, bus: Bus) -> tuple[int, int, int]:
        """The newest sample, all three words of one moment."""
        return chip.sample(bus.read_block(self.address, chip.DATAX0, chip.FRAME))

    def _identify(self, bus: Bus) -> None:
        found = bus.read_byte(self.address, chip.DEVID)
        check_identity(self._who, "DEVID", found, chip.IDENTITY)

    @property
    def _mode(self) -> int:
        return chip.STREAM if self.fifo else chip.BYPASS

    @property
    def _who(self) -> str:
        return f"{self.name} at 0x{self.address:02x}"
