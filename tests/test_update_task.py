"""One task's update, driven over real files: every disk fault leaves a model that runs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
from update_driver import Device, Drive, candidate

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import DaemonError, StorageError
from edge_rt.core.update import Event, step
from edge_rt.core.update_record import State
from edge_rt.core.wire import Event as LoggedEvent
from edge_rt.runtime.update_journal import FLOOR_NAME, JOURNAL_NAME, Floor, Journal

TURNS = 20


class Log:
    """Takes what is announced, as the recorder does while the disk is well."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.data: list[Mapping[str, Any]] = []
        self.full = False

    def __call__(self, kind: str, what: str, data: Mapping[str, Any]) -> Future[LoggedEvent]:
        ticket: Future[LoggedEvent] = Future()
        if self.full:
            ticket.set_exception(StorageError("no room in memory"))
            return ticket
        self.told.append(f"{what} {data['version']}")
        self.data.append(data)
        ticket.set_result(None)  # type: ignore[arg-type]
        return ticket


class House:
    """A state folder, and the device that lives on it over its starts."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.log = Log()
        (state / "updates" / "staging").mkdir(parents=True, exist_ok=True)
        self.drive = self.start()

    def start(self, *refuse: str, watched: bool = True, boot_id: str = "") -> Drive:
        """A new process, as far as the files can tell; with a boot_id on a machine of that boot."""
        device = Device(refuse)
        self.drive = Drive(self.state, device, self.log, watched=watched, boot_id=boot_id)
        return self.drive

    def take(self, version: str, *refuse: str) -> None:
        """The catalog offers a version until nothing moves any more."""
        self.expect(*refuse)
        for _ in range(TURNS):
            self.drive.turn(version)

    def expect(self, *refuse: str) -> None:
        """What is refused from now on, of what is under way too."""
        self.drive.device.refuse.clear()
        self.drive.device.refuse.update(refuse)

    @property
    def runs(self) -> str:
        return (self.drive.device.went or [self.drive.running])[-1]

    def check(self) -> None:
        """What a start would run is whole."""
        record = Journal(self.state, "fall").load()
        if record.live != "factory":
            folder = self.state / "models" / "fall" / record.live
            assert read_bundle(folder).manifest.version == record.contents[record.live].version


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "state")


def test_a_release_is_fetched_tried_shadowed_and_confirmed(house: House) -> None:
    house.take("1.1.0")
    assert house.runs == "1.1.0"
    assert house.log.told == ["staged 1.1.0", "shadow 1.1.0", "activated 1.1.0", "confirmed 1.1.0"]
    assert house.log.data[2]["figures"] == {"took_ms": 1.0}
    assert house.drive.task.report() == {
        **{"name": "tiny", "version": "1.1.0", "slot": "a", "previous": "factory"},
        **{"state": "idle", "candidate": None},
    }
    house.take("1.2.0")
    assert house.runs == "1.2.0"
    assert house.start().running == "1.2.0", "and so does the next start"


@pytest.mark.parametrize(
    ("stage", "events"),
    [
        ("self_test", ["staged", "rejected"]),
        ("challenge", ["staged", "rejected"]),
        ("shadow", ["staged", "shadow", "rejected"]),
        ("fits", ["staged", "shadow", "rejected"]),
        ("go", ["staged", "shadow", "rolled_back"]),
        ("trial", ["staged", "shadow", "activated", "rolled_back"]),
    ],
)
def test_a_bad_candidate_is_stopped_where_it_shows(
    house: House, stage: str, events: list[str]
) -> None:
    house.take("1.1.0")
    house.log.told.clear()
    house.take("2.0.0", stage)
    assert house.log.told == [f"{event} 2.0.0" for event in events]
    assert house.runs == "1.1.0" and house.drive.task.record.live == "a"
    assert house.start().running == "1.1.0"
    house.log.told.clear()
    house.take("2.0.0")
    assert house.log.told == [], "a refused version is not tried again"
    house.take("2.0.1")
    assert house.runs == "2.0.1"


def test_a_fault_of_our_own_is_told_once_and_tried_again_later(house: House) -> None:
    house.take("1.1.0", "self_test-fails")
    assert house.log.told == ["staged 1.1.0", "rejected 1.1.0"]
    assert house.log.data[-1]["final"] is False
    assert "no space left" in house.drive.task.status()["problem"]
    house.take("1.1.0")
    assert house.runs == "1.0.0", "not at once"
    house.drive.clock.now_s += 3601.0
    house.take("1.1.0")
    assert house.runs == "1.1.0" and not house.drive.task.status()["problem"]


def test_a_newer_release_takes_the_place_of_one_on_the_way(house: House) -> None:
    house.take("1.1.0", "shadow-lasts")
    assert house.drive.task.record.state is State.SHADOWING
    house.take("1.2.0")
    assert house.runs == "1.2.0"
    assert "rejected 1.1.0" in house.log.told and "confirmed 1.2.0" in house.log.told


def test_a_trial_is_finished_before_the_next_release_comes(house: House) -> None:
    house.take("1.1.0", "trial-lasts")
    house.take("1.2.0", "trial-lasts")
    assert house.drive.task.record.state is State.TRIAL and house.runs == "1.1.0"
    house.take("1.2.0")
    assert house.runs == "1.2.0"


def test_rollback_by_hand(house: House) -> None:
    with pytest.raises(DaemonError, match="nothing to go back to"):
        house.drive.task.roll_back("a test")
    house.take("1.1.0")
    house.take("1.2.0")
    assert house.drive.task.roll_back("a test")["version"] == "1.1.0"
    assert house.runs == "1.1.0" and house.start().running == "1.1.0"
    house.take("1.2.0")
    assert house.runs == "1.1.0", "what a person has left does not come back by itself"
    assert "rolled_back 1.2.0" in house.log.told
    assert house.drive.task.roll_back("a test")["version"] == "1.0.0"


def test_a_withdrawn_release_is_left_wherever_it_stands(house: House) -> None:
    sha256 = candidate("1.1.0").sha256
    house.take("1.1.0", "shadow-lasts")
    house.drive.task.withdraw(sha256, "withdrawn by the publisher")
    assert house.drive.task.record.state is State.IDLE
    house.take("1.1.0", "trial-lasts")
    house.drive.task.withdraw(sha256, "withdrawn by the publisher")
    house.drive.turn()
    assert house.runs == "1.0.0"
    house.take("1.1.0")
    house.take("1.2.0", "shadow-lasts")
    house.drive.task.withdraw(sha256, "withdrawn by the publisher")  # the live one, meanwhile
    house.drive.turn()
    assert house.runs == "1.0.0" and "rolled_back 1.1.0" in house.log.told


# ---- starts ----


def test_two_failed_starts_on_trial_lead_back(house: House) -> None:
    house.take("1.1.0")
    house.take("2.0.0", "trial-lasts")
    # The process ends without a word: after the swap, and after one more start.
    assert house.start("trial-lasts").running == "2.0.0"
    assert house.start("trial-lasts").running == "1.1.0"
    house.drive.turn()
    assert house.log.told[-1] == "rolled_back 2.0.0"
    assert "2 starts in a row" in house.log.data[-1]["reason"]


def test_power_cuts_soon_after_starts_leave_a_trial_alone(house: House) -> None:
    """The factory model's start is not counted: the swap is the first thing that is written."""
    house.take("2.0.0", "trial-lasts")
    for boot in ("second", "third", "fourth"):
        assert house.start("trial-lasts", boot_id=boot).running == "2.0.0"
    assert house.start("trial-lasts", boot_id="fourth").running == "2.0.0"
    assert house.start("trial-lasts", boot_id="fourth").running == "1.0.0", "two crashes"
    house.drive.turn()
    assert "2 starts in a row" in house.log.data[-1]["reason"]


