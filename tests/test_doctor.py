"""Each check of the doctor, healthy and ill, on files and folders made ill on purpose."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tiny_models as tiny

from edge_rt.adapters.tflite import choose_engine
from edge_rt.cli import main
from edge_rt.core.config import Config, parse_config
from edge_rt.core.errors import ConfigError
from edge_rt.runtime import doctor
from edge_rt.runtime.doctor import Check, examine


def state_of(checks: object) -> dict[str, str]:
    assert isinstance(checks, list)
    return {check.name: check.state for check in checks}


def config_for(tmp_path: Path, more: str = "") -> Config:
    return parse_config(
        f'runtime.state_dir = "{tmp_path}/state"\nruntime.run_dir = "{tmp_path}"\n{more}', "test"
    )


def test_every_line_that_is_not_ok_says_what_to_do(tmp_path: Path) -> None:
    checks = list(examine(config_for(tmp_path)))
    names = [check.name for check in checks]
    for name in ("python", "engine", "daemon", "accelerometer", "state", "disk", "clock"):
        assert name in names
    assert all(check.remedy for check in checks if check.state != "ok")
    assert state_of(checks)["accelerometer"] == "warning"  # simulated: nobody is watched


def test_engine_missing_or_unknown() -> None:
    (check,) = doctor.check_engine("magic")
    assert check.state == "failed" and "magic" in check.found


def test_models_are_really_run(tmp_path: Path) -> None:
    good = tiny.bundle(tmp_path / "good", tiny.scorer())
    bad = tiny.bundle(tmp_path / "bad", tiny.scorer(), golden=1.0)
    for folder, state in ((good, "ok"), (bad, "failed")):
        config = config_for(tmp_path, f'falls.bundle = "{folder}"')
        assert state_of(list(doctor.check_models(config)))[f"model {folder}"] == state


def test_state_folder_modes_and_write_test(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (check,) = doctor.check_state(folder)
    assert check.state == "ok" and "will be made" in check.found
    folder.mkdir(mode=0o700)
    (check,) = doctor.check_state(folder)
    assert check.state in ("ok", "warning") and "durable in" in check.found
    assert list(folder.iterdir()) == []
    folder.chmod(0o750)
    (check,) = doctor.check_state(folder)
    assert check.state == "failed" and check.remedy == f"chmod 700 {folder}"


@pytest.mark.parametrize(
    ("year", "synchronised", "state"),
    [(1970, False, "failed"), (1970, True, "failed"), (2026, False, "warning"), (2026, True, "ok")],
)
def test_clock(year: int, synchronised: bool, state: str) -> None:
    (check,) = doctor.check_clock(datetime(year, 6, 1, tzinfo=UTC), synchronised)
    assert check.state == state


@pytest.mark.parametrize(("left_kb", "state"), [(400_000, "ok"), (100_000, "warning")])
def test_memory(tmp_path: Path, left_kb: int, state: str) -> None:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal: 512000 kB\nMemAvailable: {left_kb} kB\n")
    (check,) = doctor.check_memory(path)
    assert check.state == state


@pytest.mark.parametrize(
    ("bits", "power", "words"),
    [
        (None, None, ""),
        ("0x0", "ok", "never"),
        ("0x50005", "failed", "under-voltage, throttling"),
        ("0x10000", "warning", "under-voltage since boot"),
    ],
)
def test_temperature_and_power(
    tmp_path: Path, bits: str | None, power: str | None, words: str
) -> None:
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("83500\n")
    if bits is not None:
        firmware = tmp_path / "devices/platform/soc/soc:firmware"
        firmware.mkdir(parents=True)
        (firmware / "get_throttled").write_text(bits + "\n")
    checks = {check.name: check for check in doctor.check_temperature(tmp_path)}
    assert checks["temperature"].state == "warning" and "84 C" in checks["temperature"].found
    assert ("power" in checks) == (power is not None)
    if power is not None:
        assert checks["power"].state == power and words in checks["power"].found


def test_a_board_that_tells_nothing_is_fine(tmp_path: Path) -> None:
    (check,) = doctor.check_temperature(tmp_path)
    assert check.state == "ok"


def test_template_key_modes(tmp_path: Path) -> None:
    def check(more: str) -> Check:
        (found,) = doctor.check_template_key(config_for(tmp_path, more))
        return found

    key = tmp_path / "key"
    on = f'faces.enabled = true\nfaces.template_key = "{key}"'
    assert check("").state == "ok"
    assert check("faces.enabled = true").state == "warning"
    assert check(on).state == "failed" and "missing" in check(on).found
    key.write_bytes(os.urandom(32))
    key.chmod(0o644)
    assert check(on).state == "failed" and check(on).remedy == f"chmod 600 {key}"
    key.chmod(0o600)
    assert check(on).state == "ok"


def test_a_replayed_accelerometer_is_really_read(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "b", tiny.scorer())
    config = config_for(
        tmp_path,
        f'falls.bundle = "{bundle}"\n'
        f'falls.source = {{driver = "replay", file = "{tmp_path}/gone.npz"}}',
    )
    checks = {check.name: check for check in examine(config)}
    assert checks["accelerometer"].state == "failed"
    assert "gone.npz: no such file" in checks["accelerometer"].found


def test_exit_code_and_json(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], write: Callable[[str], Path]
) -> None:
    bundle = tiny.bundle(tmp_path / "b", tiny.scorer(), golden=1.0)
    path = write(
        f'falls.bundle = "{bundle}"\nruntime.run_dir = "{tmp_path}"\n'
        f'runtime.state_dir = "{tmp_path}/state"\n'
    )
    assert main(["doctor", "--config", str(path), "--json"]) == 1
    answer = json.loads(capfd.readouterr().out)
    assert answer["ok"] is False
    assert {"name", "state", "found", "remedy"} == set(answer["checks"][0])
    assert main(["doctor", "--config", str(path)]) == 1
    assert "failed   model" in capfd.readouterr().out
    assert main(["doctor", "--config", str(write("[fals]\nenabled = true\n"))]) == 2
    assert "did you mean 'falls'" in capfd.readouterr().err


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return to_file


def test_the_config_itself_is_checked_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'event_log_max_mb'"):
        config_for(tmp_path, "runtime.event_log_mx_mb = 3")


def test_numpy_2_under_tflite_runtime_is_refused_with_the_remedy() -> None:
    pytest.importorskip("tflite_runtime")
    assert choose_engine("tflite-runtime", "1.26.4") == "tflite-runtime"
    with pytest.raises(ConfigError, match=r"numpy 2\.1\.0; run: pip install 'numpy<2'"):
        choose_engine("tflite-runtime", "2.1.0")
