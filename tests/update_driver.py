"""A process that drives one task's update over real files, and can end itself in the middle.

Run as `python tests/update_driver.py`: for each line of JSON on stdin (a Plan) it forks a child
that starts as the daemon does, acts, and then goes on until nothing is left to do. A line `{...}`
with how the child ended comes back.

The child counts what changes files (audit events of the interpreter, PEP 578) and may send itself
SIGKILL at one of them: before the n-th change of a file, or at the replacement of the journal.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_rt.adapters.bundle_files import read_bundle, write_manifest
from edge_rt.adapters.eventlog import EventLog
from edge_rt.core.errors import ModelError, StorageError
from edge_rt.core.update import Event, step
from edge_rt.core.update_record import Candidate, State
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps
from edge_rt.runtime.update_journal import Journal
from edge_rt.runtime.update_start import begin
from edge_rt.runtime.update_task import Rules, TaskUpdate

TURNS = 60  # far more than the longest way through the machine takes
CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link"}
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """state     the state folder
    version   what the catalog offers
    act       the event that is brought about first; empty: none
    refuse    stages at which the candidate is refused
    rounds    turns after the act; 0: end at once
    kill_at   before this change of a file (counted from 1)
    kill      "before" or "after" the journal is replaced for the first time; empty: not so
    """

    state: str
    version: str = "2.0.0"
    act: str = ""
    refuse: tuple[str, ...] = ()
    rounds: int = TURNS
    kill_at: int = 0
    kill: str = ""
    stop_in: str = ""


def make_bundle(folder: Path, version: str) -> Path:
    """Files and a manifest as a bundle has them; nothing that an engine could load."""
    folder.mkdir(parents=True)
    (folder / "tiny.tflite").write_bytes(version.encode() * 100)
    (folder / "CARD.md").write_text("# tiny\nMade by a test.\n")
    np.savez(folder / "golden.npz", input_0=np.ones((1, 1)), output_0=np.ones((1, 1)))
    write_manifest(
        folder,
        {
            **{"schema": 1, "task": "fall", "name": "tiny", "version": version},
            **{"model": "tiny.tflite", "license": "Apache-2.0", "minimum_runtime": "0.1.0"},
            **{"security_epoch": 0, "latency_budget_ms": 10.0},
            "golden": {"file": "golden.npz", "tolerance": 0.01},
            "provenance": {"source": "a test", "script": "tests/update_driver.py"},
            "input": {
                **{"kind": "window", "rate_hz": 50.0, "window": 8, "hop": 4},
                "channels": ["x", "y", "z"],
            },
            "output": {"kind": "score"},
            "decision": {"threshold": {"value": 1.0, "min": 0.0, "max": 2.0}},
        },
    )
    return folder


def candidate(version: str) -> Candidate:
    major, minor, patch = map(int, version.split("."))
    return Candidate("tiny", version, f"{major:02x}{minor:02x}{patch:02x}".ljust(64, "e"))


class Verdict(NamedTuple):
    passed: bool
    reasons: tuple[str, ...]
    figures: Mapping[str, Any]
    final: bool = True


class Watching:
    """A shadow or a trial that ends as `refuse` says: with its stage in there, badly."""

    def __init__(self, refuse: set[str], stage: str, seen: dict[str, Any] | None) -> None:
        self._windows = 0 if seen is None else seen["windows"]
        self._refuse = refuse
        self._stage = stage

    def verdict(self) -> Verdict | None:
        if f"{self._stage}-lasts" in self._refuse:
            return None
        cut = f"{self._stage}-cut" in self._refuse
        passed = self._stage not in self._refuse and not cut
        reasons = () if passed else ("the test said so",)
        return Verdict(passed, reasons, {"windows": 1}, not cut)

    def seen(self) -> dict[str, Any]:
        return {"windows": 1}

    def status(self) -> dict[str, Any]:
        return self.seen()

    def close(self) -> None: ...


class Device:
    """What a daemon has, as far as updates go (update_ports.Live and Tries)."""

    name, version, security_epoch = "tiny", "1.0.0", 0

    def __init__(self, refuse: tuple[str, ...] = ()) -> None:
        self.refuse = set(refuse)
        self.declines = ""
        self.went: list[str] = []

    def open(self, folder: Path | None) -> str:
        """The version that runs; raises what a damaged bundle raises."""
        return self.version if folder is None else read_bundle(folder).manifest.version

    def go(self, folder: Path | None) -> dict[str, Any]:
        self._judge("go")
        self.went.append(self.open(folder))
        return {"took_ms": 1.0}

    def look(self) -> None: ...

    def fits(self, folder: Path) -> None:
        self._judge("fits")
        self.open(folder)

    def shadow(self, folder: Path, seen: dict[str, Any] | None) -> Watching:
        self.open(folder)
        return Watching(self.refuse, "shadow", seen)

    def trial(self, seen: dict[str, Any] | None) -> Watching:
        return Watching(self.refuse, "trial", seen)

    def self_test(self, folder: Path) -> Mapping[str, Any]:
        self.open(folder)
        self._judge("self_test")
        return {"p95_ms": 1.0}

    def challenge(self, folder: Path) -> Mapping[str, Any]:
        self._judge("challenge")
        return {"caught": 1}

    def _judge(self, stage: str) -> None:
        if stage in self.refuse:
            raise ModelError(f"{stage} refused; make another model")
        if f"{stage}-fails" in self.refuse:
            raise StorageError(f"{stage}: no space left; free the disk")


class Clock:
    """Monotonic seconds that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Drive:
    """A started device; `turn` as the thread `updates` would, fetching included."""

    def __init__(
        self,
        state: Path,
        device: Device,
        announce: Any,
        *,
        watched: bool = True,
        boot_id: str = "",
        kind: str = "fall",
    ) -> None:
        self.state = state
        self.device = device
        self.clock = Clock()
        self.told = ""  # what arrived is told once, as the fetcher does
        self.journal = Journal(state, kind, boot_id)
        self.running = begin(self.journal, device.open, watched=watched)
        rules = Rules(settle_s=60.0, retry_s=3600.0)
        self.task = TaskUpdate(
            self.journal, device, device, self.staged, announce, rules, self.clock
        )

    def staged(self, sha256: str) -> Path:
        return self.state / "updates" / "staging" / sha256

    def fetch(self, version: str) -> None:
        """What the fetcher has done when it says so: a whole folder under its name."""
        folder = self.staged(candidate(version).sha256)
        if not folder.exists():
            new = folder.with_name("new")
            shutil.rmtree(new, ignore_errors=True)
            os.rename(make_bundle(new, version), folder)

    def turn(self, version: str = "", stop_in: str = "") -> None:
        if version:
            self.task.offer(candidate(version))
        record = self.task.record
        if record.state is State.FETCHING and record.candidate is not None:
            if self.told != record.candidate.sha256:
                self.fetch(record.candidate.version)
                self.told = record.candidate.sha256
                self.task.arrived(self.told)
        else:
            self.told = ""
        if self.task.record.state.value != stop_in:
            self.task.turn()

    def act(self, event: Event, version: str) -> None:
        """Bring this event about, the way it comes about on a device."""
        task, device = self.task, self.device
        sha256 = candidate(version).sha256
        match event:
            case Event.CHOSEN:
                task.offer(candidate(version))
            case Event.STAGED:
                self.fetch(version)
                task.arrived(sha256)
            case Event.PASSED | Event.ACTIVE:
                device.refuse -= {"shadow-lasts", "trial-lasts"}
                task.turn()
            case Event.REFUSED if task.record.state is State.FETCHING:
                task.spoiled(sha256, "what was signed is no bundle")
            case Event.REFUSED:
                device.refuse |= {"self_test", "challenge", "shadow", "fits", "trial"}
                device.refuse -= {"shadow-lasts", "trial-lasts"}
                task.turn()
            case Event.WITHDRAWN:
                running = task.record.running
                task.withdraw(sha256 if task.record.candidate else running.sha256, "withdrawn")  # type: ignore[union-attr]
            case Event.ROLLBACK:
                task.roll_back("a test")
            case Event.SETTLED:
                self.clock.now_s += 61.0
                task.turn()
            case _:
                self.journal.keep(step(self.journal.record, event, reason="the driver says so"))