def test_a_trial_that_the_machine_did_not_bear_is_tried_once_more(house: House) -> None:
    house.take("1.1.0")
    house.take("2.0.0", "trial-cut")
    assert house.runs == "1.1.0" and house.log.told[-1] == "rolled_back 2.0.0"
    assert house.log.data[-1]["final"] is False
    house.take("2.0.0")
    assert house.runs == "1.1.0", "not at once"
    house.drive.clock.now_s += 3601.0
    house.take("2.0.0", "trial-cut")
    assert house.log.told.count("rolled_back 2.0.0") == 2 and "final" not in house.log.data[-1]
    house.drive.clock.now_s += 3601.0
    house.take("2.0.0")
    assert house.runs == "1.1.0"


@pytest.mark.parametrize("stage", ["shadow", "trial"])
def test_what_another_version_has_seen_is_seen_anew(house: House, stage: str) -> None:
    house.take("1.1.0", f"{stage}-lasts")
    house.drive.journal.keep_progress({"of": "another version"})
    house.start(f"{stage}-lasts")
    house.drive.turn()
    assert house.drive.task.status()["watching"] == {"windows": 1}
    assert "rejected 1.1.0" not in house.log.told
    house.take("1.1.0")
    assert house.log.told[-1] == "confirmed 1.1.0"


