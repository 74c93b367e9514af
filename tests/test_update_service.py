"""The thread `updates`: what a catalog says leads to the right moves, and to the right wishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_update_task import House
from update_driver import Device, Drive, candidate

from edge_rt.core.catalog import Catalog, Release, Rollout
from edge_rt.core.errors import DaemonError
from edge_rt.core.fetch import PullRules
from edge_rt.core.update_record import State
from edge_rt.core.update_task import Answer
from edge_rt.runtime.update_download import Download, kept
from edge_rt.runtime.update_service import UpdateService
from edge_rt.runtime.update_source import Listener

PATIENCE_S = 30.0


def release(version: str, state: str = "active", percent: float = 100.0, **more: Any) -> Release:
    given: dict[str, Any] = {
        **{"name": "tiny", "task": "fall", "version": version, "size": 10, "chunk_bytes": 1024},
        **{"sha256": candidate(version).sha256, "chunks": ("0" * 64,), "security_epoch": 0},
        **{"minimum_runtime": "0.1.0", "rollout": Rollout(percent=percent, seed="s")},
        **{"state": state, **more},
    }
    return Release(**given)


class Shelf:
    """A source whose releases are at hand (update_source.Source)."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.listener: Listener | None = None
        self.wanted: list[str] = []
        self.discarded: list[str] = []
        self.spoiled = ""
        self.slow = False

    def start(self, listener: Listener) -> None:
        self.listener = listener

    def offer(self, *releases: Release) -> None:
        assert self.listener is not None
        self.listener.catalog(Catalog(releases=releases))

    def want(self, release: Release | None) -> None:
        assert self.listener is not None
        if release is None or self.wanted[-1:] == [release.version]:
            return
        self.wanted.append(release.version)
        if release.version == self.spoiled:
            self.listener.failed(release, "what was signed is no bundle")
        elif not self.slow:
            self._house.drive.fetch(release.version)
            self.listener.staged(release, self._house.drive.staged(release.sha256))

    def discard(self, sha256: str) -> None:
        self.discarded.append(sha256)

    def status(self) -> dict[str, Any]:
        return {"phase": "idle"}

    def stop(self, timeout_s: float) -> bool:
        return True


