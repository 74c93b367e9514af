"""The doctor over a fleet's root, journals and slots that are sound, damaged or gone."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from update_driver import make_bundle
from updates import PASSPHRASE, Fleet

from edge_rt.core.config import Config, parse_config
from edge_rt.core.update_record import Candidate, Record, State
from edge_rt.runtime.check import Check, run_checks
from edge_rt.runtime.doctor_updates import check_room, check_root, check_slots
from edge_rt.runtime.update_journal import Journal

NOW = datetime.now(UTC)


def config_for(state: Path, root: Path | str = "/no/root.json", more: str = "") -> Config:
    text = f"""
runtime.state_dir = "{state}"
[mqtt]
enabled = true
[updates]
enabled = true
fetch.root = "{root}"
{more}"""
    return parse_config(text, "test")


def root_line(config: Config, now: datetime = NOW) -> Check:
    (check,) = run_checks([("update root", lambda: check_root(config, now))])
    return check


def test_a_root_is_read_and_its_end_told(fleet: Fleet, tmp_path: Path) -> None:
    root = fleet.folder / "root.json"
    check = root_line(config_for(tmp_path, root))
    assert check.state == "ok" and f"{root}: version 1 is trusted until" in check.found
    later = root_line(config_for(tmp_path, root), NOW + timedelta(days=6 * 365))
    assert later.state == "failed" and "ended on" in later.found and "newer root" in later.remedy
    assert not (tmp_path / "updates").exists(), "the doctor changes nothing"


def test_a_newer_root_that_came_since_counts(fleet: Fleet, tmp_path: Path) -> None:
    mine = fleet.copy(tmp_path / "fleet")
    given = tmp_path / "root.json"
    shutil.copy(mine.folder / "root.json", given)
    mine.publisher().rotate("timestamp", lambda path: PASSPHRASE)
    held = tmp_path / "updates" / "trusted" / "root.json"
    held.parent.mkdir(parents=True)
    (newest,) = mine.folder.rglob("2.root.json")
    shutil.copy(newest, held)
    assert ": version 2 is trusted" in root_line(config_for(tmp_path, given)).found
    held.write_text("{}")
    assert root_line(config_for(tmp_path, given)).state == "failed"


@pytest.mark.parametrize("harm", ["gone", "garbage", "no root", "forged"])
def test_a_root_that_cannot_be_used_is_failed(fleet: Fleet, tmp_path: Path, harm: str) -> None:
    root = tmp_path / "root.json"
    if harm == "garbage":
        root.write_bytes(b"\xff")
    elif harm == "no root":
        root.write_text('{"signed": {"_type": "timestamp"}, "signatures": []}')
    elif harm == "forged":
        made = json.loads((fleet.folder / "root.json").read_text())
        made["signed"]["expires"] = "2099-01-01T00:00:00Z"
        root.write_text(json.dumps(made))
    check = root_line(config_for(tmp_path, root))
    assert (check.state, check.remedy) == ("failed", "give the device its fleet's root.json")
    assert check.found.startswith(f"{root}: ") and "\n" not in check.found


def live(state: Path) -> Journal:
    journal = Journal(state, "fall", "boot")
    candidate = Candidate("tiny", "1.1.0", "1" * 64)
    journal.slots.prepare()
    journal.slots.install(make_bundle(state / "staged", "1.1.0"), "a")
    journal.write(Record(live="a", contents={"a": candidate}, state=State.IDLE))
    return journal


def slot_lines(state: Path) -> list[Check]:
    return list(check_slots(config_for(state)))


def test_what_is_live_is_told_and_what_is_ill_is_failed(tmp_path: Path) -> None:
    assert slot_lines(tmp_path) == [], "a device that never had an update"
    journal = live(tmp_path)
    (check,) = slot_lines(tmp_path)
    assert (check.name, check.state) == ("slots fall", "ok")
    assert check.found == "live: tiny 1.1.0 in slot a, previous: factory"
    shutil.rmtree(journal.slots.folder("a"))
    (check,) = slot_lines(tmp_path)
    assert check.state == "failed" and "No such file" in check.found
    path = journal.folder / "journal.json"
    path.write_bytes(path.read_bytes()[:-9])
    (check,) = slot_lines(tmp_path)
    assert check.state == "failed" and str(path) in check.found and check.remedy
    assert path.exists(), "set aside by the daemon, not by the doctor"


def test_room_for_a_download(disk: Path, tmp_path: Path) -> None:
    (check,) = check_room(config_for(disk))
    assert check.state == "failed" and "nothing can be fetched" in check.found
    (check,) = check_room(config_for(tmp_path))
    assert check.state == "ok"
    (check,) = check_room(config_for(tmp_path, more="fetch.reserve_mb = 4096"))
    assert "of which 4096 stay free" in check.found
    assert list(check_room(parse_config("", "test"))) == []
