"""The daemon as a service manager sees it: ready, alive, hanging, crashing, stopping."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import PATIENCE_S, Running, daemon

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.crash_loop import BARE_AT, DELAYS_S, SPARE_AT
from edge_rt.core.toml import write_toml
from edge_rt.runtime.client import Client
from edge_rt.runtime.config_file import load_config
from edge_rt.runtime.crash_guard import CrashGuard
from edge_rt.runtime.protocol import socket_path

CONFIG = {"falls": {"source": {"driver": "simulated", "scene": "walking"}}}
HOME = str(Path(__file__).parents[1])  # of the rogues


@pytest.fixture(autouse=True)
def factory(factory_bundle: Callable[[str], Path]) -> None:
    factory_bundle("fall-waist")


class Manager:
    """Hears what a service says, as systemd would."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}

    def until(self, wanted: str) -> list[dict[str, str]]:
        """All that is said up to the first message with the key `wanted`."""
        heard = []
        end_s = time.monotonic() + PATIENCE_S
        while (left_s := end_s - time.monotonic()) > 0:
            self.socket.settimeout(left_s)
            said = self.socket.recv(8192).decode().split("\n")
            heard.append(dict(line.split("=", 1) for line in said))
            if wanted in heard[-1]:
                return heard
        raise AssertionError(f"no {wanted} in {heard}")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.socket.close()


def rogue(how: str, manager: Manager | None = None) -> dict[str, Any]:
    told = manager.environment if manager is not None else {}
    return {"module": "rogues.daemon", "environment": {"ROGUE": how, "PYTHONPATH": HOME, **told}}


def test_ready_then_fed_then_stopping(tmp_path: Path, manager: Manager) -> None:
    with daemon(tmp_path, CONFIG, environment=manager.environment) as running:
        (ready,) = manager.until("READY")
        assert "falls" in ready["STATUS"] and "mqtt off" in ready["STATUS"]
        # Twice within the watchdog's time, and the words follow what happens.
        begun_s = time.monotonic()
        for _ in range(3):
            manager.until("WATCHDOG")
        assert time.monotonic() - begun_s < 3.0
        running.wait(
            lambda: manager.until("WATCHDOG")[-1]["STATUS"].startswith(
                "falls watching (simulated)"
            ),
            "words about falls",
        )
        running.process.terminate()
        manager.until("STOPPING")
        assert running.process.wait(PATIENCE_S) == 0


def test_a_sensor_that_is_absent_is_ready_all_the_same(tmp_path: Path, manager: Manager) -> None:
    broken = {"falls": {"source": {"driver": "simulated", "scene": "walking", "repeat": False}}}
    broken["falls"]["source"]["speed"] = 1000.0  # type: ignore[index]
    with daemon(tmp_path, broken, environment=manager.environment) as running:
        manager.until("READY")
        running.wait(
            lambda: "not watching (sensor ended)" in manager.until("WATCHDOG")[-1]["STATUS"],
            "words about the sensor",
        )


@pytest.mark.parametrize("loop", ["falls", "accelerometer"])
def test_a_loop_that_hangs_is_fed_no_longer_and_ends_the_process(
    tmp_path: Path, manager: Manager, loop: str
) -> None:
    with daemon(tmp_path, CONFIG, **rogue(loop, manager)) as running:
        said = manager.until("EXIT_STATUS")
        assert running.process.wait(PATIENCE_S) == os.EX_SOFTWARE
    assert said[-1]["STATUS"].startswith(f"{loop} has not turned for")
    assert f"{loop} has not turned" in running.log
    # The next start knows why.
    assert loop in (tmp_path / "state" / "starts.json").read_text()


def test_a_siren_that_hangs_in_an_alarm_gets_another_process(
    tmp_path: Path, manager: Manager
) -> None:
    siren = {"outputs": {"siren": {"driver": "gpio", "line": 27}}}
    config = {**CONFIG, **siren, "gpio": {"driver": "model", "folder": str(tmp_path / "pins")}}
    with daemon(tmp_path, config, **rogue("siren", manager)) as running:
        manager.until("READY")
        running.call("help_now")
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")
        said = manager.until("EXIT_STATUS")
        assert running.process.wait(PATIENCE_S) == os.EX_SOFTWARE
    assert said[-1]["STATUS"].startswith("siren has not turned for")
    with daemon(tmp_path, config) as running:
        running.wait(lambda: (tmp_path / "pins" / "27").read_text() == "1\n", "the siren")
        assert running.status()["falls"]["state"] == "alarm"


