"""Trying out what is wired: with consent, on a terminal or without, directly or by the daemon."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge_rt.adapters.statedir import StateDir
from edge_rt.cli import main
from edge_rt.core.config import Config, parse_config
from edge_rt.core.errors import HardwareError
from edge_rt.runtime.doctor_room import check_pins, check_release, check_rest
from edge_rt.runtime.exercise import exercise

PATIENCE_S = 30.0
PINS = """
[outputs]
siren = {driver = "gpio", line = 27}
lock = {driver = "gpio", line = 17, pulse_s = 0.2}
led = {driver = "gpio", line = 22}
[inputs]
help = {driver = "gpio", line = 6}
"""


def text_for(folder: Path, pins: str = PINS) -> str:
    return (
        f'runtime.state_dir = "{folder}/state"\nruntime.run_dir = "{folder}"\n'
        f'[gpio]\ndriver = "model"\nfolder = "{folder}/pins"\n{pins}'
    )


def config_for(folder: Path, pins: str = PINS) -> Config:
    return parse_config(text_for(folder, pins), "test")


def press_when_watched(folder: Path) -> threading.Thread:
    """Keeps pressing the help button until it is taken notice of."""
    stop = threading.Event()

    def hand() -> None:
        path = folder / "pins" / "6"
        while not stop.is_set():
            for level in ("1", "0"):
                if path.exists():
                    new = path.with_name(".6.hand")
                    new.write_text(level)
                    os.replace(new, path)
                stop.wait(0.1)

    thread = threading.Thread(target=hand, daemon=True)
    thread.stop = stop  # type: ignore[attr-defined]
    thread.start()
    return thread


def test_each_is_tried_with_consent_and_judged_by_who_saw_it(tmp_path: Path) -> None:
    asked: list[str] = []

    def consents(text: str) -> bool:
        asked.append(text)
        return True

    hand = press_when_watched(tmp_path)
    checks = list(exercise(config_for(tmp_path), consents, lambda text: "sound" not in text))
    hand.stop.set()  # type: ignore[attr-defined]
    hand.join(PATIENCE_S)
    assert [(check.name, check.state) for check in checks] == [
        ("siren", "failed"),  # its line was driven, and nobody heard it
        ("lock", "ok"),
        ("led", "ok"),
        ("help", "ok"),
    ]
    assert len(asked) == 4 and "call nobody" in asked[3]
    for line in (17, 22, 27):
        assert (tmp_path / "pins" / str(line)).read_text() == "0\n"


def test_without_consent_nothing_is_driven(tmp_path: Path) -> None:
    checks = list(exercise(config_for(tmp_path), lambda text: False, lambda text: True))
    assert {check.found for check in checks} == {"not tried"}


def test_what_does_not_work_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pins").write_text("in the way")
    trying = exercise(config_for(tmp_path), lambda text: True, lambda text: True)
    check = next(trying)
    trying.close()
    assert check.state == "failed" and check.remedy == "see gpio.folder in the config"


def test_nothing_wired_is_said(tmp_path: Path) -> None:
    (check,) = exercise(config_for(tmp_path, ""), lambda text: True, lambda text: True)
    assert check.found == "no output or button with a driver of its own"


@pytest.fixture
def wired(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text_for(tmp_path, "[outputs]\nsiren = {driver = 'gpio', line = 27}"))
    return path


def test_the_command_needs_a_terminal_or_yes(
    wired: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["doctor", "--exercise", "--config", str(wired)]
    done = subprocess.run(
        [sys.executable, "-m", "edge_rt", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "needs a terminal, or --yes" in done.stderr
    assert main([*command, "--yes", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["checks"] == [{"name": "siren", "state": "ok", "found": "works", "remedy": ""}]


@pytest.mark.parametrize(("answers", "code"), [("y\ny\n", 0), ("y\nn\n", 1), ("n\n", 0)])
def test_on_a_terminal_it_asks(wired: Path, answers: str, code: int) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_rt", "doctor", "--exercise", "--config", str(wired)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    out, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code, (out, err)
    assert b"Sound the siren" in err


# ---- what the doctor tells without trying ----


def test_pins_without_a_chip_are_a_failure(tmp_path: Path) -> None:
    (check,) = check_pins(parse_config("", "test"), None)
    assert check.state == "ok"
    (check,) = check_pins(config_for(tmp_path), None)
    assert check.state == "warning" and "gpiod" in check.remedy
    config = parse_config(f'[gpio]\ndriver = "gpiod"\nchip = "/dev/null"\n{PINS}', "test")
    with pytest.raises(HardwareError, match="no GPIO chip"):
        list(check_pins(config, None))


@pytest.mark.parametrize(("parameter", "warnings"), [("Y", 1), ("N", 0), (None, 0)])
def test_a_kernel_that_leaves_outputs_on_is_told(
    tmp_path: Path, parameter: str | None, warnings: int
) -> None:
    if parameter is not None:
        folder = tmp_path / "module/pinctrl_bcm2835/parameters"
        folder.mkdir(parents=True)
        (folder / "persist_gpio_outputs").write_text(parameter + "\n")
    found = list(check_release(config_for(tmp_path), tmp_path))
    assert len(found) == warnings
    assert all("dtparam=strict_gpiod" in check.remedy for check in found)
    assert not list(check_release(parse_config("", "test"), tmp_path))


def test_a_daemon_that_cannot_be_asked_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pins").mkdir()
    siren = tmp_path / "pins" / "27"
    siren.write_text("1")  # it sounds for somebody
    with StateDir(tmp_path / "state"):
        (told,) = exercise(config_for(tmp_path), lambda text: True, lambda text: True)
    assert told.state == "failed"
    assert told.found == f"process {os.getpid()} runs and cannot be asked"
    assert siren.read_text() == "1"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_is_gone_leaves_no_door_open(tmp_path: Path, number: int) -> None:
    pins = '[outputs]\nlock = {driver = "gpio", line = 17, pulse_s = 10.0}\n'
    (tmp_path / "config.toml").write_text(text_for(tmp_path, pins))
    command = ["doctor", "--exercise", "--config", str(tmp_path / "config.toml")]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_rt", *command], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, b"y\n")  # open it; whether it did is never answered
    line = tmp_path / "pins" / "17"
    end_s = time.monotonic() + PATIENCE_S
    while not (line.exists() and line.read_text().strip() == "1"):
        assert time.monotonic() < end_s and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(5.0) == 130, "long before the pulse would have ended"
    os.close(ours)
    assert line.read_text().strip() == "0"


def test_an_output_that_is_on_while_its_line_is_low_needs_a_pull_up(tmp_path: Path) -> None:
    pins = '[outputs]\nsiren = {driver = "gpio", line = 27, active_low = true}\n'
    (check,) = check_rest(config_for(tmp_path, pins))
    assert check.state == "warning" and "line 27" in check.found and "pull-up" in check.remedy
    assert list(check_rest(config_for(tmp_path))) == []
