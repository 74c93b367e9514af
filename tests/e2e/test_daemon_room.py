"""Buttons, siren and LED of a running daemon, on the chip made of files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemons import Running, daemon

from edge_rt.core.errors import ConfigError, DaemonError, EdgeRtError
from edge_rt.runtime.config_file import load_config
from edge_rt.runtime.exercise import exercise


@pytest.fixture(autouse=True)
def factory(factory_bundle: Callable[[str], Path]) -> None:
    factory_bundle("fall-waist")


def config(folder: Path) -> dict[str, Any]:
    return {
        "gpio": {"driver": "model", "folder": str(folder / "pins")},
        "outputs": {
            "siren": {"driver": "gpio", "line": 27},
            "lock": {"driver": "gpio", "line": 17},
            "led": {"driver": "gpio", "line": 22},
        },
        "inputs": {
            "cancel": {"driver": "gpio", "line": 5, "hold_s": 0.5},
            "help": {"driver": "gpio", "line": 6},
        },
    }


def level(folder: Path, line: int) -> str:
    return (folder / "pins" / str(line)).read_text().strip()


def press(folder: Path, line: int, down: bool = True) -> None:
    new = folder / "pins" / f".{line}.hand"
    new.write_text("1" if down else "0")
    os.replace(new, folder / "pins" / str(line))


def watching(running: Running) -> None:
    def away() -> bool:
        buttons = running.status()["room"]["buttons"]
        return all(button["hand"] == "away" for button in buttons.values())

    running.wait(away, "the buttons to be watched")


def outputs_off(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_rt.runtime.outputs_off", str(folder / "config.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_sounds_until_it_is_resolved_through_kill_and_restart(tmp_path: Path) -> None:
    with daemon(tmp_path, config(tmp_path)) as running:
        watching(running)
        running.wait(
            lambda: running.status()["room"]["outputs"]["led"]["state"] == "ok", "a calm LED"
        )
        press(tmp_path, 6)
        running.wait(lambda: level(tmp_path, 27) == "1", "the siren")
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")
        (alarm,) = [e for e in running.events() if e["type"] == "edge_rt.fall.alarm"]
        assert alarm["data"]["why"]["by"] == "button"
        room = running.status()["room"]
        assert room["outputs"]["led"]["state"] == "alarm"
        press(tmp_path, 6, False)
        running.wait(lambda: level(tmp_path, 27) == "1", "the siren")
        running.stop(signal.SIGKILL)
    (tmp_path / "pins" / "27").write_text("1")  # whichever level the kill met
    done = outputs_off(tmp_path)
    assert (done.returncode, done.stderr, level(tmp_path, 27)) == (0, "", "0")

    with daemon(tmp_path, config(tmp_path)) as running:
        running.wait(lambda: level(tmp_path, 27) == "1", "the siren, for the alarm is still open")
        watching(running)
        press(tmp_path, 5)  # a press cancels nothing now; held, it resolves
        running.wait(lambda: "fall.resolved" in running.kinds(), "the end of the alarm")
        running.wait(lambda: level(tmp_path, 27) == "0", "silence")
        press(tmp_path, 5, False)
        assert running.stop() == 0
        assert [level(tmp_path, line) for line in (17, 22, 27)] == ["0", "0", "0"]


@pytest.mark.parametrize("held", [True, False])
def test_help_that_is_pressed_during_a_restart_is_not_lost(tmp_path: Path, held: bool) -> None:
    with daemon(tmp_path, config(tmp_path)) as running:
        watching(running)
        running.process.send_signal(signal.SIGTERM)
        if held:  # and pressed after its last look
            running.process.wait(60)
        press(tmp_path, 6)
        if not held:  # it lasts as long as a finger, somewhere within the stop
            time.sleep(0.1)
            press(tmp_path, 6, False)
        assert running.process.wait(60) == 0
    with daemon(tmp_path, config(tmp_path)) as running:
        if held:
            hand = lambda: running.status()["room"]["buttons"]["help"]["hand"]  # noqa: E731
            running.wait(lambda: hand() == "found", "the finger to be seen")
            press(tmp_path, 6, False)
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")
        running.wait(lambda: running.status()["falls"]["state"] == "alarm", "its state")
        running.wait(lambda: level(tmp_path, 27) == "1", "the siren")
        running.call("resolve")
        running.wait(lambda: level(tmp_path, 27) == "0", "silence")


def test_a_siren_that_could_not_be_turned_off_is_turned_off_afterwards(tmp_path: Path) -> None:
    """Whatever has become of the configuration, and as soon as its line is back."""
    with daemon(tmp_path, config(tmp_path)) as running:
        running.call("help_now")
        running.wait(lambda: level(tmp_path, 27) == "1", "the siren")
        (tmp_path / "pins").rename(tmp_path / "gone")
        (tmp_path / "pins").write_text("in the way")
        assert running.stop() == os.EX_IOERR
        assert "siren: may still be on" in running.log
    (tmp_path / "gone" / "27").write_text("1")
    (tmp_path / "config.toml").write_text("[outputs]\nsirne = 1\n")
    cleaning = subprocess.Popen(
        [sys.executable, "-m", "edge_rt.runtime.outputs_off", str(tmp_path / "config.toml")],
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)},
    )
    time.sleep(2.0)  # it tries, and in vain
    (tmp_path / "pins").unlink()
    (tmp_path / "gone").rename(tmp_path / "pins")
    assert cleaning.wait(60) == 0
    assert level(tmp_path, 27) == "0"


def test_outputs_are_tried_through_the_daemon_but_the_lock_is_not(tmp_path: Path) -> None:
    with daemon(tmp_path, config(tmp_path)) as running:
        watching(running)
        assert running.call("exercise", item="siren") == {"tried": "siren"}
        assert running.call("exercise", item="led") == {"tried": "led"}
        with pytest.raises(EdgeRtError, match="the lock is not opened by command"):
            running.call("exercise", item="lock")
        with pytest.raises(ConfigError, match="to be tried: siren, lock, led, cancel, help"):
            running.call("exercise", item="horn")
        running.call("help_now")
        running.wait(
            lambda: running.status()["room"]["outputs"]["siren"]["state"] == "alarm", "the siren"
        )
        with pytest.raises(DaemonError, match="the alarm comes first; try siren"):
            running.call("exercise", item="siren")
        assert level(tmp_path, 17) == "0"


def test_the_doctor_tries_all_but_the_lock_through_the_daemon(tmp_path: Path) -> None:
    wired = config(tmp_path)
    del wired["inputs"]
    with daemon(tmp_path, wired):
        loaded = load_config(tmp_path / "config.toml")
        checks = list(exercise(loaded, lambda text: True, lambda text: True))
    assert [(check.name, check.state) for check in checks] == [
        ("siren", "ok"),
        ("lock", "warning"),
        ("led", "ok"),
    ]
    assert "no command opens the door" in checks[1].remedy


def test_without_a_chip_the_falls_are_watched_and_the_fault_is_told(tmp_path: Path) -> None:
    wired = config(tmp_path)
    wired["gpio"] = {"driver": "gpiod", "chip": str(tmp_path / "gpiochip9")}
    with daemon(tmp_path, wired) as running:
        running.wait(lambda: len(running.status()["problems"]) == 5, "five faults")
        assert all("no GPIO chip" in problem for problem in running.status()["problems"])
        running.wait(lambda: running.kinds().count("device.sensor_lost") == 2, "two events")
        running.wait(lambda: running.status()["falls"]["sensor"] == "ok", "falls to be watched")
        assert running.call("help_now")["state"] == "alarm"
        done = outputs_off(tmp_path)
        assert done.returncode == 4 and "lock: " in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="programs have to be root's")
def test_a_program_that_will_not_end_holds_up_neither_falls_nor_events(tmp_path: Path) -> None:
    stubborn = [
        "/bin/sh",
        "-c",
        f"trap '' TERM; echo >{tmp_path}/runs; while :; do sleep 600; done",
    ]
    siren = {"driver": "command", "prealarm": ["/bin/true"], "alarm": stubborn, "limit_s": 600.0}
    with daemon(tmp_path, {"outputs": {"siren": siren}}) as running:
        assert running.call("help_now")["state"] == "alarm"
        running.wait((tmp_path / "runs").exists, "the program")
        hops = running.status()["falls"]["hops"]
        running.wait(lambda: running.status()["falls"]["hops"] > hops + 5, "hops to go on")
        for _ in range(3):
            began_s = time.monotonic()
            assert running.call("resolve")["state"] == "resolved"
            assert running.call("help_now")["state"] == "alarm"
            assert time.monotonic() - began_s < 2.0
        running.wait(lambda: running.kinds().count("fall.alarm") == 4, "the events")
        assert running.stop() == 0


def test_a_strike_is_not_driven_without_liveness(tmp_path: Path) -> None:
    wired = config(tmp_path) | {"faces": {"enabled": True}}
    with (
        pytest.raises(AssertionError, match="lock driver 'gpio' needs liveness"),
        daemon(tmp_path, wired),
    ):
        pass


def test_programs_of_a_config_that_others_can_change_are_not_run(tmp_path: Path) -> None:
    siren = {"driver": "command", "prealarm": ["/bin/true"], "alarm": ["/bin/true"]}
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    with (
        pytest.raises(AssertionError, match="others than root may change it"),
        daemon(loose, {"outputs": {"siren": siren}}),
    ):
        pass
