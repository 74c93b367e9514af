"""What the kernel tells of the board, from a folder tree with the files of a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_rt.adapters.vitals import read_vitals
from edge_rt.core.telemetry import Vitals


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_an_empty_tree_tells_nothing_but_the_disk(tmp_path: Path) -> None:
    vitals = read_vitals(tmp_path, tmp_path)
    assert vitals._replace(disk_mb=None, disk_free_mb=None) == Vitals()
    assert vitals.disk_mb is not None and vitals.disk_free_mb is not None
    assert 0 <= vitals.disk_free_mb <= vitals.disk_mb
    assert read_vitals(tmp_path / "nowhere", tmp_path) == Vitals()


def test_the_running_kernel_is_understood(tmp_path: Path) -> None:
    vitals = read_vitals(tmp_path)
    assert vitals.memory_mb is not None and vitals.memory_mb > 100
    assert vitals.daemon_mb is not None and 5 < vitals.daemon_mb < vitals.memory_mb
    assert vitals.up_s is not None and vitals.up_s > 0
    assert vitals.load is not None


def test_the_hottest_zone_counts_and_broken_ones_do_not(tmp_path: Path) -> None:
    for n, text in enumerate(["48312\n", "61850\n", "-273200\n", "", "warm\n"]):
        put(tmp_path, f"sys/class/thermal/thermal_zone{n}/temp", text)
    assert read_vitals(tmp_path, tmp_path).temperature_c == 61.85


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n", (False, False, False, False)),
        ("50005\n", (True, True, True, True)),
        ("50000\n", (False, True, False, True)),
        ("1\n", (True, False, False, False)),
        ("80008\n", (False, False, True, True)),
        ("nonsense\n", (None, None, None, None)),
    ],
)
def test_the_firmwares_bits(tmp_path: Path, text: str, expected: tuple[bool | None, ...]) -> None:
    put(tmp_path, THROTTLED, text)
    found = read_vitals(tmp_path, tmp_path)
    assert found[1:5] == expected


def test_without_the_firmware_file_the_hwmon_driver_is_asked(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    put(tmp_path, "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n")  # another chip's
    assert read_vitals(tmp_path, tmp_path).under_voltage is None
    put(tmp_path, "sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    for text, expected in (("0\n", False), ("1\n", True)):
        put(tmp_path, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", text)
        found = read_vitals(tmp_path, tmp_path)
        assert found[1:5] == (expected, None, None, None)


def test_memory_is_in_megabytes(tmp_path: Path) -> None:
    text = "MemTotal:        3884072 kB\nMemFree: x kB\nMemAvailable:    3012000 kB\nodd line\n"
    put(tmp_path, "proc/meminfo", text)
    put(tmp_path, "proc/loadavg", "0.25 0.1 0.05 1/200 4711\n")
    put(tmp_path, "proc/uptime", "93.25 300.1\n")
    found = read_vitals(tmp_path, tmp_path)
    assert (found.memory_mb, found.memory_free_mb) == (3977.3, 3084.3)
    assert (found.load, found.up_s) == (0.25, 93.25)
