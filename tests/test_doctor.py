"""Each check of the doctor, healthy and ill, on files and folders made ill on purpose."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tiny_models as tiny

from edge_rt.adapters.statedir import StateDir
from edge_rt.adapters.templates import KEY_NAME, STORE_NAME
from edge_rt.adapters.tflite import choose_engine
from edge_rt.bundle import open_bundle
from edge_rt.cli import main
from edge_rt.core.config import Config, RuntimeConfig, parse_config
from edge_rt.core.errors import ConfigError
from edge_rt.core.manifest import EmbedManifest
from edge_rt.runtime import doctor, doctor_faces
from edge_rt.runtime.check import Check, failed_call
from edge_rt.runtime.doctor import examine
from edge_rt.runtime.face_templates import open_templates


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


def test_an_engine_that_cannot_run_here_is_not_offered() -> None:
    pytest.importorskip("tflite_runtime")
    pytest.importorskip("ai_edge_litert")
    (old,) = doctor.check_engine("litert", "1.26.4")
    (new,) = doctor.check_engine("litert", "2.1.0")
    assert "also here: tflite-runtime" in old.found
    assert new.state == "ok" and "tflite-runtime" not in new.found


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


def test_a_disk_that_takes_no_more_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from edge_rt.runtime import check, doctor\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "try: list(doctor.check_state(Path(sys.argv[1])))\n"
        "except OSError as error: print(check.failed_call('state', error).found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"{folder}: File too large\n"
    full = failed_call("state", OSError(28, "No space left on device", "/var/lib/edge-rt"))
    assert full.found.startswith("/var/lib/edge-rt: ") and full.remedy.startswith("free some space")


def test_a_daemons_problem_keeps_its_own_remedy() -> None:
    problems = ["faces: /t.bin: mode 0644 lets others in; chmod 600 /t.bin", "falls: it smokes"]
    told, untold = doctor.check_daemon(Config(), {"problems": problems, "uptime_s": 3.0})
    assert told.remedy == "chmod 600 /t.bin" and told.found.endswith("lets others in")
    assert untold.found == "falls: it smokes" and "edge-rt status" in untold.remedy


def test_a_daemon_that_nobody_can_talk_to_is_not_called_absent(tmp_path: Path) -> None:
    config = Config(runtime=RuntimeConfig(state_dir=str(tmp_path), run_dir="/run/x"))
    with StateDir(tmp_path):
        (held,) = doctor.check_daemon(config, None)
    assert held.state == "failed"
    assert held.found == f"process {os.getpid()} runs, but nobody answers in /run/x"
    (free,) = doctor.check_daemon(config, None)
    assert (free.state, free.found) == ("ok", "not running")


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
        (found,) = doctor_faces.check_template_key(config_for(tmp_path, more))
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
    key.write_bytes(b"too short")
    assert check(on).state == "failed" and "32 bytes" in check(on).remedy
    assert check("faces.enabled = true\nfaces.template_key = 'edge'").state == "warning"


def _enrolled(tmp_path: Path, more: str = "") -> tuple[Config, Path]:
    """A configuration whose store holds one person, and the store's path."""
    config = config_for(tmp_path, f"faces.enabled = true\nfaces.camera.driver = 'demo'\n{more}")
    folder = Path(config.runtime.state_dir)
    folder.mkdir(mode=0o700, exist_ok=True)
    manifest = open_bundle(config.faces.embed).manifest
    assert isinstance(manifest, EmbedManifest)
    store = open_templates(folder, config.faces, manifest, {})
    store.add("Ann", np.ones((1, manifest.output.size), np.float32), 0.0)
    return config, folder / STORE_NAME


def _lay_open(store: Path) -> None:
    store.chmod(0o644)


def _replace_key(store: Path) -> None:
    (store.parent / KEY_NAME).write_bytes(os.urandom(32))


def _lose_key(store: Path) -> None:
    (store.parent / KEY_NAME).unlink()


def _overwrite(store: Path) -> None:
    store.write_bytes(b"an old format, or none")