@pytest.mark.parametrize(("how", "loop"), [("updates", "updates"), ("button", "cancel button")])
def test_a_thread_of_the_room_or_of_updates_that_hangs_ends_the_process(
    tmp_path: Path, manager: Manager, how: str, loop: str
) -> None:
    config = {
        **CONFIG,
        "gpio": {"driver": "model", "folder": str(tmp_path / "pins")},
        "inputs": {"cancel": {"driver": "gpio", "line": 5}},
    }
    with daemon(tmp_path, config, **rogue(how, manager)) as running:
        said = manager.until("EXIT_STATUS")
        assert running.process.wait(PATIENCE_S) == os.EX_SOFTWARE
    assert said[-1]["STATUS"].startswith(f"{loop} has not turned for")


def test_a_crash_loop_ends_in_a_daemon_that_says_what_it_lacks(tmp_path: Path) -> None:
    config = {**CONFIG, "faces": {"enabled": True, "camera": {"driver": "demo"}}}
    for _ in range(SPARE_AT):
        with daemon(tmp_path, config) as running:
            running.stop(signal.SIGKILL)
    with daemon(tmp_path, config) as running:
        status = running.status()
        assert status["faces"] is None and status["falls"]["state"] == "monitoring"
        assert any(p.startswith("degraded after 3 failed starts") for p in status["problems"])
        (event,) = [e for e in running.events() if e["type"] == "edge_rt.device.degraded"]
        assert event["data"]["off"] == ["faces"] and event["data"]["failed_starts"] == SPARE_AT
        assert running.stop() == 0
    # A configuration that somebody has mended is run in full.
    config["faces"] = {"enabled": False}
    with daemon(tmp_path, config) as running:
        assert running.status()["problems"] == []


def crash_until_bare(folder: Path) -> None:
    """After one start that was killed, the others of a crash loop, without waiting for each."""
    for _ in range(1, BARE_AT):
        CrashGuard(folder / "state", load_config(folder / "config.toml")).begin()


def test_without_models_an_open_alarm_sounds_again_and_can_be_ended(tmp_path: Path) -> None:
    config = {
        **CONFIG,
        "gpio": {"driver": "model", "folder": str(tmp_path / "pins")},
        "outputs": {"siren": {"driver": "gpio", "line": 27}},
    }

    def loud() -> bool:
        return (tmp_path / "pins" / "27").read_text().strip() == "1"

    with daemon(tmp_path, config) as running:
        running.call("help_now")
        running.wait(loud, "the siren")
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")
        running.stop(signal.SIGKILL)
    crash_until_bare(tmp_path)
    begun_s = time.monotonic()
    with daemon(tmp_path, config) as running:
        running.wait(loud, "the siren, for the alarm is still open")
        assert time.monotonic() - begun_s < DELAYS_S[BARE_AT]  # what waits for no one's help
        status = running.status()
        assert status["engine"] == "" and status["models"]["tasks"] == {}
        assert any(
            p.startswith("degraded after 6 failed starts, falls") for p in status["problems"]
        )
        assert (status["falls"]["state"], status["falls"]["sensor"]) == ("alarm", "off")
        assert running.call("resolve")["state"] == "resolved"
        running.wait(lambda: not loud(), "silence")
        # Who calls for help is heard although nobody watches.
        assert running.call("help_now")["state"] == "alarm"
        running.wait(loud, "the siren")
        assert running.stop() == 0
    # And whoever watches again finds it open.
    config["falls"] = {**CONFIG["falls"], "lost_s": 3.0}  # another one: counts anew
    with daemon(tmp_path, config) as running:
        assert running.status()["problems"] == []
        running.wait(loud, "the siren")