class Site:
    """A service over a house, and what it has reported."""

    def __init__(
        self, folder: Path, house: House | None = None, leftovers: Iterable[str] = ()
    ) -> None:
        self.house = house or House(folder / "state")
        self.shelf = Shelf(self.house)
        self.reports: list[dict[str, Any]] = []
        self.service = UpdateService(
            self.shelf,
            [self.house.drive.task],
            device="hall",
            version="0.1.0",
            changed=self.reports.append,
            turn_s=0.02,
            leftovers=leftovers,
        )
        self.service.start()

    @property
    def state(self) -> State:
        return self.house.drive.task.record.state

    def wait(self, condition: Callable[[], Any]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"{self.service.status()} {self.house.log.told}"
            time.sleep(0.01)  # the service's thread can only be watched

    def told(self, event: str) -> None:
        self.wait(lambda: event in self.house.log.told)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.service.close()


def test_the_newest_release_for_this_device_is_taken(site: Site) -> None:
    others = (release("3.0.0", percent=0.0), release("2.0.0", name="other"), release("1.1.0"))
    site.shelf.offer(*others, release("1.2.0"))
    site.told("confirmed 1.2.0")
    assert site.shelf.wanted == ["1.2.0"]
    site.wait(lambda: site.shelf.discarded == [candidate("1.2.0").sha256])
    done = {"version": "1.2.0", "state": "idle"}
    site.wait(lambda: done.items() <= site.service.report()["fall"].items())
    states = [report["fall"]["state"] for report in site.reports]
    assert states[0] == "idle" and states[-1] == "idle"
    # What takes its time is told of when it begins, not when it is over.
    assert {"testing", "challenging", "trial"} <= set(states)
    assert site.service.problems() == []


@pytest.mark.parametrize("state", ["paused", "aborted", "withdrawn", ""])
def test_what_is_not_active_any_more_stops_on_its_way(site: Site, state: str) -> None:
    site.house.expect("shadow-lasts")
    site.shelf.offer(release("1.1.0"))
    site.wait(lambda: site.state is State.SHADOWING)
    site.shelf.offer(*([release("1.1.0", state)] if state else []))
    site.told("rejected 1.1.0")
    assert site.house.log.data[-1]["final"] is False
    assert (state or "no longer listed") in site.house.log.data[-1]["reason"]


@pytest.mark.parametrize(("state", "leaves"), [("paused", False), ("aborted", True)])
def test_on_trial_an_aborted_release_is_left_and_a_paused_one_kept(
    site: Site, state: str, leaves: bool
) -> None:
    site.house.expect("trial-lasts")
    site.shelf.offer(release("1.1.0"))
    site.told("activated 1.1.0")
    site.shelf.offer(release("1.1.0", state))
    if leaves:
        site.told("rolled_back 1.1.0")
    else:
        site.house.expect()
        site.told("confirmed 1.1.0")
        site.shelf.offer(release("1.1.0", "aborted"))  # who has it for good keeps it
        site.shelf.offer(release("1.1.0", "withdrawn"))
        site.told("rolled_back 1.1.0")
    assert site.house.runs == "1.0.0"


def test_what_was_signed_and_cannot_be_used_is_refused(site: Site) -> None:
    site.shelf.spoiled = "1.1.0"
    site.shelf.offer(release("1.1.0"))
    site.told("rejected 1.1.0")
    assert site.house.log.data[-1]["reason"] == "what was signed is no bundle"
    site.shelf.offer(release("1.1.0"), release("1.0.5"))
    site.told("confirmed 1.0.5")


def test_a_newer_release_is_fetched_in_place_of_one_that_is_under_way(site: Site) -> None:
    site.shelf.slow = True
    site.shelf.offer(release("1.1.0"))
    site.wait(lambda: site.shelf.wanted == ["1.1.0"])
    site.shelf.slow = False
    site.shelf.offer(release("1.1.0"), release("1.2.0"))
    site.told("confirmed 1.2.0")
    assert candidate("1.1.0").sha256 in site.shelf.discarded


class Barren(Shelf):
    """One release cannot be had, for a reason that is not its own."""

    def want(self, release: Release | None) -> None:
        assert self.listener is not None
        if release is not None and release.version == "1.1.0":
            self.wanted.append(release.version)
            self.listener.failed(None, "chunk 3 is not there")
        else:
            super().want(release)


def test_what_cannot_be_fetched_does_not_keep_others_from_coming(tmp_path: Path) -> None:
    house = House(tmp_path / "state")
    other = Drive(tmp_path / "state", Device(), house.log, kind="face-embed")
    shelf = Barren(house)
    tasks = [house.drive.task, other.task]
    service = UpdateService(
        *(shelf, tasks), device="hall", version="0.1.0", changed=lambda report: None, turn_s=0.02
    )
    service.start()
    try:
        shelf.offer(release("1.1.0"), release("1.2.0", task="face-embed"))
        end_s = time.monotonic() + PATIENCE_S
        while "confirmed 1.2.0" not in house.log.told:
            assert time.monotonic() < end_s, f"{service.status()} {house.log.told}"
            time.sleep(0.01)
        assert shelf.wanted.count("1.2.0") == 1 and house.drive.task.record.state is State.FETCHING
    finally:
        service.close()


def test_what_an_earlier_run_has_fetched_does_not_stay(tmp_path: Path) -> None:
    """Else each candidate that outlives a start leaves its staging folder behind."""
    house = House(tmp_path / "state")
    house.take("1.1.0", "shadow-lasts")
    house.start("shadow-lasts")
    updates = tmp_path / "state" / "updates"
    (updates / "staging" / f"{'c' * 64}.new").mkdir()
    (updates / "download").mkdir()
    (updates / "download" / f"{'d' * 64}.part").touch()
    mine = candidate("1.1.0").sha256
    assert kept(updates) == {mine, "c" * 64, "d" * 64}
    site = Site(tmp_path, house, kept(updates))
    site.wait(lambda: {"c" * 64, "d" * 64} <= set(site.shelf.discarded))
    assert mine not in site.shelf.discarded and site.state is State.SHADOWING
    site.shelf.offer(release("1.1.0", "withdrawn"))
    site.wait(lambda: mine in site.shelf.discarded)
    site.service.close()
    download = Download(updates, PullRules(), 0, lambda task: Answer())
    for sha256 in site.shelf.discarded:
        download.discard(sha256)
    assert kept(updates) == set()


def test_rollback_by_command(site: Site) -> None:
    with pytest.raises(DaemonError, match="nothing to go back to"):
        site.service.roll_back("fall", "a test")
    with pytest.raises(DaemonError, match="there are fall"):
        site.service.roll_back("face-embed", "a test")
    site.shelf.offer(release("1.1.0"))
    site.told("confirmed 1.1.0")
    assert site.service.roll_back("fall", "a test")["version"] == "1.0.0"
    site.told("rolled_back 1.1.0")
    assert site.house.log.data[-1]["reason"] == "asked for by a test"
    site.wait(lambda: site.service.status()["tasks"]["fall"]["refused"] == ["1.1.0"])


def test_a_task_that_declines_says_why_and_fetches_nothing(site: Site) -> None:
    site.house.drive.device.declines = "face models stay as installed"
    site.shelf.offer(release("1.1.0"))
    site.told("rejected 1.1.0")
    assert site.house.log.data[-1]["reason"] == "face models stay as installed"
    assert site.shelf.wanted == [] and site.house.runs == "1.0.0"


def test_a_task_that_hangs_is_noticed(tmp_path: Path) -> None:
    house = House(tmp_path / "state")
    task, go, hangs = house.drive.task, threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        go.wait(PATIENCE_S)

    task.live.look = hang  # type: ignore[method-assign]
    made = Site(tmp_path, house)
    assert hangs.wait(PATIENCE_S)
    made.wait(lambda: made.service.stuck_s() > 0.1)
    go.set()
    made.wait(lambda: made.service.stuck_s() < 0.1)
    made.service.close()
    assert made.service.stuck_s() == 0.0
