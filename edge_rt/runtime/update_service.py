"""The thread `updates`: what the catalog offers goes to the tasks, their wishes to the fetcher."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from edge_rt.core.catalog import ON_OFFER, Catalog, Release, choose
from edge_rt.core.errors import DaemonError
from edge_rt.core.update_record import BY_PUBLISHER, Candidate, State
from edge_rt.runtime.update_source import Listener, Source
from edge_rt.runtime.update_task import TaskUpdate

log = logging.getLogger(__name__)

TURN_S = 0.5
# Catalogs and arrivals come minutes apart; the fetching thread must not wait for a self-test.
MAX_WAITING = 64
COMMAND_TIMEOUT_S = 10.0
CLOSE_S = 2.0
# A candidate in these states has not judged a live sample yet.
ON_THE_WAY = frozenset(State) - {State.IDLE, State.TRIAL}

_Item = (
    tuple[Literal["catalog"], Catalog, None]
    | tuple[Literal["staged"], Release, None]
    | tuple[Literal["failed"], Release | None, str]
    | tuple[Literal["rollback"], tuple[str, str], Future[dict[str, Any]]]
)


class UpdateService:
    """Runs in a thread of its own between `start` and `close`.

    source   None: nothing comes from afar, but what is there can be shown and rolled back
    device   name of this device, for rollouts; version: of this runtime
    changed  called with the report whenever that has changed; returns at once
    turn_s   looks this often what is to be done
    leftovers  sha256 of what an earlier run has fetched; what no task waits for is discarded
    """

    def __init__(
        self,
        source: Source | None,
        tasks: Sequence[TaskUpdate],
        *,
        device: str,
        version: str,
        changed: Callable[[dict[str, Any]], None],
        turn_s: float = TURN_S,
        leftovers: Iterable[str] = (),
    ) -> None:
        self._source = source
        self._tasks = {task.journal.task: task for task in tasks}
        self._device = device
        self._version = version
        self._changed = changed
        self._turn_s = turn_s
        self._catalog: Catalog | None = None
        self._inbox: queue.Queue[_Item] = queue.Queue(MAX_WAITING)
        self._failures = 0  # of fetching; the next one's turn
        self._wanted = set(leftovers)  # sha256 of what was fetched, to be discarded in the end
        self._note()
        self._turned_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)

    # ---- from any thread ----

    def start(self) -> None:
        """Begin."""
        self._turned_s = time.monotonic()
        self._thread.start()
        if self._source is not None:
            self._source.start(Listener(self._on_catalog, self._on_staged, self._on_failed))

    def close(self) -> None:
        """Stop; an update goes on where it stands at the next start."""
        if self._source is not None and not self._source.stop(CLOSE_S):
            log.warning("the fetching thread did not end in time")
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def stuck_s(self) -> float:
        """How long the thread has been at one task; 0 once it has ended."""
        return time.monotonic() - self._turned_s if self._thread.is_alive() else 0.0

    def report(self) -> dict[str, Any]:
        """By task: name and version of the live model, its slot, where an update stands."""
        return self._report

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        source = self._source.status() if self._source else None
        return {"tasks": self._status, "fetch": source}

    def problems(self) -> list[str]:
        """What a person should look at."""
        return [f"{task}: {s['problem']}" for task, s in self._status.items() if s["problem"]]

    def roll_back(self, task: str, by: str) -> dict[str, Any]:
        """Back to the previous model: the report of the task. Raises DaemonError."""
        answer: Future[dict[str, Any]] = Future()
        self._put(("rollback", (task, by), answer))
        try:
            return answer.result(COMMAND_TIMEOUT_S)
        except TimeoutError:
            raise DaemonError(
                "a candidate is being tested; the rollback follows, see edge-rt model status"
            ) from None

    # ---- on the fetching thread ----

    def _on_catalog(self, catalog: Catalog) -> None:
        self._put(("catalog", catalog, None))

    def _on_staged(self, release: Release, folder: Path) -> None:
        self._put(("staged", release, None))

    def _on_failed(self, release: Release | None, reason: str) -> None:
        if release is not None:
            self._put(("failed", release, reason))
            return
        with contextlib.suppress(queue.Full):  # the next failure tells as much
            self._inbox.put_nowait(("failed", None, reason))

    def _put(self, item: _Item) -> None:
        try:
            self._inbox.put(item, timeout=1.0)
        except queue.Full:
            raise DaemonError("the update thread hangs; see edge-rt status") from None

    # ---- in the service's thread ----

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._turned_s = time.monotonic()
            try:
                self._turn()
            except Exception:  # one bad turn may not end updates for ever, nor the model's watch
                log.exception("updates: unexpected failure")
                self._stopping.wait(TURN_S)
        for task in self._tasks.values():
            task.close()

    def _turn(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._take(self._inbox.get(timeout=self._turn_s))
        if self._catalog is not None:
            for task in self._tasks.values():
                self._compare(task, self._catalog)
        self._note()  # what begins now may take a minute
        for task in self._tasks.values():
            self._turned_s = time.monotonic()
            task.turn()
        self._want()
        self._note()

    def _take(self, item: _Item) -> None:
        match item:
            case ("catalog", catalog, _):
                self._catalog = catalog
            case ("staged", release, _):
                self._tasks[release.task].arrived(release.sha256)
            case ("failed", None, _):
                self._failures += 1
            case ("failed", release, reason):
                self._tasks[release.task].spoiled(release.sha256, reason)
            case ("rollback", (task, by), answer):
                try:
                    if task not in self._tasks:
                        known = ", ".join(self._tasks) or "none"
                        raise DaemonError(f"no models of task {task!r} run here; there are {known}")
                    answer.set_result(self._tasks[task].roll_back(by))
                except Exception as error:  # whoever asked has to hear of it
                    answer.set_exception(error)

    def _compare(self, task: TaskUpdate, catalog: Catalog) -> None:
        """What the catalog says of what is here, then what it offers."""
        record = task.record
        if record.running is not None:
            release = catalog.find(record.running.sha256)
            bad = ("withdrawn", "aborted") if record.state is State.TRIAL else ("withdrawn",)
            if release is not None and release.state in bad:
                task.withdraw(release.sha256, f"{release.state} {BY_PUBLISHER}")
        if record.state in ON_THE_WAY and record.candidate is not None:
            release = catalog.find(record.candidate.sha256)
            if release is None or release.state != "active":
                state = "no longer listed" if release is None else release.state
                task.withdraw(record.candidate.sha256, f"{state} {BY_PUBLISHER}")
        release = choose(
            catalog,
            task.journal.task,
            self._device,
            self._version,
            name=task.live.name,
            security_epoch=task.journal.floor(),
            refused=[refused.sha256 for refused in task.record.refused],
        )
        if release is not None:
            epoch = release.security_epoch
            task.offer(Candidate(release.name, release.version, release.sha256, epoch))

    def _want(self) -> None:
        """One release at a time, another one after a failure; what is not wanted any more is
        discarded."""
        if self._source is None:
            return
        on_the_way = {}
        for task in self._tasks.values():
            candidate = task.record.candidate
            if candidate is not None and task.record.state in ON_THE_WAY:
                on_the_way[candidate.sha256] = task.record.state
        fetching = [sha256 for sha256, state in on_the_way.items() if state is State.FETCHING]
        chosen = fetching[self._failures % len(fetching)] if fetching else ""
        release = self._catalog.find(chosen) if self._catalog else None
        if release is not None and release.state in ON_OFFER:
            self._wanted.add(release.sha256)
            self._source.want(release)
        elif self._catalog is not None:
            self._source.want(None)
        for sha256 in self._wanted - set(on_the_way):
            self._source.discard(sha256)
            self._wanted.discard(sha256)

    def _note(self) -> None:
        report = {name: task.report() for name, task in self._tasks.items()}
        self._status = {name: task.status() for name, task in self._tasks.items()}
        if report != getattr(self, "_report", None):
            self._report = report
            self._changed(report)