@pytest.mark.parametrize(
    "death",
    [
        pytest.param("os.kill(os.getpid(), 11)", id="killed"),
        pytest.param("raise ImportError('no libfoo')", id="missing", marks=pytest.mark.release),
    ],
)
def test_an_engine_that_dies_when_it_is_loaded_ends_in_a_daemon_without_it(
    tmp_path: Path, death: str
) -> None:
    for name in ("ai_edge_litert", "tflite_runtime"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "__init__.py").write_text(f"import os\n{death}\n")
    bad = {"PYTHONPATH": str(tmp_path / "bad")}
    mqtt = {"enabled": True, "host": "127.0.0.1", "port": 9, "insecure": True}
    config = {**CONFIG, "mqtt": mqtt, "updates": {"enabled": True}}
    for _ in range(BARE_AT):
        with pytest.raises(AssertionError), daemon(tmp_path, config, environment=bad):
            pytest.fail("it was to end")
    with daemon(tmp_path, config, environment=bad) as running:
        status = running.status()
        assert any(p.startswith(f"degraded after {BARE_AT}") for p in status["problems"])
        assert status["engine"] == "" and status["falls"]["sensor"] == "off"
        if "ImportError" in death:
            assert any("no libfoo" in p for p in status["problems"]), status["problems"]
        assert running.stop() == 0


def test_a_thread_that_dies_ends_the_process(tmp_path: Path, manager: Manager) -> None:
    config = {
        **CONFIG,
        "gpio": {"driver": "model", "folder": str(tmp_path / "pins")},
        "outputs": {"siren": {"driver": "gpio", "line": 27}},
    }
    made = rogue("guard", manager)
    with contextlib.suppress(AssertionError), daemon(tmp_path, config, **made) as running:
        running.process.wait(PATIENCE_S)
    said = manager.until("EXIT_STATUS")
    assert said[-1]["STATUS"] == "outputs died: RuntimeError: a bug"
    assert "raise_in_guard" in (tmp_path / "log").read_text()
    with daemon(tmp_path, config) as running:
        assert running.stop() == 0


def test_going_back_to_an_older_version_keeps_an_open_alarm(tmp_path: Path) -> None:
    with daemon(tmp_path, CONFIG) as running:
        running.call("help_now")
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")
        incident = running.status()["falls"]["incident"]
        assert running.stop() == 0
    state = tmp_path / "state"
    saved = StateFile[dict[str, Any]](state / "fall.json", dict[str, Any])
    kept = saved.load()
    assert kept is not None
    kept["machine"]["incident"]["later"] = kept["machine"]["later"] = kept["later"] = 1
    saved.save(kept)
    with sqlite3.connect(state / "events.db") as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("UPDATE meta SET value = '99' WHERE key = 'min_reader'")
    db.close()
    with daemon(tmp_path, CONFIG) as running:
        status = running.status()
        assert (status["falls"]["state"], status["falls"]["incident"]) == ("alarm", incident)
        assert any("set aside as events.db.damaged-1" in p for p in status["problems"])
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm, told again")
        assert "device.dropped" in running.kinds()
        assert running.stop() == 0


def test_a_restore_that_cannot_be_completed_ends_no_watch(tmp_path: Path) -> None:
    ready = tmp_path / "state" / "restore.ready"
    ready.mkdir(parents=True, mode=0o700)
    (ready / "manifest.json").write_text("{")
    for _ in range(SPARE_AT):
        failing = daemon(tmp_path, CONFIG)
        with pytest.raises(AssertionError, match="cannot be completed"), failing:
            pytest.fail("it was to end")
    with daemon(tmp_path, CONFIG) as running:
        running.wait(lambda: running.status()["falls"]["sensor"] == "ok", "samples")
        assert any(
            "restore off" in p and "restore.ready" in p for p in running.status()["problems"]
        )
        (event,) = [e for e in running.events() if e["type"] == "edge_rt.device.degraded"]
        assert event["data"]["off"] == ["restore"]
        assert running.stop() == 0


def test_models_are_tried_again_only_once_an_open_alarm_was_looked_after(tmp_path: Path) -> None:
    with daemon(tmp_path, CONFIG) as running:
        running.call("help_now")
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")
        running.stop(signal.SIGKILL)
    crash_until_bare(tmp_path)
    with daemon(tmp_path, CONFIG, **rogue("impatient")) as running:
        time.sleep(4.0)  # it would have left after one
        assert running.status()["falls"]["state"] == "alarm"
        running.call("resolve")
        assert running.process.wait(PATIENCE_S) == os.EX_TEMPFAIL