def test_a_swap_that_held_does_not_count_either(house: House) -> None:
    """Else a power cut a day later, and one more soon after, would end the trial."""
    house.drive.clock.now_s += 61.0
    house.take("1.1.0", "trial-lasts")
    assert house.drive.task.record.loads == 1
    house.drive.clock.now_s += 61.0
    house.drive.turn()
    assert house.drive.task.record.loads == 0
    house.start("trial-lasts")
    assert house.start("trial-lasts").running == "1.1.0"


def test_starts_that_were_asked_to_end_do_not_count(house: House) -> None:
    house.take("2.0.0", "trial-lasts")
    for _ in range(5):
        house.drive.task.close()
        assert house.start("trial-lasts").running == "2.0.0"


def test_a_slot_that_cannot_be_opened_is_left(house: House) -> None:
    house.take("1.1.0")
    house.take("1.2.0")
    (house.state / "models" / "fall" / "b" / "tiny.tflite").write_bytes(b"bad sector")
    assert house.start().running == "1.1.0"
    shutil.rmtree(house.state / "models" / "fall" / "a")
    assert house.start().running == "1.0.0"
    house.drive.turn()
    assert house.log.told[-2:] == ["rolled_back 1.2.0", "rolled_back 1.1.0"]
    house.take("1.2.0")
    assert house.runs == "1.2.0", "what broke on this disk may come again"


def test_what_was_not_tried_does_not_run(house: House) -> None:
    """The staging folder is lost while the former bundle is still in the slot."""
    house.take("1.1.0")
    house.take("1.2.0")
    house.take("1.3.0", "shadow-lasts")
    journal = house.drive.journal
    shutil.rmtree(house.drive.staged(candidate("1.3.0").sha256))
    journal.write(step(journal.record, Event.PASSED))
    assert journal.record.state is State.INSTALLING and journal.slots.folder("a").is_dir()
    house.drive.turn()
    house.drive.turn()
    assert house.runs == "1.2.0" and house.drive.task.record.state is State.IDLE
    assert house.log.told[-1] == "rejected 1.3.0" and house.log.data[-1]["final"] is False
    house.drive.clock.now_s += 3601.0
    house.take("1.3.0")
    assert house.runs == "1.3.0"


