"""The daemon as a process: a fall from sensor to event, and what may happen meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Running, daemon

from edge_rt.core.errors import EdgeRtError
from edge_rt.core.toml import write_toml


def falls(**source: Any) -> dict[str, Any]:
    """Fall detection on a simulated fall, twenty times as fast as life."""
    scene = {"driver": "simulated", "scene": "fall-walking", "seed": 3, "speed": 20.0}
    return {
        "falls": {
            "source": {**scene, "repeat": False, **source},
            "alarm": {"cancel_window_s": 10.0, "escalated_window_s": 5.0},
        }
    }


@pytest.fixture
def factory(factory_bundle: Callable[[str], Path]) -> None:
    """The daemon's default bundle is needed."""
    factory_bundle("fall-waist")


pytestmark = pytest.mark.usefixtures("factory")


def alarmed(running: Running) -> list[dict[str, Any]]:
    """Wait for an alarm; the events up to then."""
    running.wait(lambda: "fall.alarm" in running.kinds(), "an alarm")
    return running.events()


def test_a_fall_becomes_an_alarm_that_stays_until_resolved(tmp_path: Path) -> None:
    with daemon(tmp_path, falls()) as running:
        events = alarmed(running)
        stages = [e for e in events if e["type"].startswith("edge_rt.fall.")]
        whats = [e["type"].rsplit(".", 1)[1] for e in stages]
        assert whats[-3:] == ["suspected", "prealarm", "alarm"]
        assert len({e["data"]["incident"] for e in stages[-3:]}) == 1
        why = stages[-2]["data"]["why"]
        assert why["mean"] >= why["threshold"] and why["delay_s"] <= 2.0
        assert all(e["data"]["simulated"] for e in stages)
        assert [int(e["sequence"]) for e in events] == list(range(1, len(events) + 1))
        assert "siren: sounding (alarm)" in running.log

        assert running.status()["falls"]["state"] == "alarm"
        assert running.call("resolve")["state"] == "resolved"
        running.wait(lambda: "siren: silent" in running.log, "the siren to stop")
        assert running.stop() == 0
    with daemon(tmp_path, {"falls": {"enabled": False}}) as running:
        later = running.wait(lambda: running.kinds()[len(events) + 2 :], "the new start")
        assert later == ["device.started"]
        kinds = running.kinds()[len(events) :]
        assert kinds[:2] == ["fall.resolved", "device.stopped"]


def test_a_prealarm_can_be_cancelled(tmp_path: Path) -> None:
    with daemon(tmp_path, falls(speed=5.0)) as running:
        running.wait(lambda: running.status()["falls"]["state"] == "prealarm", "a pre-alarm")
        running.call("cancel")
        running.wait(lambda: "fall.cancelled" in running.kinds(), "the event")
        running.wait(lambda: running.status()["falls"]["sensor"] == "ended", "the end")
        assert "fall.alarm" not in running.kinds()


def test_help_now_needs_no_fall_and_no_sensor(tmp_path: Path) -> None:
    with daemon(tmp_path, falls(scene="walking", repeat=True, speed=1.0)) as running:
        assert running.call("help_now")["state"] == "alarm"
        running.wait(lambda: "fall.alarm" in running.kinds(), "the event")


def test_an_alarm_outlives_kill_9(tmp_path: Path) -> None:
    with daemon(tmp_path, falls()) as running:
        before = alarmed(running)
        running.wait(lambda: (tmp_path / "state" / "fall.json").exists(), "the saved state")
        running.wait(
            lambda: b'"alarm"' in (tmp_path / "state" / "fall.json").read_bytes(), "its alarm"
        )
        running.stop(signal.SIGKILL)
    with daemon(tmp_path, falls(scene="walking")) as running:
        assert running.events()[: len(before)] == before
        status = running.status()["falls"]
        assert status["state"] == "alarm"
        assert status["incident"] == before[-1]["data"]["incident"]
        assert "siren: sounding (alarm)" in running.log.split("still open")[1]