def test_a_certificate_that_is_gone_does_not_end_the_watch(tmp_path: Path) -> None:
    gone = str(tmp_path / "ca.crt")
    config = {**CONFIG, "mqtt": {"enabled": True, "host": "127.0.0.1", "ca": gone}}
    for _ in range(SPARE_AT):  # a person who looks on sees why
        failing = daemon(tmp_path, config)
        with pytest.raises(AssertionError, match=r"ca\.crt: cannot be used for TLS"), failing:
            pass
    with daemon(tmp_path, config) as running:
        running.wait(lambda: running.status()["falls"]["sensor"] == "ok", "samples")
        status = running.status()
        assert status["mqtt"] is None and status["falls"]["state"] == "monitoring"
        assert any("mqtt off" in p and "ca.crt" in p for p in status["problems"])
        (event,) = [e for e in running.events() if e["type"] == "edge_rt.device.degraded"]
        assert event["data"]["off"] == ["mqtt"] and "ca.crt" in event["data"]["reason"]
        assert running.stop() == 0


def test_a_card_that_stalls_when_a_start_is_proved_good_ends_nothing(
    tmp_path: Path, manager: Manager
) -> None:
    with daemon(tmp_path, CONFIG, **rogue("proving", manager)) as running:
        running.wait(lambda: (tmp_path / "proving").exists(), "the write that stalls")
        for _ in range(5):
            manager.until("WATCHDOG")
        assert running.status()["falls"]["state"] == "monitoring"


def test_falls_are_watched_without_a_control_socket(tmp_path: Path, manager: Manager) -> None:
    blocked = tmp_path / "run"
    blocked.write_text("no folder")
    config = {**CONFIG, "runtime": {"state_dir": str(tmp_path / "state"), "run_dir": str(blocked)}}
    (tmp_path / "config.toml").write_text(write_toml(config))
    words = [sys.executable, "-m", "edge_rt", "run", "--config", str(tmp_path / "config.toml")]
    told = {**os.environ, **manager.environment}
    with open(tmp_path / "log", "ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=told)
    running = Running(tmp_path, process)
    try:
        (ready,) = manager.until("READY")
        assert "PROBLEM: cannot make the control socket" in ready["STATUS"]
        running.wait(
            lambda: manager.until("WATCHDOG")[-1]["STATUS"].startswith("falls watching"), "falls"
        )
        # Nobody takes its state from it all the same.
        second = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
        assert second.returncode != 0
        assert f"in use by process {process.pid}" in second.stderr
        blocked.unlink()
        running.wait(socket_path(blocked).exists, "the socket")
        with Client(blocked) as client:
            assert client.call("status")["problems"] == []
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def test_only_a_log_that_was_cut_off_is_read_through_at_the_start(tmp_path: Path) -> None:
    log = tmp_path / "state" / "events.db"

    def read_through(running: Running) -> bool:
        """The descriptor that is left of it; SQLite's own may write."""
        found = []
        for one in Path(f"/proc/{running.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                flags = one.parent.with_name("fdinfo").joinpath(one.name).read_text().split()[3]
                found.append(one.resolve() == log and int(flags, 8) & os.O_ACCMODE == os.O_RDONLY)
        return any(found)

    with daemon(tmp_path, CONFIG) as running:
        running.wait(lambda: "device.started" in running.kinds(), "an event")
        running.stop(signal.SIGKILL)
    with daemon(tmp_path, CONFIG) as running:
        running.wait(lambda: read_through(running), "the log to be read through")
        running.wait(lambda: running.kinds().count("device.started") == 2, "the log")
        assert running.stop() == 0
    with daemon(tmp_path, CONFIG) as running:
        # Not by its events: SQLite may keep the descriptor of who read them.
        running.wait(lambda: running.status()["storage"]["storage"] == "ok", "the log")
        assert not read_through(running)


def test_a_native_crash_leaves_the_stack_of_every_thread(tmp_path: Path) -> None:
    with daemon(tmp_path, CONFIG, **rogue("abort")) as running:
        assert running.process.wait(PATIENCE_S) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in running.log and "accelerometer.py" in running.log


def test_a_wrong_configuration_is_one_line_and_exit_2(tmp_path: Path, manager: Manager) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[falls]\nenable = true\n")
    done = subprocess.run(
        [sys.executable, "-m", "edge_rt", "run", "--config", str(path)],
        env={**os.environ, **manager.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "unknown key 'enable'" in done.stderr
    (told,) = manager.until("EXIT_STATUS")
    assert told["EXIT_STATUS"] == "2" and "unknown key 'enable'" in told["STATUS"]