def _flip(store: Path) -> None:
    content = bytearray(store.read_bytes())
    content[-40] ^= 1
    store.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "found", "remedy"),
    [
        (_lay_open, "mode 0644", "chmod 600 "),
        (_replace_key, "sealed with another key", "give the key it was made with"),
        (_lose_key, "gone, but templates.bin needs it", "restore a backup"),
        (_overwrite, "no template store of this format", "restore a backup"),
        (_flip, "checksum is wrong", "restore a backup"),
    ],
)
def test_templates_that_do_not_open_say_why(
    tmp_path: Path,
    factory_bundle: Callable[[str], Path],
    harm: Callable[[Path], None],
    found: str,
    remedy: str,
) -> None:
    factory_bundle("face-embed")
    config, store = _enrolled(tmp_path)
    (check,) = doctor_faces.check_templates(config, None)
    assert check.state == "ok" and check.found.startswith("1 enrolled")
    harm(store)
    (check,) = doctor_faces.check_templates(config, None)
    assert check.state == "failed" and found in check.found and check.remedy.startswith(remedy)
    assert not list(doctor_faces.check_templates(config, {"faces": {}}))  # the daemon tells


def test_looking_at_templates_makes_no_key(tmp_path: Path) -> None:
    config = config_for(tmp_path, "faces.enabled = true")
    (check,) = doctor_faces.check_templates(config, None)
    assert check.state == "ok" and "nobody" in check.found
    assert not (tmp_path / "state").exists()


def test_templates_of_another_camera_are_to_be_enrolled_anew(
    tmp_path: Path, factory_bundle: Callable[[str], Path]
) -> None:
    factory_bundle("face-embed")
    _enrolled(tmp_path)
    other = config_for(tmp_path, "faces.enabled = true\nfaces.camera.driver = 'opencv'")
    (check,) = doctor_faces.check_templates(other, None)
    assert check.state == "failed" and "camera demo" in check.found
    assert check.remedy == "enrol anew"


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
    # Installed or not: to install it would be no way out.
    with pytest.raises(ConfigError, match=r"numpy 2\.1\.0; run: pip install 'numpy<2'"):
        choose_engine("tflite-runtime", "2.1.0")
    pytest.importorskip("tflite_runtime")
    assert choose_engine("tflite-runtime", "1.26.4") == "tflite-runtime"


def bound_by_modes() -> None:
    """Root without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)), from exec on."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def test_a_daemon_that_may_not_be_asked_is_left_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(run / "control.sock"))
    listener.listen()
    (run / "control.sock").chmod(0o000)
    text = f'runtime.state_dir = "{run}/state"\nruntime.run_dir = "{run}"\n'
    text += '[falls.source]\ndriver = "iio"\n'
    code = (
        "import sys\n"
        "from edge_rt.core.config import parse_config\n"
        "from edge_rt.runtime.doctor import examine\n"
        "from edge_rt.runtime.exercise import exercise\n"
        "config = parse_config(sys.argv[1], 'test')\n"
        "for c in [*exercise(config, bool, bool), *examine(config)]:\n"
        "    print(c.name, c.state, c.found, c.remedy, sep='|')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, text],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=bound_by_modes,
    )
    listener.close()
    assert ended.returncode == 0, ended.stderr
    lines = [line.split("|") for line in ended.stdout.splitlines()]
    states = {(name, state) for name, state, _, _ in lines}
    assert {("daemon", "failed"), ("exercise", "failed"), ("accelerometer", "warning")} <= states
    told = next(line for line in lines if line[0] == "daemon")
    assert "may not ask it" in told[2] and "use sudo" in told[3]
    assert not {"IIO", "I2C"} & {line[0] for line in lines}


def test_a_low_voltage_of_a_pi_5_is_seen(tmp_path: Path) -> None:
    chip = tmp_path / "class/hwmon/hwmon3"
    chip.mkdir(parents=True)
    (chip / "name").write_text("rpi_volt\n")
    (chip / "in0_lcrit_alarm").write_text("1\n")
    (check,) = doctor.check_temperature(tmp_path)
    assert (check.name, check.state) == ("power", "failed") and "under-voltage" in check.found


@pytest.mark.parametrize(("offered", "lines"), [("cpu io pids", 2), ("cpu memory pids", 1)])
def test_a_kernel_without_a_memory_controller_is_told(
    tmp_path: Path, offered: str, lines: int
) -> None:
    (tmp_path / "controllers").write_text(offered + "\n")
    found = list(doctor.check_memory(controllers=tmp_path / "controllers"))
    assert len(found) == lines
    assert lines == 1 or "cgroup_enable=memory" in found[1].remedy