def test_one_state_folder_serves_one_daemon(tmp_path: Path) -> None:
    with daemon(tmp_path, falls(repeat=True)) as running:
        second = subprocess.run(
            [sys.executable, "-m", "edge_rt", "run", "--config", str(tmp_path / "config.toml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 5
        assert f"in use by process {running.process.pid}" in second.stderr
        assert running.status()["falls"]["sensor"] == "ok"


@pytest.mark.parametrize(
    ("config", "code", "part"),
    [
        ({"falls": {"bundel": "x"}}, 2, "did you mean 'bundle'"),
        ({"falls": {"bundle": "fall-waits"}}, 2, "no factory bundle 'fall-waits'"),
        ({"falls": {"threshold": 1e9}}, 2, "outside"),
        ({"falls": {"source": {"driver": "simulated", "scene": "x"}}}, 2, "no scene 'x'"),
        ({"falls": {"source": {"driver": "replay", "file": "/nowhere.npz"}}}, 2, "/nowhere.npz"),
        ({"runtime": {"engine": "torch"}}, 2, "choose auto, litert"),
        ({"runtime": {"state_dir": "/proc/edge-rt"}}, 4, "state folder must be writable"),
    ],
)
def test_what_cannot_run_says_why_in_one_line(
    tmp_path: Path, config: dict[str, Any], code: int, part: str
) -> None:
    runtime = {"state_dir": str(tmp_path / "state"), "run_dir": str(tmp_path)}
    merged = {**config, "runtime": {**runtime, **config.get("runtime", {})}}
    (tmp_path / "c.toml").write_text(write_toml(merged))
    done = subprocess.run(
        [sys.executable, "-m", "edge_rt", "run", "--config", str(tmp_path / "c.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == code and last.startswith("edge-rt: ") and part in last, done.stderr
    assert "Traceback" not in done.stderr
    if "state_dir" in config.get("runtime", {}):
        return  # the folder is made at start, not by a check
    checked = subprocess.run(
        [sys.executable, "-m", "edge_rt", "run", "--check", "--config", str(tmp_path / "c.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (code, last + "\n"), "--check says the same"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4M", "edge-rt-test", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_silences_no_alarm_and_loses_none(tmp_path: Path, small_disk: Path) -> None:
    config = falls(speed=5.0) | {"runtime": {"state_dir": str(small_disk)}}
    with daemon(tmp_path, config) as running:
        running.wait(lambda: "device.started" in running.kinds(), "the first event")
        with (
            (small_disk / "filler").open("wb", buffering=0) as filler,
            pytest.raises(OSError, match="No space"),
        ):
            while True:
                filler.write(bytes(4096))
        running.wait(lambda: "siren: sounding (alarm)" in running.log, "the siren")
        status = running.status()
        assert status["storage"]["storage"] == "failing"
        assert status["storage"]["pending_alarms"] >= 1
        assert any("storage" in problem for problem in status["problems"])
        (small_disk / "filler").unlink()
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm in the log")
        running.wait(lambda: not running.status()["problems"], "the problems to end")
        sequences = [int(event["sequence"]) for event in running.events()]
        assert sequences == list(range(1, len(sequences) + 1))


def test_a_read_only_disk_silences_no_alarm_and_loses_none(
    tmp_path: Path, small_disk: Path
) -> None:
    config = falls(speed=5.0) | {"runtime": {"state_dir": str(small_disk)}}
    with daemon(tmp_path, falls(scene="walking") | {"runtime": config["runtime"]}) as running:
        running.wait(lambda: "device.started" in running.kinds(), "the first event")
        assert running.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with daemon(tmp_path, config) as running:
        running.wait(lambda: "siren: sounding (alarm)" in running.log, "the siren")
        status = running.status()
        assert status["storage"]["storage"] == "failing"
        assert any("Read-only" in problem for problem in status["problems"])
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm in the log")
        running.wait(lambda: not running.status()["problems"], "the problems to end")


def killed_in_alarm(folder: Path) -> str:
    """A daemon killed with an alarm open; the incident's id."""
    with daemon(folder, falls()) as running:
        events = alarmed(running)
        running.wait(
            lambda: b'"alarm"' in (folder / "state" / "fall.json").read_bytes(), "the saved alarm"
        )
        running.stop(signal.SIGKILL)
    incident: str = events[-1]["data"]["incident"]
    return incident


def test_the_log_alone_brings_an_open_alarm_back(tmp_path: Path) -> None:
    incident = killed_in_alarm(tmp_path)
    (tmp_path / "state" / "fall.json").unlink()  # the kill came before it was written
    with daemon(tmp_path, falls(scene="walking")) as running:
        status = running.status()["falls"]
        assert (status["state"], status["incident"]) == ("alarm", incident)
        assert running.log.count("siren: sounding (alarm)") == 2
        assert running.call("resolve")["state"] == "resolved"


def test_the_saved_state_alone_brings_an_open_alarm_back_and_tells_it(tmp_path: Path) -> None:
    incident = killed_in_alarm(tmp_path)
    for name in ("events.db", "events.db-wal", "events.db-shm"):  # the disk never took the event
        (tmp_path / "state" / name).unlink(missing_ok=True)
    with daemon(tmp_path, falls(scene="walking")) as running:
        assert running.status()["falls"]["incident"] == incident
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm told again")


def test_a_damaged_state_file_forgets_no_alarm(tmp_path: Path) -> None:
    incident = killed_in_alarm(tmp_path)
    (tmp_path / "state" / "fall.json").write_bytes(b"\x00" * 100)
    with daemon(tmp_path, falls(scene="walking")) as running:
        status = running.status()["falls"]
        assert (status["state"], status["incident"]) == ("alarm", incident)


def test_a_damaged_state_file_is_whole_again_after_one_start(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "state" / "fall.json"
    path.write_bytes(b"\x00" * 100)
    with daemon(tmp_path, falls(scene="walking")) as running:
        running.wait(lambda: path.read_bytes()[:1] == b"{", "the state that was resumed")


def test_a_prealarm_runs_out_while_the_daemon_is_down(tmp_path: Path) -> None:
    slow = falls(speed=5.0)
    with daemon(tmp_path, slow) as running:
        running.wait(lambda: "fall.prealarm" in running.kinds(), "a pre-alarm")
        running.wait(lambda: (tmp_path / "state" / "fall.json").exists(), "the saved state")
        running.stop(signal.SIGKILL)
    # Half a second to start at five times the pace is not the window; but nothing is given back.
    silent = falls(scene="walking", speed=5.0)
    with daemon(tmp_path, silent) as running:
        assert "siren: sounding (prealarm)" in running.log.split("still open")[1]
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")


def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, falls(scene="walking", repeat=True, speed=1.0), log=None) as running:
        for _ in range(1200):  # each refusal is a line; a pipe holds 64 KiB
            with contextlib.suppress(EdgeRtError):
                running.call("cancel")
        assert running.call("help_now")["state"] == "alarm"
        running.wait(lambda: "fall.alarm" in running.kinds(), "the event")
