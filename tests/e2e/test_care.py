"""Backup, factory reset and restore around a real daemon: what comes back is what was saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from daemons import daemon

from edge_rt.cli import main

Say = Callable[..., tuple[int, str, str]]
WALK = {"falls": {"source": {"driver": "simulated", "scene": "walking"}}}


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str], factory_bundle: Callable[[str], Path]) -> Say:
    factory_bundle("fall-waist")

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return (code, *capfd.readouterr())

    return run


def one_line(done: tuple[int, str, str], exit_code: int, *parts: str) -> None:
    code, out, err = done
    assert (code, out) == (exit_code, ""), err
    assert err.startswith("edge-rt: ") and err.count("\n") == 1
    for part in parts:
        assert part in err


@pytest.mark.native("the doctor judges latency")
def test_an_open_alarm_survives_backup_reset_and_restore(tmp_path: Path, say: Say) -> None:
    saved, config = tmp_path / "saved.tar.gz", tmp_path / "config.toml"
    state = tmp_path / "state"
    with daemon(tmp_path, WALK) as running:
        code, out, _ = say("help-now", "--run-dir", tmp_path)
        assert (code, out) == (0, "alarm raised; now alarm\n")
        running.wait(lambda: running.status()["storage"]["last_sequence"] > 1, "a stored alarm")
        code, out, _ = say("events", "--run-dir", tmp_path)
        assert code == 0 and "fall.alarm" in out and "device.started" in out
        code, out, _ = say("doctor", "--config", config, "--json")
        checks = {check["name"]: check for check in json.loads(out)["checks"]}
        assert code == 0 and "running for" in checks["daemon"]["found"]
        code, out, _ = say("backup", saved, "--config", config, "--json")
        assert code == 0 and "events.db" in json.loads(out)["files"]
        # While it runs nobody else may change the state.
        assert say("factory-reset", "--yes", "--config", config)[0] == 5
        assert say("restore", saved, "--config", config)[0] == 5
        assert running.status()["falls"]["state"] == "alarm"
        assert running.stop() == 0

    one_line(say("factory-reset", "--config", config), 2, str(state), "add --yes")
    code, out, _ = say("factory-reset", "--yes", "--state-dir", state)
    assert code == 0 and "as new" in out
    assert not (state / "events.db").exists() and config.exists()
    code, out, _ = say("restore", saved, "--config", config)
    assert code == 0 and f"from {saved}" in out

    with daemon(tmp_path, WALK) as running:
        assert "fall.alarm" in running.kinds()
        assert running.status()["falls"]["state"] == "alarm"
        code, out, _ = say("resolve", "--run-dir", tmp_path)
        assert code == 0 and out.startswith("resolved")


def test_which_state_must_be_named_once(tmp_path: Path, say: Say) -> None:
    one_line(say("backup", tmp_path / "b"), 2, "either --config FILE or --state-dir DIR")
    both = ("--config", tmp_path / "c", "--state-dir", tmp_path)
    one_line(say("restore", tmp_path / "b", *both), 2, "either --config FILE or --state-dir DIR")


def test_bad_archives_and_empty_states_are_one_line(tmp_path: Path, say: Say) -> None:
    bad, state = tmp_path / "bad.tar.gz", tmp_path / "state"
    bad.write_bytes(b"no archive")
    one_line(say("restore", bad, "--state-dir", state), 2, str(bad))
    one_line(say("restore", tmp_path / "gone", "--state-dir", state), 2, "gone: no such file")
    one_line(say("backup", tmp_path / "b", "--state-dir", tmp_path / "none"), 2, "no state to save")
