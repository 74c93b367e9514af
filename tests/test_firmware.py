"""What firmware_configs holds for devices: profiles, the unit and its companions."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from edge_rt.core.config import Config, parse_config
from edge_rt.core.turning import PATIENCE_S
from edge_rt.runtime.preflight import preflight

FOLDER = Path(str(files("edge_rt.firmware_configs")))
PROFILES = sorted((FOLDER / "profiles").glob("*.toml"))
CREDENTIAL_KEYS = ("template-key", "mqtt-key", "mqtt-cert", "mqtt-password")


def read(path: Path) -> Config:
    return parse_config(path.read_bytes(), path.name)


def test_there_is_a_profile_for_each_board() -> None:
    assert [path.stem for path in PROFILES] == ["generic", "pi3", "pi4", "pi5", "zero2w"]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_would_start(path: Path, factory_bundle: Callable[[str], Path]) -> None:
    for name in ("fall-waist", "face-detect", "face-embed"):
        factory_bundle(name)
    preflight(read(path))
    # Also once somebody turns faces on.
    text = path.read_text().replace("enabled = false ", "enabled = true ")
    config = parse_config(text, path.name)
    assert config.faces.enabled
    preflight(config)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_installer_finds_the_name_that_it_replaces(path: Path) -> None:
    assert len(re.findall(r"^name = ", path.read_text(), re.M)) == 1


def test_small_boards_are_asked_for_less() -> None:
    by_name = {path.stem: read(path) for path in PROFILES}
    small, large = by_name["zero2w"], by_name["pi5"]
    assert small.faces.camera.rate_hz < large.faces.camera.rate_hz  # type: ignore[union-attr]
    assert small.faces.memory_mb < large.faces.memory_mb
    assert small.runtime.event_log_max_mb < large.runtime.event_log_max_mb


def unit() -> dict[str, list[str]]:
    """The unit's options; one may stand there several times."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / "systemd/edge-rt.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def test_nothing_that_fails_after_an_end_keeps_the_next_start_waiting() -> None:
    """Without the dash systemd leaves out the lines that follow one that fails."""
    lines = unit()["ExecStopPost"]
    assert len(lines) == 2 and all(line.startswith("-") for line in lines)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("driver = 'iio'", True),
        ('source = { driver = "iio" }', True),
        ('# driver = "adxl345" and "iio"', False),
        ('driver = "mpu6050"  # or "iio"', False),
    ],
)
def test_setting_up_an_iio_sensor_asks_the_program_only_where_it_may_be_needed(
    text: str, asked: bool, tmp_path: Path
) -> None:
    lines = (FOLDER / "systemd/edge-rt-sensor-setup.service").read_text().splitlines()
    (condition,) = [line for line in lines if line.startswith("ExecCondition=")]
    *command, place = shlex.split(condition.removeprefix("ExecCondition="))
    assert place == "/etc/edge-rt/config.toml"
    (tmp_path / "config.toml").write_text(f"[falls]\n{text}\n")
    done = subprocess.run([*command, str(tmp_path / "config.toml")])
    assert done.returncode == (0 if asked else 1)


def test_no_profile_needs_it() -> None:
    for path in PROFILES:
        assert "iio" not in "".join(re.findall(r"^[^#\n]*", path.read_text(), re.M))


def test_the_unit_never_gives_up_and_waits_longer_than_the_daemon_looks() -> None:
    options = unit()
    assert options["Restart"] == ["always"] and options["StartLimitIntervalSec"] == ["0"]
    (watchdog,) = options["WatchdogSec"]
    # Before it, the daemon itself ends on a fall thread that hangs, and can say so.
    assert int(watchdog.removesuffix("s")) > PATIENCE_S["falls"]


def test_memory_leaves_room_for_the_daemon_beside_the_largest_worker() -> None:
    (most,) = unit()["MemoryMax"]
    daemon_mb = 80
    for path in PROFILES:
        assert read(path).faces.memory_mb + daemon_mb <= int(most.removesuffix("M"))


def test_each_credential_has_its_file() -> None:
    loaded = dict(value.split(":") for value in unit()["LoadCredential"])
    assert loaded == {key: f"edge-rt.{key}" for key in CREDENTIAL_KEYS}


def test_the_account_is_in_the_groups_that_own_its_devices() -> None:
    sysusers = (FOLDER / "systemd/edge-rt.sysusers").read_text()
    rules = (FOLDER / "systemd/edge-rt.rules").read_text()
    members = set(re.findall(r"^m edge-rt (\S+)$", sysusers, re.M)) | {"edge-rt"}
    assert set(re.findall(r'GROUP="(\S+)"', rules)) == members


def test_boot_fragments_hold_one_setting_a_line() -> None:
    for path in (FOLDER / "boot").glob("*.txt"):
        lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
        assert lines
        assert [line for line in lines if not re.fullmatch(r"[a-z0-9_]+=\S+", line)] == []
