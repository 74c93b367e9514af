"""What an accelerometer needs root for, done before the daemon starts without being root.

Only IIO devices need it: range, rate, trigger and buffer are sysfs attributes of root. Chips on I2C
are set up by the daemon itself, which needs the bus's group and nothing else.
"""

from __future__ import annotations

import os
import select
import shutil
from pathlib import Path

from edge_rt.adapters.accel_iio import DEV, SYS, IioFolder, find_device
from edge_rt.core.config import AccelerometerSource, IioSource
from edge_rt.core.errors import ConfigError, SensorError
from edge_rt.core.iio_device import AXES, IioDevice

TIMERS = Path("/sys/kernel/config/iio/triggers/hrtimer")  # CONFIG_IIO_HRTIMER_TRIGGER, configfs
TIMER_NAME = "edge-rt"
BUFFER_S = 2.0  # a daemon that is late by so much loses nothing
FIRST_SCAN_S = 2.0
WANTED = (*(f"in_accel_{axis}" for axis in AXES), "in_timestamp")


def set_up_sensor(
    source: AccelerometerSource,
    group: str = "",
    *,
    sys_root: Path = SYS,
    dev_root: Path = DEV,
    timers: Path = TIMERS,
) -> list[str]:
    """What was done, a line each.

    group  may read the character device afterwards
    Raises SensorError when the device is absent or does not do what the config wants of it,
    ConfigError for a group that there is not.
    """
    if not isinstance(source, IioSource):
        return ["this driver needs nothing of root"]
    folder = find_device(source.device, sys_root)
    device = IioDevice(folder, folder.name)
    if device.buffer_on():  # while it runs nothing can be changed
        folder.write("buffer/enable", 0)
    device.set_range(source.range_g)
    trigger = None if source.mode == "poll" else _trigger(source, folder, sys_root, timers)
    # A timer looks at the device as a poll does: at its own rate it would see some samples twice.
    device.set_rate(source.rate_hz, polled=trigger in (None, TIMER_NAME))
    if trigger is None:
        if source.mode == "buffer":
            raise SensorError(
                f"IIO: {folder.name} has no trigger; set mode = 'poll', or trigger = 'timer'"
            )
        return [_settings(folder, device), "polled"]
    try:
        _start_buffer(source, folder, trigger)
        _first_scan(dev_root / folder.path.name)
    except SensorError as error:
        if folder.has("buffer/enable"):
            folder.write("buffer/enable", 0)
        if source.mode == "buffer":
            raise
        device.set_rate(source.rate_hz, polled=True)
        return [_settings(folder, device), f"polled: {error}"]
    if group:
        _give(dev_root / folder.path.name, group)
    how = f"buffered at trigger {trigger}, time stamps by the kernel"
    return [_settings(folder, device), how]


def _settings(folder: IioFolder, device: IioDevice) -> str:
    range_g, name = device.range_g(), device.rate_name()
    parts = [f"+-{range_g:.1f} g"] if range_g is not None else []
    parts += [f"{device.number(name):g} Hz"] if name is not None else []
    return f"{folder.name} ({folder.path.name}): {', '.join(parts) or 'nothing to set'}"


def _trigger(source: IioSource, folder: IioFolder, sys_root: Path, timers: Path) -> str | None:
    """The name of the trigger to use: as configured, else the device's own, if it has one."""
    there = {IioFolder(path).name: path for path in sorted(sys_root.glob("trigger*"))}
    if source.trigger == "timer":
        if TIMER_NAME not in there:
            try:
                (timers / TIMER_NAME).mkdir(exist_ok=True)
            except OSError as error:
                raise SensorError(
                    f"{timers}: {error.strerror}; modprobe iio-trig-hrtimer, mount configfs"
                ) from None
            there = {IioFolder(path).name: path for path in sorted(sys_root.glob("trigger*"))}
        if TIMER_NAME not in there:
            raise SensorError(f"{timers}: made no trigger {TIMER_NAME!r}; see dmesg")
        IioFolder(there[TIMER_NAME]).write("sampling_frequency", f"{source.rate_hz:g}")
        return TIMER_NAME
    if source.trigger:
        if source.trigger not in there:
            raise SensorError(
                f"IIO: no trigger {source.trigger!r}; there is {', '.join(there) or 'none'}"
            )
        return source.trigger
    # Drivers name a device's own trigger after it, mpu6050-dev0; those of ST without its number,
    # lis3dh-trigger, which says whose it is while there is one of that name.
    own = f"{folder.name}-dev{folder.path.name.removeprefix('iio:device')}"
    alike = sum(IioFolder(path).name == folder.name for path in sys_root.glob("iio:device*"))
    names = (own, f"{folder.name}-trigger") if alike == 1 else (own,)
    return next((name for name in names if name in there), None)


def _start_buffer(source: IioSource, folder: IioFolder, trigger: str) -> None:
    for name in folder.names("scan_elements", "_en"):
        folder.write(f"scan_elements/{name}_en", int(name in WANTED))
    if folder.has("current_timestamp_clock"):
        folder.write("current_timestamp_clock", "monotonic")
    folder.write("trigger/current_trigger", trigger)
    folder.write("buffer/length", max(2, round(BUFFER_S * source.rate_hz)))
    folder.write("buffer/enable", 1)


def _first_scan(path: Path) -> None:
    """A trigger whose line is not wired fires never: better to find out now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SensorError(f"{path}: {error.strerror}; see dmesg") from None
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(FIRST_SCAN_S * 1000):
            raise SensorError(f"{path}: no scan in {FIRST_SCAN_S:g} s; is its interrupt wired?")
    finally:
        os.close(handle)


def _give(path: Path, group: str) -> None:
    try:
        shutil.chown(path, group=group)
        path.chmod(0o640)
    except LookupError:
        raise ConfigError(f"there is no group {group!r}; create it first") from None
    except OSError as error:
        raise SensorError(f"{path}: {error.strerror}; run as root") from None