@pytest.mark.parametrize("lasts", ["shadow-lasts", "trial-lasts"])
def test_a_manifest_that_rots_is_not_run(house: House, lasts: str) -> None:
    """It alone is in no list of hashes: another digit would pass for another threshold."""
    house.take("1.1.0")
    house.take("2.0.0", lasts)
    record = house.drive.task.record
    slot = house.state / "models" / "fall" / record.live
    folder = house.drive.staged(candidate("2.0.0").sha256) if "shadow" in lasts else slot
    path = folder / "model.toml"
    text = path.read_text()
    assert "value = 1.0" in text
    path.write_text(text.replace("value = 1.0", "value = 1.9"))
    drive = house.start()
    assert drive.running == "1.1.0", "the one before"
    drive.turn()
    assert drive.task.record.running.version == "1.1.0"  # type: ignore[union-attr]
    assert drive.task.record.state is State.IDLE
    assert "not as it was unpacked" in house.log.data[-1]["reason"]
    house.check()


@pytest.mark.parametrize(
    ("pinned", "reason"),
    [(True, "not as it was unpacked"), (False, "in the place of tiny 1.2.0")],
)
def test_a_slot_with_another_bundle_in_it_is_left(house: House, pinned: bool, reason: str) -> None:
    house.take("1.1.0")
    house.take("1.2.0")
    if not pinned:
        journal = house.drive.journal
        journal.write(msgspec.structs.replace(journal.record, manifests={}))
    slots = house.state / "models" / "fall"
    shutil.rmtree(slots / "b")
    shutil.copytree(slots / "a", slots / "b")
    assert house.start().running == "1.1.0"
    assert house.drive.task.record.live == "a"
    house.drive.turn()
    assert reason in house.log.data[-1]["reason"]


def test_a_person_does_not_go_back_below_the_floor_to_the_factory_s_model(house: House) -> None:
    """The command needs no signature."""
    house.take("1.1.0")
    StateFile(house.state / "models" / "fall" / FLOOR_NAME, Floor).save(Floor(2))
    house.start()
    with pytest.raises(DaemonError, match="factory model is below the security epoch 2"):
        house.drive.task.roll_back("a test")
    house.drive.device.security_epoch = 2
    assert house.drive.task.roll_back("a test")["version"] == "1.0.0"


def test_a_damaged_journal_means_the_factory_model_and_an_event(house: House) -> None:
    house.take("1.1.0")
    journal = house.state / "models" / "fall" / JOURNAL_NAME
    journal.write_bytes(journal.read_bytes()[:-7])
    assert house.start().running == "1.0.0"
    house.drive.turn()
    assert house.log.told[-1] == "rolled_back unknown"
    assert "journal of its slots is damaged" in house.log.data[-1]["reason"]
    assert journal.with_suffix(".damaged").exists()
    house.take("1.1.0")
    assert house.runs == "1.1.0"


def test_without_updates_a_trial_is_not_run_and_a_confirmed_slot_is(house: House) -> None:
    house.take("1.1.0")
    assert house.start(watched=False).running == "1.1.0"
    house.start()
    house.take("1.2.0", "trial-lasts")
    assert house.start(watched=False).running == "1.1.0"
    assert house.drive.task.record.state is State.IDLE


def test_the_floor_rises_when_an_epoch_is_confirmed(tmp_path: Path, house: House) -> None:
    task = house.drive.task
    newer = candidate("1.1.0").__class__("tiny", "1.1.0", candidate("1.1.0").sha256, 3)
    house.expect("trial-lasts")
    for _ in range(TURNS):
        task.offer(newer)
        house.drive.turn()
    assert task.record.state is State.TRIAL and task.journal.floor() == 0
    house.expect()
    house.drive.turn()
    house.drive.turn()
    assert task.record.state is State.IDLE and task.journal.floor() == 3
    house.take("1.2.0")
    assert house.runs == "1.1.0", "an older epoch does not come in any more"
    assert Journal(house.state, "fall").floor() == 3


