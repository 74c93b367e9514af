"""Any accelerometer that the kernel drives: Linux IIO through sysfs and its character device.

Polling reads three attributes a sample and works with every driver. Buffered, the kernel gathers
scans at a trigger and stamps each itself; `core.iio` takes them apart (unproven on hardware).

What needs root (scale, rate, buffer, trigger) is done by `edge-rt sensor-setup` beforehand; here it
is tried, and told when it is neither done nor allowed.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_rt.core.config import IioSource
from edge_rt.core.errors import SensorError
from edge_rt.core.fifo_clock import FifoClock
from edge_rt.core.iio import Layout, channel
from edge_rt.core.iio_device import AXES, IioDevice
from edge_rt.core.types import FloatArray, SampleBlock

SYS, DEV = Path("/sys/bus/iio/devices"), Path("/dev")
BLOCK_S = 0.1  # both ways hand over about so much at once
RETRY_S = 0.5  # a poll that fails may be one transfer on the bus
SILENT_S = 1.0  # well within the 2 s in which a lost sensor has to show
RATE_SHARE = 0.12  # a chip's clock may be off by this much, see core.fifo_clock
MAX_SCANS = 1024  # of one read: ten seconds at 100 Hz
SETUP = "run as root: edge-rt sensor-setup --config FILE (the service does so before it starts)"


class IioFolder:
    """A device's folder in sysfs: the `Attributes` of it. All methods raise SensorError."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.name = self.text("name") if self.has("name") else folder.name

    def has(self, name: str) -> bool:
        """Whether there is such an attribute."""
        return (self.path / name).exists()

    def text(self, name: str) -> str:
        """An attribute."""
        try:
            # Kernel 6.1 ends current_timestamp_clock with a NUL.
            return (self.path / name).read_text("ascii").strip(" \t\n\0")
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(name, error) from None

    def write(self, name: str, value: object) -> None:
        """Set an attribute."""
        try:
            (self.path / name).write_text(f"{value}")
        except OSError as error:
            raise self.error(name, error) from None

    def names(self, folder: str, ending: str) -> list[str]:
        """Names in a folder below, without the ending that they share."""
        return sorted(p.name.removesuffix(ending) for p in (self.path / folder).glob(f"*{ending}"))

    def error(self, name: str, error: Exception) -> SensorError:
        """What a failed call means."""
        where, number = self.path / name, error.errno if isinstance(error, OSError) else None
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return SensorError(f"{where}: no right to; {SETUP}")
        if number == errno.EBUSY:
            return SensorError(f"{where}: in use; disable its buffer, or set mode = 'buffer'")
        if number in (errno.ENOENT, errno.ENODEV):
            return SensorError(f"{where}: the device is gone; check its wiring and driver")
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return SensorError(f"{where}: {reason}; see dmesg")


def accelerometers(sys_root: Path = SYS) -> list[IioFolder]:
    """Every accelerometer that the kernel drives."""
    folders = sorted(sys_root.glob("iio:device*"))
    return [IioFolder(folder) for folder in folders if (folder / "in_accel_x_raw").exists()]


def find_device(device: str, sys_root: Path = SYS) -> IioFolder:
    """By its name, `iio:device0` or `0`; empty: the only accelerometer there is.

    Raises SensorError.
    """
    present = accelerometers(sys_root)
    ids = (device, f"iio:device{device}")
    found = [each for each in present if not device or each.name == device or each.path.name in ids]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{each.name} ({each.path.name})" for each in present)
    if found:
        raise SensorError(f"IIO: several fit; set falls.source.device to one of {there}")
    wanted = f"no accelerometer {device!r}" if device else "no accelerometer"
    raise SensorError(
        f"IIO: {wanted}; there is {there or 'none'}: load its driver, check the overlay"
    )


class IioCounters(msgspec.Struct):
    """Totals since the start of the process."""

    samples: int = 0
    opened: int = 0
    late_polls: int = 0  # polls that came more than a period late
    failed_polls: int = 0