def recorder_for(state: Path) -> Recorder:
    stamps = Stamps("/edge-rt/home/hall", "b" * 32)
    return Recorder(lambda draft, check: EventLog(state / "events.db", draft, check=check), stamps)


def work(plan: Plan) -> dict[str, Any]:
    state = Path(plan.state)
    files = FileWatch(state, plan)
    files.armed = plan.act in ("", "start")
    recorder = recorder_for(state)
    drive = Drive(state, Device(plan.refuse), recorder.announce)
    started = drive.running
    if plan.act and plan.act != "start":
        if drive.task.record.state is State.TRIAL and plan.act != "active":
            drive.task.turn()  # which the start itself leads to
        files.armed = True
        drive.act(Event(plan.act), plan.version)
    for _ in range(plan.rounds):
        drive.turn(plan.version, plan.stop_in)
        recorder.flush(5.0)
        if drive.task.record.state.value == plan.stop_in:
            break
        if _quiet(drive, plan.version):
            break
    recorder.close(5.0)
    return {
        "changes": files.count,
        "record": msgspec.to_builtins(drive.task.record),
        "started": started,
        "went": drive.device.went,
    }


def _quiet(drive: Drive, version: str) -> bool:
    record = drive.task.record
    handled = candidate(version) in (record.running, *record.refused)
    return record.state is State.IDLE and handled and not record.notices


class FileWatch:
    """Counts changes of files below `state`, and dies at the one that the plan names."""

    def __init__(self, state: Path, plan: Plan) -> None:
        self.count = 0
        self.armed = True
        self._below = str(state)
        self._plan = plan
        self._replaced = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not (event in CHANGES or event == "open" and _changes(arguments[2])):
            return
        path = str(arguments[0])
        if not self.armed or not path.startswith(self._below) or "events.db" in path:
            return
        self.count += 1
        journal = event == "os.rename" and str(arguments[1]).endswith("journal.json")
        before = journal and self._plan.kill == "before"
        if self._replaced or before or self.count == self._plan.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._replaced = journal and self._plan.kill == "after"


def _changes(flags: Any) -> bool:
    """Opened to be written, or a folder to be synced: what was renamed in it is so by then."""
    return isinstance(flags, int) and bool(flags & os.O_ACCMODE or flags & os.O_DIRECTORY)


def main() -> None:
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            plan = msgspec.json.decode(line, type=Plan)
            os.write(writing, msgspec.json.encode(work(plan)))
            os._exit(0)
        os.close(writing)
        print(msgspec.json.encode({"pid": pid}).decode(), flush=True)
        with os.fdopen(reading, "rb") as answer:
            said = answer.read()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        said = said if code == 0 else msgspec.json.encode({"code": code})
        print(said.decode(), flush=True)


if __name__ == "__main__":
    main()