def test_the_floor_has_risen_before_the_next_release_is_looked_at(house: House) -> None:
    """It may wait since the trial, and be of an older epoch."""
    task = house.drive.task
    replace = msgspec.structs.replace
    older = replace(candidate("1.2.0"), security_epoch=4)
    newer = replace(candidate("1.1.0"), security_epoch=5)
    for _ in range(TURNS):
        if task.record.state is not State.IDLE or task.record.running is None:
            task.offer(newer)
        else:
            task.offer(older)  # in the very turn after the confirmation
        house.drive.turn()
    assert house.runs == "1.1.0" and task.journal.floor() == 5
    assert Journal(house.state, "fall").floor() == 5


def test_a_notice_is_told_again_until_the_log_has_it(house: House) -> None:
    house.log.full = True
    house.take("1.1.0", "self_test")
    assert house.log.told == [] and len(house.drive.task.record.notices) == 2
    house.log.full = False
    house.start()
    house.drive.turn()
    assert house.log.told == ["staged 1.1.0", "rejected 1.1.0"]
    house.drive.turn()
    assert house.drive.task.record.notices == ()


# ---- disks ----


def fill(disk: Path) -> Callable[[], None]:
    """Leave no room; the function that is returned gives it back."""
    rubbish = disk / "rubbish"
    with rubbish.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return rubbish.unlink


def lock(disk: Path) -> Callable[[], None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return lambda: subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True) and None


@pytest.mark.parametrize("fault", [fill, lock])
def test_what_arrived_goes_on_once_the_disk_takes_it(
    disk: Path, fault: Callable[[Path], Callable[[], None]]
) -> None:
    """It is told once: the fetcher is done with it."""
    house = House(disk / "state")
    task, new = house.drive.task, candidate("1.1.0")
    task.offer(new)
    house.drive.fetch("1.1.0")
    mend = fault(disk)
    try:
        task.arrived(new.sha256)
        task.turn()
        assert task.record.state is State.FETCHING and task.problem
    finally:
        mend()
    house.drive.clock.now_s += 6.0
    task.turn()
    assert task.record.state is not State.FETCHING
    house.drive.told = new.sha256
    house.take("1.1.0")
    assert house.runs == "1.1.0" and task.problem == ""


@pytest.mark.parametrize("fault", [fill, lock])
@pytest.mark.parametrize("turns", range(8))
def test_a_full_or_read_only_disk_at_each_move(
    disk: Path, fault: Callable[[Path], Callable[[], None]], turns: int
) -> None:
    """From any move on: the device goes on watching, starts again, and in the end finishes."""
    house = House(disk / "state")
    house.take("1.1.0")
    house.drive.fetch("2.0.0")  # the fetcher reserves its own room and is tried by its own tests
    for _ in range(turns):
        house.drive.turn("2.0.0")
    before = house.runs
    mend = fault(disk)
    try:
        for _ in range(3):
            house.drive.turn("2.0.0")
            house.drive.clock.now_s += 6.0
        assert house.runs == before or house.runs in ("1.1.0", "2.0.0")
        house.check()
        assert house.start().running in ("1.1.0", "2.0.0")
        house.drive.turn("2.0.0")
    finally:
        mend()
    house.drive.clock.now_s += 7200.0
    house.take("2.0.0")
    house.check()
    assert house.drive.task.record.state is State.IDLE
    assert house.runs == "2.0.0" or "rolled_back 2.0.0" in house.log.told


@pytest.mark.parametrize("fault", [fill, lock])
def test_a_rollback_does_not_wait_for_the_disk(
    disk: Path, fault: Callable[[Path], Callable[[], None]]
) -> None:
    house = House(disk / "state")
    house.take("1.1.0")
    house.take("2.0.0", "trial-lasts")
    mend = fault(disk)
    try:
        house.expect("trial")
        house.drive.turn()
        assert house.runs == "1.1.0"
        # A start cannot count itself there, so it does not run what is on trial.
        assert house.start("trial-lasts").running == "1.1.0"
    finally:
        mend()
    house.drive.clock.now_s += 10.0
    house.drive.turn()
    house.drive.turn()
    assert house.start().running == "1.1.0"
    assert "rolled_back 2.0.0" in house.log.told
