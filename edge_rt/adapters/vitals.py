"""How the board is, from what the kernel tells in /sys and /proc.

Sources: Linux Documentation/driver-api/thermal/sysfs-api.rst (temp, millidegrees),
Documentation/hwmon/sysfs-interface.rst (in*_lcrit_alarm), proc(5); for get_throttled the table of
`vcgencmd get_throttled` in the Raspberry Pi documentation.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_rt.core.telemetry import Vitals

_UNDER_VOLTAGE, _CAPPED, _THROTTLED, _SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_HELD_DOWN = _CAPPED | _THROTTLED | _SOFT_LIMIT
_SINCE_BOOT = 16  # the same bits, this far up: it has happened since the boot
# What a driver answers in a file of one value; /proc/meminfo is the longest, under 2 KiB.
_MAX_BYTES = 4096


def read_vitals(state_dir: Path, root: Path = Path("/")) -> Vitals:
    """Everything that can be read now; what cannot is None, never a guess.

    root: where sys/ and proc/ lie
    """
    now, seen = supply(root / "sys")
    memory = _memory(root / "proc/meminfo")
    disk_mb, disk_free_mb = _disk(state_dir)
    return Vitals(
        temperature_c=_temperature(root / "sys/class/thermal"),
        under_voltage=None if now is None else bool(now & _UNDER_VOLTAGE),
        under_voltage_seen=None if seen is None else bool(seen & _UNDER_VOLTAGE),
        # hwmon knows the voltage only: `seen` is then unknown, and so is throttling.
        throttled=None if seen is None or now is None else bool(now & _HELD_DOWN),
        throttled_seen=None if seen is None else bool(seen & _HELD_DOWN),
        memory_mb=memory.get("MemTotal"),
        memory_free_mb=memory.get("MemAvailable"),
        daemon_mb=_resident(root / "proc/self/statm"),
        disk_mb=disk_mb,
        disk_free_mb=disk_free_mb,
        load=_first_number(root / "proc/loadavg"),
        up_s=_first_number(root / "proc/uptime"),
    )


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("ascii", "replace").strip()
    except OSError:  # not on this board, or the driver is busy: unknown
        return None


def _integer(text: str | None, base: int = 10) -> int | None:
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


def _temperature(folder: Path) -> float | None:
    """Hottest zone in degrees Celsius."""
    zones = (_integer(_read(path)) for path in sorted(folder.glob("thermal_zone*/temp")))
    # A zone whose sensor is off may give the lowest number there is (-273200).
    known = [milli / 1000 for milli in zones if milli is not None and -100_000 < milli < 200_000]
    return max(known, default=None)


def supply(sys: Path) -> tuple[int | None, int | None]:
    """(bits of now, bits since the boot), of the firmware, else of its hwmon driver."""
    # soc/soc:firmware up to the Pi 4; later boards put the bus address into both names.
    for path in sorted((sys / "devices/platform").glob("soc*/*firmware/get_throttled")):
        bits = _integer(_read(path), 16)
        if bits is not None:
            return bits & 0xF, bits >> _SINCE_BOOT & 0xF
    for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
        if _read(chip / "name") == "rpi_volt":
            alarms = [_integer(_read(path)) for path in sorted(chip.glob("in*_lcrit_alarm"))]
            known = [alarm for alarm in alarms if alarm is not None]
            return (_UNDER_VOLTAGE * any(known), None) if known else (None, None)
    return None, None


def _memory(path: Path) -> dict[str, float]:
    """/proc/meminfo in MB (it counts in units of 1,024 bytes)."""
    found = {}
    for line in (_read(path) or "").splitlines():
        name, _, rest = line.partition(":")
        number = _integer((rest.split() or [""])[0])
        if number is not None:
            found[name] = round(number * 1024 / 1e6, 1)
    return found


def _resident(path: Path) -> float | None:
    fields = (_read(path) or "").split()
    pages = _integer(fields[1]) if len(fields) > 1 else None
    return None if pages is None else round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _first_number(path: Path) -> float | None:
    try:
        return float((_read(path) or "").split()[0])
    except (ValueError, IndexError):
        return None


def _disk(folder: Path) -> tuple[float | None, float | None]:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None, None
    scale = found.f_frsize / 1e6
    return round(found.f_blocks * scale, 1), round(found.f_bavail * scale, 1)
