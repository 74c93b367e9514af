"""`edge-rt fleet report` on stores as a receiver keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diaries import START_S, Diary, stamp
from updates import Fleet

from edge_rt.cli import main
from edge_rt.core.comparison import Action, ComparePolicy
from edge_rt.core.errors import InputError
from edge_rt.fleet.report import report
from edge_rt.fleet.store import Store, read_store

DAYS = 24.0


def keep(folder: Path, diaries: list[Diary], until_h: float) -> Path:
    store = Store(folder)
    for diary in diaries:
        store.add(diary.arrived())
        store.note_status(diary.source, "online", stamp(0))
    store.note_listening(START_S + 3600.0 * until_h)
    store.close()
    return folder


def fleet_of(devices: int, taking: int, *, alarms: int = 0, failing: int = 0) -> list[Diary]:
    """Two weeks; `taking` get the version after the first, each of them with so many alarms."""
    diaries = []
    for number in range(devices):
        diary = Diary(f"dev{number}")
        diary.started()
        diary.hour = 3 * DAYS
        diary.alarm()
        if number < taking:
            diary.hour = 7 * DAYS
            diary.tell("activated")
            for n in range(alarms):
                diary.hour = 7.1 * DAYS + n
                diary.alarm()
            diary.hour = 8 * DAYS
            if number < failing:
                diary.tell("rolled_back", "the daemon ended 2 times, 1 is allowed")
            else:
                diary.tell("confirmed")
        diaries.append(diary)
    return diaries


def test_who_is_compared_with_whom(tmp_path: Path) -> None:
    diaries = fleet_of(30, 15, failing=1)
    found = report(keep(tmp_path, diaries, 14 * DAYS), "1.1.0", ComparePolicy())
    days = {
        name: round(sum(e.days for e in arm.values()), 6)
        for name, arm in found.arms._asdict().items()
    }
    # Rolled back after a day: the six days after it are in no arm.
    assert days == {"treated": 14 * 7 + 1, "others": 15 * 7, "before": 15 * 7}
    assert sum(e.counts["alarm"] for e in found.arms.before.values()) == 15
    assert sum(e.counts["alarm"] for e in found.arms.others.values()) == 0
    assert found.states == {"confirmed": 14, "rolled back": 1}
    assert found.reasons == {"the daemon ended 2 times, 1 is allowed": 1}
    week = report(tmp_path, "1.1.0", ComparePolicy(), look_back_days=3)
    assert sum(e.days for e in week.arms.before.values()) == pytest.approx(45)


@pytest.mark.parametrize(
    ("made", "action", "command"),
    [
        ({"devices": 60, "taking": 20}, "advance", "edge-rt fleet rollout set fall-waist 1.1.0"),
        ({"devices": 10, "taking": 2}, "hold", None),
        (
            {"devices": 40, "taking": 10, "failing": 5},
            "abort",
            "edge-rt fleet rollout abort fall-waist 1.1.0",
        ),
        (
            {"devices": 40, "taking": 10, "alarms": 6},
            "abort",
            "edge-rt fleet rollout abort fall-waist 1.1.0",
        ),
    ],
)
def test_the_command_recommends_and_changes_nothing(
    made: dict[str, Any],
    action: str,
    command: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep(tmp_path, fleet_of(**made), 14 * DAYS)
    words = ["fleet", "report", "1.1.0", "--store", str(tmp_path)]
    before = {
        path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".sqlite-shm"
    }
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recommendation"] == action, found["reasons"]
    assert (found["command"] or "").startswith(command or "") and bool(found["command"]) is bool(
        command
    )
    assert main([*words, "--check"]) == (0 if action == "advance" else 1)
    shown = capsys.readouterr().out
    assert action in shown and (command is None or command in shown)
    assert "treated" in shown and "ALARMS A DAY" in shown
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_next_step_is_that_of_the_signed_catalog(
    tmp_path: Path, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.publish(60_000, percent=10)
    store = keep(tmp_path / "store", fleet_of(60, 20), 14 * DAYS)
    words = ["fleet", "report", "1.1.0", "--store", str(store), "--in", str(fleet.folder), "--json"]
    for percent, step in ((10, "50"), (60, "100"), (100, None)):
        fleet.publisher().roll_out("fall-waist", "1.1.0", percent)
        assert main(words) == 0
        command = json.loads(capsys.readouterr().out)["command"]
        assert command == (step and f"edge-rt fleet rollout set fall-waist 1.1.0 {step}")


def test_other_thresholds_are_read_and_wrong_ones_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path / "store", fleet_of(10, 2), 14 * DAYS)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        "alarm_per_day = 1.0\ncrash_per_day = 1.0\ncancel_per_day = 1.0\n"
        "failures_tolerated = 0.95\n"
    )
    words = ["fleet", "report", "1.1.0", "--store", str(tmp_path / "store")]
    assert main([*words, "--policy", str(policy), "--check"]) == 0
    policy.write_text("alarms_per_day = 1.0\n")
    assert main([*words, "--policy", str(policy)]) == 2
    error = capsys.readouterr().err
    assert "alarms_per_day" in error and error.count("\n") == 1


def test_what_cannot_be_reported_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no store of events"):
        report(tmp_path / "nowhere", "1.1.0", ComparePolicy())
    keep(tmp_path / "old", fleet_of(2, 0), 14 * DAYS)
    with pytest.raises(InputError, match="no device has told of a model 1.1.0"):
        report(tmp_path / "old", "1.1.0", ComparePolicy())
    with pytest.raises(InputError, match="fall-wrist 1.1.0"):
        report(tmp_path / "old", "1.1.0", ComparePolicy(), name="fall-wrist")
    two = fleet_of(2, 2)
    two[0].add("model", "staged", {"name": "fall-wrist", "version": "1.1.0"})
    keep(tmp_path / "two", two, 14 * DAYS)
    with pytest.raises(InputError, match="fall-waist, fall-wrist; say which with --name"):
        report(tmp_path / "two", "1.1.0", ComparePolicy())
    assert report(tmp_path / "two", "1.1.0", ComparePolicy(), name="fall-waist").states


def test_devices_that_went_away_with_it_hold(tmp_path: Path) -> None:
    diaries = fleet_of(60, 20)
    keep(tmp_path, diaries, 14 * DAYS)
    store = Store(tmp_path)
    for diary in diaries[:8]:
        store.note_status(diary.source, "offline", stamp(13 * DAYS))
    store.close()
    found = report(tmp_path, "1.1.0", ComparePolicy())
    assert found.recommendation.action is Action.HOLD
    assert "8 of 20 devices that run it are not heard of" in found.recommendation.reasons[0]
    assert sum(e.days for e in found.arms.treated.values()) == pytest.approx(20 * 7 - 8)


def test_since_when_a_device_is_away_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for hour, status in ((1, "online"), (2, "online"), (3, "offline"), (4, "offline")):
        store.note_status("/edge-rt/home/dev1", status, stamp(hour))
    store.close()
    with read_store(tmp_path) as kept:
        assert kept.presence == {"/edge-rt/home/dev1": ("offline", stamp(3))}
        assert kept.listened_s == 0.0