class IioAccelerometer:
    """An `Accelerometer`, and an `Instrument`.

    sys_root, dev_root  where sysfs shows the devices, and their character devices are
    clock, sleep        seconds on the monotonic clock
    """

    def __init__(
        self,
        source: IioSource,
        *,
        sys_root: Path = SYS,
        dev_root: Path = DEV,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate_hz = source.rate_hz
        self.range_g = source.range_g
        self.counters = IioCounters()
        self._source = source
        self._sys_root, self._dev_root = sys_root, dev_root
        self._clock, self._sleep = clock, sleep
        self._folder: IioFolder | None = None
        self._files: list[int] = []
        self._layout: Layout | None = None  # of the buffer; None while polling
        self._rest = b""  # of a scan that came in part
        self._stamped = False  # by the kernel, on our clock
        self._times = FifoClock(source.rate_hz)
        self._offset, self._gain = np.zeros(3), np.eye(3)
        self._due_s = self._heard_s = 0.0

    def open(self) -> None:
        """Find the device and begin. Raises SensorError."""
        self.close()
        folder = find_device(self._source.device, self._sys_root)
        device = IioDevice(folder, folder.name)
        mode = self._source.mode
        if mode == "auto":
            mode = "buffer" if device.buffer_on() else "poll"
        if mode == "buffer" and not device.buffer_on():
            raise SensorError(f"IIO: the buffer of {folder.name} is off; {SETUP}")
        if mode == "poll":
            device.set_range(self._source.range_g)
            device.set_rate(self.rate_hz, polled=True)
        self._check(device)
        offset, scale = device.gains()
        self._offset, self._gain = offset, (device.mount_matrix() * scale).T
        if mode == "poll":
            for axis in AXES:
                self._files.append(self._open_file(folder, f"in_accel_{axis}_raw"))
        else:
            self._open_buffer(folder, device.layout())
        self._folder = folder
        self._due_s = self._heard_s = self._clock()
        self._times.restart()
        self.counters.opened += 1

    def read(self, timeout_s: float) -> SampleBlock | None:
        """What has been sampled since the last time; None if nothing comes in `timeout_s`.

        Raises SensorError when the device is lost, and when it is not open.
        """
        if self._folder is None:
            raise SensorError("IIO: the accelerometer is not open; open it first")
        if self._layout is None:
            return self._poll(self._folder)
        block = self._take(self._folder, self._layout, timeout_s)
        now_s = self._clock()
        if block is not None:
            self._heard_s = now_s
        elif now_s - self._heard_s > SILENT_S:
            raise SensorError(
                f"IIO: {self._folder.name} delivers nothing; check its wiring and trigger"
            )
        return block

    def close(self) -> None:
        """Let go of it; safe to call twice. The buffer stays on: turning it off needs root."""
        files, self._files = self._files, []
        self._folder = self._layout = None
        self._rest = b""
        for handle in files:
            os.close(handle)

    def identity(self) -> str:
        """Driver and device as the config names it."""
        return f"iio {self._source.device or 'accelerometer'}"

    def status(self) -> dict[str, Any]:
        """JSON-able: counters, and how it is read."""
        how = None if self._folder is None else "poll" if self._layout is None else "buffer"
        return {**msgspec.to_builtins(self.counters), "mode": how}

    def _check(self, device: IioDevice) -> None:
        """What it is set to is what the rest of the house believes. Raises SensorError."""
        reached = device.range_g()
        if reached is not None and reached < 0.95 * self._source.range_g:
            raise SensorError(
                f"IIO: {device.label} is set to {reached:.1f} g and falls.source.range_g is "
                f"{self._source.range_g:g}; {SETUP}, or configure what it can do"
            )
        name = device.rate_name()
        if name is None:
            return
        rate_hz = device.number(name)
        if rate_hz < (1 - RATE_SHARE) * self.rate_hz:
            raise SensorError(
                f"IIO: {device.label} samples at {rate_hz:g} Hz and falls.source.rate_hz is "
                f"{self.rate_hz:g}; {SETUP}, or configure what it can do"
            )

    def _open_file(self, folder: IioFolder, name: str) -> int:
        try:
            return os.open(folder.path / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise folder.error(name, error) from None

    # ---- polling ----

    def _poll(self, folder: IioFolder) -> SampleBlock | None:
        """Samples of BLOCK_S, one at a time; each is stamped with the middle of its reads. One that
        cannot be read is left out; raises SensorError when none can for RETRY_S."""
        period_s = 1.0 / self.rate_hz
        t_s, raw = [], []
        for _ in range(max(1, round(BLOCK_S * self.rate_hz))):
            left_s = self._due_s - self._clock()
            if left_s > 0:
                self._sleep(left_s)
            before_s = self._clock()
            try:
                counts = [self._count(folder, axis) for axis in range(3)]
            except SensorError:
                self.counters.failed_polls += 1
                if before_s - self._heard_s > RETRY_S:
                    raise
            else:
                raw.append(counts)
                self._heard_s = self._clock()
                t_s.append((before_s + self._heard_s) / 2)
            self._due_s += period_s
            if self._due_s < before_s:  # too late for the grid: begin a new one
                self.counters.late_polls += 1
                self._due_s = before_s + period_s
        return self._block(np.array(t_s), np.array(raw, np.float64)) if raw else None

    def _count(self, folder: IioFolder, axis: int) -> int:
        try:
            return int(os.pread(self._files[axis], 32, 0))
        except (OSError, ValueError) as error:
            raise folder.error(f"in_accel_{AXES[axis]}_raw", error) from None

    # ---- buffered ----

    def _open_buffer(self, folder: IioFolder, layout: Layout) -> None:
        missing = [f"in_accel_{axis}" for axis in AXES if f"in_accel_{axis}" not in layout.offsets]
        if missing:
            raise SensorError(f"IIO: {', '.join(missing)} of {folder.name} not enabled; {SETUP}")
        path = self._dev_root / folder.path.name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise folder.error(str(path), error) from None
        self._files, self._layout = [handle], layout
        # The kernel's default is the wall clock, which jumps.
        clock = "current_timestamp_clock"
        self._stamped = "in_timestamp" in layout.offsets and (
            folder.has(clock) and folder.text(clock) == "monotonic"
        )
        # What has waited since nobody read is stale, and has a hole behind it.
        while self._pull(folder, layout):
            pass
        self._rest = b""

    def _take(self, folder: IioFolder, layout: Layout, timeout_s: float) -> SampleBlock | None:
        waiting = select.poll()
        waiting.register(self._files[0], select.POLLIN)
        # A little patience first, so that a turn brings a block and not a sample.
        self._sleep(min(BLOCK_S, timeout_s))
        if not waiting.poll(max(0.0, timeout_s - BLOCK_S) * 1000):
            return None
        before_s = self._clock()
        data = self._rest + self._pull(folder, layout)
        after_s = self._clock()
        whole = len(data) // layout.scan_bytes * layout.scan_bytes
        self._rest = data[whole:]
        if not whole:
            return None
        raw = [channel(layout, f"in_accel_{axis}", data[:whole]) for axis in AXES]
        if self._stamped:
            t_s = channel(layout, "in_timestamp", data[:whole]) * 1e-9
        else:
            t_s = self._times.stamp(len(raw[0]), before_s, after_s)
        return self._block(t_s, np.column_stack(raw).astype(np.float64))

    def _pull(self, folder: IioFolder, layout: Layout) -> bytes:
        """What there is; empty when there is nothing now. Raises SensorError when it is gone."""
        try:
            data = os.read(self._files[0], MAX_SCANS * layout.scan_bytes)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise folder.error("buffer", error) from None
        if not data:
            raise SensorError(f"IIO: {folder.name} is gone; check its wiring and driver")
        return data

    def _block(self, t_s: FloatArray, raw: FloatArray) -> SampleBlock:
        self.counters.samples += len(raw)
        return SampleBlock(t_s, ((raw + self._offset) @ self._gain).astype(np.float32))
