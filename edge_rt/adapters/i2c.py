"""An I2C bus of the kernel, through smbus2; the only place that imports it.

Registers are read by SMBus block transfers, which every adapter can do (also the kernel's i2c-stub,
which knows nothing else). Where the adapter carries plain I2C messages, a longer block goes as one
combined transfer (I2C_RDWR): a full FIFO in one system call instead of thirty.
"""

from __future__ import annotations

import errno
from typing import Literal, NoReturn

from smbus2 import I2cFunc, SMBus, i2c_msg

from edge_rt.core.bus import SMBUS_BLOCK
from edge_rt.core.errors import SensorError

# The kernel carries 8192 bytes in one message (i2c-dev.c); a full FIFO of ours is 1024. Half of
# that holds the bus for 12 ms at 400 kHz, which other devices on it can bear.
LONG_BLOCK = 512

Transfers = Literal["auto", "smbus"]

_ABSENT = frozenset({errno.ENXIO, errno.EREMOTEIO, errno.EIO, errno.ETIMEDOUT, errno.ENODEV})


class I2cBus:
    """A `Bus`, open from construction to close().

    path       of the device, /dev/i2c-1
    transfers  "smbus": never anything but SMBus transfers

    Raises SensorError, as all methods do: no such bus, no right to use it, nobody answers.
    """

    def __init__(self, path: str, transfers: Transfers = "auto") -> None:
        self._path = path
        self._bus = SMBus()
        try:
            self._bus.open(path)
        except OSError as error:
            self._bus.close()
            raise SensorError(f"{path}: {_opening(error, path)}") from None
        functions = self._bus.funcs
        if not functions & I2cFunc.SMBUS_READ_I2C_BLOCK:
            self._bus.close()
            raise SensorError(f"{path}: this bus cannot read blocks; use another one")
        self._combined = transfers == "auto" and bool(functions & I2cFunc.I2C)
        self.max_block = LONG_BLOCK if self._combined else SMBUS_BLOCK

    def read_byte(self, address: int, register: int) -> int:
        """One register."""
        try:
            return int(self._bus.read_byte_data(address, register))
        except OSError as error:
            self._fail(error, address)

    def write_byte(self, address: int, register: int, value: int) -> None:
        """One register."""
        try:
            self._bus.write_byte_data(address, register, value)
        except OSError as error:
            self._fail(error, address)

    def read_block(self, address: int, register: int, length: int) -> bytes:
        """`length` bytes from `register` on, 1 to max_block, in one transfer."""
        try:
            if length <= SMBUS_BLOCK:
                data = bytes(self._bus.read_i2c_block_data(address, register, length))
            else:
                answer = i2c_msg.read(address, length)
                self._bus.i2c_rdwr(i2c_msg.write(address, [register]), answer)
                data = bytes(answer)
        except OSError as error:
            long = length > SMBUS_BLOCK
            self._fail(error, address, "or set transfers = 'smbus' for this bus" if long else "")
        if len(data) != length:
            raise SensorError(
                f"{self._path}: {len(data)} of {length} bytes came from 0x{address:02x}; "
                "check the wiring"
            )
        return data

    def close(self) -> None:
        """Let go of the bus; safe to call twice."""
        self._bus.close()

    def _fail(self, error: OSError, address: int, remedy: str = "") -> NoReturn:
        who = f"{self._path}, chip 0x{address:02x}"
        if error.errno == errno.EBUSY:
            raise SensorError(
                f"{who}: a kernel driver holds this chip; use driver = 'iio', or unload it"
            ) from None
        if error.errno in _ABSENT:
            raise SensorError(
                f"{who}: no answer ({error.strerror}); check power, wiring and address"
                f"{f', {remedy}' if remedy else ''}"
            ) from None
        raise SensorError(f"{who}: {error.strerror}; {remedy or 'see dmesg'}") from None


def _opening(error: OSError, path: str) -> str:
    if error.errno == errno.ENOENT:
        return "no such bus; enable I2C (dtparam=i2c_arm=on, module i2c-dev)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"may not be opened; add the user to the group of {path}, mostly i2c"
    if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EISDIR):
        return "is no I2C bus; name one of /dev/i2c-*"
    return f"{error.strerror}; see dmesg"
