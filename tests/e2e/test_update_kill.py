"""kill -9 at every transition of the update machine: a model always runs, and the outcome is told.

The transitions come from the table. Each is brought about in a real process that kills itself
before the journal is replaced, and once more just after; then the device starts again.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from update_driver import Plan, candidate

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.eventreader import EventReader
from edge_rt.core.update import TABLE, Event
from edge_rt.core.update_record import Record, State
from edge_rt.runtime.update_journal import Journal

OUTCOMES = ("model.confirmed", "model.rejected", "model.rolled_back")
LASTING = ("shadow-lasts", "trial-lasts")
# On the way to a state nothing before it is refused.
ENTRIES = [(state, event) for state, row in TABLE.items() for event in row]


class Driver:
    """The process that forks one device after the other."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), *sys.path]))
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve().parents[1] / "update_driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": path},
        )

    def begin(self, plan: Plan) -> int:
        """Start a device; its pid."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(msgspec.json.encode(plan).decode() + "\n")
        return int(msgspec.json.decode(self.process.stdout.readline())["pid"])

    def end(self) -> dict[str, Any]:
        assert self.process.stdout
        answer: dict[str, Any] = msgspec.json.decode(self.process.stdout.readline())
        return answer

    def run(self, plan: Plan) -> dict[str, Any]:
        self.begin(plan)
        return self.end()

    def finish(self, plan: Plan) -> dict[str, Any]:
        """A run that nothing ends."""
        answer = self.run(plan)
        assert "code" not in answer, f"the device ended by itself: {answer}"
        return answer


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    made = Driver()
    yield made
    assert made.process.stdin and made.process.stdout
    made.process.stdin.close()
    made.process.wait(30)
    made.process.stdout.close()


@pytest.fixture(scope="module")
def states(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> dict[State, Path]:
    """A state folder in each state of the machine, with version 1.1.0 confirmed in slot a."""
    root = tmp_path_factory.mktemp("states")
    base = root / "base"
    (base / "updates" / "staging").mkdir(parents=True)
    answer = driver.finish(Plan(state=str(base), version="1.1.0"))
    assert answer["went"] == ["1.1.0"]
    found = {}
    for state in State:
        folder = root / state.value
        shutil.copytree(base, folder)
        if state is not State.IDLE:
            late = state in (State.INSTALLING, State.TRIAL)
            lasting = LASTING[1:] if late else LASTING
            turns = Plan(state=str(folder), refuse=lasting, stop_in=state.value)
            if state is State.FETCHING:
                turns = Plan(state=str(folder), act="chosen", rounds=0)
            reach(driver, turns, state)
        found[state] = folder
    return found


def reach(driver: Driver, plan: Plan, state: State) -> None:
    driver.finish(plan)
    record = Journal(Path(plan.state), "fall").load()
    assert record.state is state, f"{record.state} instead of {state}"


def told(state: Path) -> list[str]:
    """`model.<what> <version>` of each event in the log."""
    reader = EventReader(state / "events.db")
    try:
        events = [stored.event for stored in reader.read(0, 1000)]
    finally:
        reader.close()
    return [f"{e.kind}.{e.what} {e.data['version']}" for e in events if e.kind == "model"]


def check(state: Path) -> Record:
    """Whatever has happened: what a start would run is whole, and so is what it goes back to."""
    record = Journal(state, "fall").load()
    for place in {record.live, record.previous} - {"factory"}:
        manifest = read_bundle(state / "models" / "fall" / place).manifest
        assert manifest.version == record.contents[place].version
    return record


def test_the_driver_reaches_every_state(states: dict[State, Path]) -> None:
    assert set(states) == set(State)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("state", "event"), ENTRIES)
def test_killed_at_a_transition(
    state: State,
    event: Event,
    moment: str,
    driver: Driver,
    states: dict[State, Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    shutil.copytree(states[state], folder)
    plan = Plan(state=str(folder), act=event.value, refuse=LASTING, rounds=0, kill=moment)
    assert driver.run(plan) == {"code": -signal.SIGKILL}
    check(folder)
    answer = driver.finish(Plan(state=str(folder)))
    record = check(folder)
    assert record.state is State.IDLE and not record.notices
    assert answer["started"] in ("1.0.0", "1.1.0", "2.0.0")
    outcomes = [line for line in told(folder) if line.endswith(" 2.0.0")]
    assert [line for line in outcomes if line.startswith(OUTCOMES)], "nobody heard how it ended"
    if record.live != "factory":
        assert record.running in (candidate("1.1.0"), candidate("2.0.0"))


@pytest.mark.parametrize("stage", ["", "self_test", "shadow", "fits", "go", "trial"])
@pytest.mark.release
def test_killed_at_every_change_of_a_file(
    stage: str, driver: Driver, states: dict[State, Path], tmp_path: Path
) -> None:
    """The whole way of a candidate, once for each change that it makes to the state folder."""
    refuse = (stage,) if stage else ()
    whole = tmp_path / "whole"
    shutil.copytree(states[State.IDLE], whole)
    changes = driver.finish(Plan(state=str(whole), refuse=refuse))["changes"]
    assert changes > 20  # a way that ends at the self-test has fewest
    for n in range(1, changes + 1):
        folder = tmp_path / f"state-{n}"
        shutil.copytree(states[State.IDLE], folder)
        plan = Plan(state=str(folder), refuse=refuse, kill_at=n)
        if "code" not in driver.run(plan):
            # When the log has a notice is up to its thread: a write more or less at the end.
            assert n > changes - 6
            break
        check(folder)
        driver.finish(Plan(state=str(folder), refuse=refuse))
        assert check(folder).state is State.IDLE
        assert any(x.startswith(OUTCOMES) and x.endswith(" 2.0.0") for x in told(folder)), n
        shutil.rmtree(folder)


def killed_at_random(
    count: int, seed: int, driver: Driver, start: Path, folder: Path
) -> tuple[int, set[str]]:
    """Kill a device `count` times at moments of chance, each release after the other; kills that
    met a device still at work, and the states they met."""
    chance = random.Random(seed)
    whole = folder.with_name("whole")
    shutil.copytree(start, whole)
    began = time.monotonic()
    driver.finish(Plan(state=str(whole), version="2.9.0"))
    span = time.monotonic() - began  # of a whole way on this machine, now
    shutil.copytree(start, folder)
    met: set[str] = set()
    hits = 0
    for n in range(count):
        version = f"3.{n // 3}.0"  # a release survives a few kills, then the next one comes
        refuse = chance.choice(((), (), ("self_test",), ("shadow",), ("trial",), ("go",)))
        pid = driver.begin(Plan(state=str(folder), version=version, refuse=refuse))
        time.sleep(chance.uniform(0.0, span))  # the moment is what is tried
        with contextlib.suppress(ProcessLookupError):  # it was done already, and has been reaped
            os.kill(pid, signal.SIGKILL)
        hits += "code" in driver.end()
        met.add(check(folder).state.value)
    driver.finish(Plan(state=str(folder), version="4.0.0"))
    assert check(folder).state is State.IDLE
    return hits, met


def test_killed_at_random_moments(
    driver: Driver, states: dict[State, Path], tmp_path: Path
) -> None:
    hits, _ = killed_at_random(12, 1, driver, states[State.IDLE], tmp_path / "state")
    assert hits > 3


@pytest.mark.release
def test_killed_at_200_random_moments(
    driver: Driver, states: dict[State, Path], tmp_path: Path
) -> None:
    hits, met = killed_at_random(200, 2, driver, states[State.IDLE], tmp_path / "state")
    assert hits > 50 and len(met) > 3, met  # a machine whose speed changes misses more
