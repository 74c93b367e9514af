"""What a chip's driver needs of a two-wire bus, and what a reader needs of the chip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import SensorError

Words = npt.NDArray[np.int16]

# SMBus 2.0, section 5.5.7: a block holds at most 32 bytes. Every bus of ours can carry that much.
SMBUS_BLOCK = 32


class Bus(Protocol):
    """An open bus; register reads and writes of SMBus. All raise SensorError.

    max_block  the most bytes of one `read_block`
    """

    max_block: int

    def read_byte(self, address: int, register: int) -> int: ...

    def write_byte(self, address: int, register: int, value: int) -> None: ...

    def read_block(self, address: int, register: int, length: int) -> bytes:
        """`length` bytes in one transfer, 1 to max_block; never fewer."""
        ...

    def close(self) -> None: ...


class Drained(NamedTuple):
    """What a FIFO held.

    words              int16 (n, 3) in order of sampling: x, y, z as the chip counts
    counted            so many samples the chip counted; fewer came if the bus failed on the way
    before_s, after_s  between these moments it counted them
    lost               samples before these were lost: the FIFO had overflowed
    gap                samples after these were lost
    error              what ended it, if the bus did
    """

    words: Words
    counted: int
    before_s: float
    after_s: float
    lost: bool = False
    gap: bool = False
    error: SensorError | None = None


class Chip(Protocol):
    """An accelerometer chip: what to say to it on a bus. All methods raise SensorError.

    name        as in the config
    rate_hz     of the samples it yields, nominal
    range_g     it saturates at +- this
    lsb_per_g   counts of 1 g; a power of two, so that counts become g without rounding
    turn_s      its FIFO has to be emptied this often
    fifo        False: there is only the newest sample, to be polled at rate_hz
    """

    name: str
    rate_hz: float
    range_g: float
    lsb_per_g: float
    turn_s: float
    fifo: bool

    def set_up(self, bus: Bus, sleep: Callable[[float], None]) -> None:
        """Check who answers, put it to a known state, whatever it was in before; set range, rate
        and filter, read them back, empty the FIFO."""
        ...

    def verify(self, bus: Bus) -> None:
        """The same chip, and its settings still those that were set."""
        ...

    def restart(self, bus: Bus) -> None:
        """Empty the FIFO and begin anew, after an overflow or an error."""
        ...

    def drain(self, bus: Bus, clock: Callable[[], float]) -> Drained:
        """Everything that the FIFO holds; what came before the bus failed is not thrown away."""
        ...

    def poll(self, bus: Bus) -> tuple[int, int, int]:
        """The newest sample's words."""
        ...


class Instrument(Protocol):
    """An `Accelerometer` that is a device: it knows itself and keeps count of its troubles."""

    rate_hz: float
    range_g: float

    def identity(self) -> str:
        """Driver and place, the same after each start; a calibration belongs to it."""
        ...

    def status(self) -> dict[str, Any]:
        """JSON-able counters."""
        ...


def check_identity(who: str, register: str, found: int, expected: int) -> None:
    """Raises SensorError, with the remedy, for a chip whose identity register says another."""
    if found in (0x00, 0xFF):
        raise SensorError(
            f"{who}: {register} is 0x{found:02x}: no chip speaks, or the bus is held; "
            "check power and wiring"
        )
    if found != expected:
        raise SensorError(
            f"{who}: {register} is 0x{found:02x}, not 0x{expected:02x}; another chip: "
            "choose its driver, or 'iio' where the kernel has one"
        )
