"""The device's side of updates: metadata and chunks from the broker to a staging folder.

On a thread and a connection of its own, which is dropped while an alarm awaits its receipt: what is
under way on a thin line would hold the receipt up. Decides nothing about releases: it verifies what
there is, fetches what it is told to, and hands both over.
"""

from __future__ import annotations

import logging
import random as random_module
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edge_rt.adapters import mqtt
from edge_rt.core.catalog import Release
from edge_rt.core.errors import StorageError
from edge_rt.core.fetch import Offer, PullRules
from edge_rt.core.fetch_config import FetchConfig
from edge_rt.core.mqtt_facts import Fact
from edge_rt.core.retry import Retry
from edge_rt.core.update_task import Answer, Task
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_link import Backoff
from edge_rt.core.uplink_wire import ROOT, Topics
from edge_rt.runtime.clock import clock_trusted
from edge_rt.runtime.update_child import run_child
from edge_rt.runtime.update_download import Download, Outcome
from edge_rt.runtime.update_line import Line
from edge_rt.runtime.update_refresh import Refreshing
from edge_rt.runtime.update_source import Listener
from edge_rt.runtime.uplink_connection import settings_of

log = logging.getLogger(__name__)

IDLE_S = 5.0
EXPIRED = "metadata has expired"
BUSY_S = 0.1  # how soon an alarm is noticed while something is under way


class Failed(NamedTuple):
    """A release that could not be fetched: how long it waits, and until when (monotonic)."""

    retry: Retry
    again_s: float


class Fetcher:
    """A `runtime.update_source.Source`. The public methods may be called from any thread.

    folder   the state folder's `updates`
    pause    whether an alarm awaits its receipt; asked often, must return at once
    wall     Unix seconds; synchronised: whether the kernel says that it may be believed
    Raises CredentialError for a TLS file or a secret that cannot be used.
    """

    def __init__(
        self,
        config: MqttConfig,
        topics: Topics,
        folder: Path,
        *,
        fetch: FetchConfig | None = None,
        pause: Callable[[], bool] = lambda: False,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        synchronised: Callable[[], bool] = clock_trusted,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        rules = fetch or FetchConfig()
        self._base = f"{ROOT}/{topics.fleet}/models"
        self._pause = pause
        self._clock, self._wall, self._synchronised = clock, wall, synchronised
        settings = settings_of(config, topics)
        self._line = Line(settings, rules.window, backoff or Backoff(), clock, random)
        self._refreshing = Refreshing(folder, rules, self._child, clock)
        pull = PullRules(window=rules.window, patience_s=rules.patience_s)
        self._download = Download(folder, pull, rules.reserve_mb << 20, self._child)
        self._retry_s = rules.retry_s, rules.retry_cap_s
        self._failed: dict[str, Failed] = {}  # by sha256
        self._listener = Listener(lambda c: None, lambda r, f: None, lambda r, why: None)
        self._lock = threading.Lock()  # of the three below
        self._wanted: Release | None = None
        self._over = ""  # sha256 of a wanted release that was staged or refused
        self._rubbish: list[str] = []  # sha256 of what is to be discarded
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="updates-fetch", daemon=True)
        self._phase = "idle"
        self._error = ""
        self._counts = dict.fromkeys(("pauses", "failures"), 0)
        self.wake = self._line.wake  # from any thread: look at `pause` now

    # ---- any thread ----

    def start(self, listener: Listener) -> None:
        """Begin; the catalog verified last is handed over first."""
        self._listener = listener
        self._thread.start()

    def want(self, release: Release | None) -> None:
        """Fetch this release and nothing else; None: nothing."""
        with self._lock:
            if self._wanted is None or release is None or not _same(self._wanted, release):
                self._wanted, self._over = release, ""
            if release is not None and release.sha256 in self._rubbish:
                self._rubbish.remove(release.sha256)
        self.wake()

    def discard(self, sha256: str) -> None:
        """Forget what was fetched of a release, its staging folder included."""
        with self._lock:
            self._rubbish.append(sha256)
            if self._wanted is not None and self._wanted.sha256 == sha256:
                self._wanted = None
        self.wake()

    def status(self) -> dict[str, Any]:
        """Now; plain values. `error` is why something failed last, empty once it succeeded."""
        return {
            "state": str(self._line.state),
            "phase": self._phase,
            "error": self._error or self._line.error,
            "connects": self._line.connects,
            "refreshes": self._refreshing.runs,
            **self._refreshing.info,
            **self._download.status(),
            "metadata": dict(self._refreshing.mirror.counts),
            **self._counts,
        }

    def stop(self, timeout_s: float = 3.0) -> bool:
        """End; False if the thread did not come back in time."""
        self._stop.set()
        if self._thread.ident is None:  # never started
            self._line.close()
            return True
        self.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ---- the thread ----

    def _run(self) -> None:
        if (catalog := self._refreshing.load()) is not None:
            self._listener.catalog(catalog)
        while not self._stop.is_set():
            try:
                self._turn()
            except StorageError as error:
                self._give_up_for_now(str(error))
            except Exception:  # a bug here must not end the device's only way to a better model
                log.exception("updates: starting over")
                self._give_up_for_now("a bug in the updates; see the log")
        self._download.close()
        self._line.close()

    def _turn(self) -> None:
        now = self._clock()
        self._tidy()
        if not self._refreshing.believes(self._wall(), self._synchronised()):
            self._phase = "waiting for the clock"
        elif self._pause():
            self._rest()
        else:
            self._phase = "idle"
            self._line.keep_up()
            if self._line.online:
                self._metadata(now)
            self._chunks(now)
        for fact in self._line.poll(self._timeout_s()):
            self._take(fact)

    def _rest(self) -> None:
        """An alarm awaits its receipt: the line is for that."""
        self._phase = "paused"
        if self._refreshing.mirror.collecting or self._download.asked:
            self._counts["pauses"] += 1
            self._hang_up("")

    def _timeout_s(self) -> float:
        if self._phase == "waiting for the clock":
            return 1.0
        if self._phase not in ("idle", EXPIRED):
            return BUSY_S
        now = self._clock()
        due = [self._line.due_s]
        if self._line.online:
            due.append(self._refreshing.due_s)
        if (wanted := self._next()) is not None and self._again_s(wanted) > now:
            due.append(self._again_s(wanted))
        return max(0.0, min(IDLE_S, min(due) - now))

    def _child(self, task: Task) -> Answer:
        return run_child(task, self._stop.is_set)

    def _tidy(self) -> None:
        with self._lock:
            rubbish, self._rubbish = self._rubbish, []
        for sha256 in rubbish:
            self._download.discard(sha256)
            self._failed.pop(sha256, None)

    # ---- metadata ----

    def _metadata(self, now: float) -> None:
        refreshing = self._refreshing
        if now >= refreshing.due_s and not refreshing.mirror.collecting:
            self._line.ask(map(self._topic, refreshing.begin()))
        if not refreshing.mirror.collecting:
            return
        self._phase = "metadata"
        if now < refreshing.mirror.ready_s():
            return
        names, catalog, reason = refreshing.verify(self._wall())
        if names:
            self._line.ask(map(self._topic, names))
            return
        self._line.leave(map(self._topic, refreshing.mirror.end()))
        if self._stop.is_set():
            return
        if reason:
            self._fail(None, f"metadata was refused: {reason}")
        else:
            self._error = ""
        if catalog is not None:
            self._listener.catalog(catalog)

    # ---- chunks ----

    def _next(self) -> Release | None:
        with self._lock:
            wanted = self._wanted
            if wanted is None or wanted.sha256 == self._over:
                return None
        return None if self._expired() else wanted

    def _expired(self) -> bool:
        return self._refreshing.expired(self._wall())

    def _chunks(self, now: float) -> None:
        wanted, pull = self._next(), self._download.pull
        if pull is not None and (wanted is None or not _same(pull.release, wanted)):
            self._leave_chunks()
            pull = None
        if wanted is None:
            if self._phase == "idle" and self._expired():
                self._phase = EXPIRED
            return
        if pull is None:
            if now < self._again_s(wanted):
                return
            pull = self._download.open(wanted)
        if pull.reason:
            reason = pull.reason
            self._leave_chunks()
            self._later(wanted)
            self._fail(None, reason)
        elif pull.done:
            self._phase = "unpacking"
            self._finish(wanted)
        elif self._line.online and not self._refreshing.mirror.collecting:
            self._phase = "chunks"
            self._line.leave(map(self._chunk_topic, pull.overdue(now)))
            self._line.ask(map(self._chunk_topic, pull.ask(now)))

    def _finish(self, release: Release) -> None:
        outcome = self._download.finish()
        if self._stop.is_set():
            return
        self._download.close()
        if outcome is Outcome.FAILED:
            self._later(release)
            self._fail(None, self._download.reason)
            return
        self._failed.pop(release.sha256, None)
        if outcome is Outcome.STAGED:
            self._error = ""
            self._listener.staged(release, self._download.staging(release.sha256))
        else:
            self._fail(release, self._download.reason)
        with self._lock:  # only now: whom it was told may not have heard it
            if self._wanted is not None and self._wanted.sha256 == release.sha256:
                self._over = release.sha256

    def _again_s(self, release: Release) -> float:
        """Not before this it is tried again."""
        failed = self._failed.get(release.sha256)
        return float("-inf") if failed is None else failed.again_s

    def _later(self, release: Release) -> None:
        """Others may have their turn meanwhile: each waits for its own time."""
        failed = self._failed.get(release.sha256)
        retry = Retry(*self._retry_s) if failed is None else failed.retry
        self._failed[release.sha256] = Failed(retry, retry.after(self._clock()))

    def _leave_chunks(self) -> None:
        assert self._download.pull is not None
        self._line.leave([self._chunk_topic(n) for n in self._download.pull.disconnected()])
        self._download.close()

    # ---- what the broker said ----

    def _take(self, fact: Fact) -> None:
        match fact:
            case mqtt.Received():
                if not self._received(fact) and self._line.unasked(fact):
                    reason = "the broker sends what was not asked for"
                    self._hang_up(reason, refused=True)
                    self._fail(None, reason)
            case mqtt.Connected():
                names = self._refreshing.connected()
                self._line.ask(map(self._topic, names))
            case mqtt.Closed():
                self._ended()

    def _received(self, fact: mqtt.Received) -> bool:
        """Whether it was asked for."""
        if not fact.topic.startswith(f"{self._base}/") or not self._line.online:
            return False
        kind, _, rest = fact.topic.removeprefix(f"{self._base}/").partition("/")
        if kind == "metadata":
            return self._refreshing.take(rest, fact.payload)
        if kind != "blob":
            return False
        verdict = self._download.offer(rest, fact.payload, self._clock())
        asked = verdict not in (Offer.REPEATED, Offer.UNASKED)
        if asked:
            self._line.leave([fact.topic])
        return asked

    def _hang_up(self, reason: str, *, refused: bool = False) -> None:
        self._line.hang_up(reason, refused=refused)
        self._ended()

    def _ended(self) -> None:
        if self._download.pull is not None:
            self._download.pull.disconnected()
        self._refreshing.lost()

    def _give_up_for_now(self, reason: str) -> None:
        self._hang_up(reason)
        self._download.close()
        if (wanted := self._next()) is not None:
            self._later(wanted)
        self._refreshing.due_s = self._refreshing.retry.after(self._clock())
        self._fail(None, reason)

    def _fail(self, release: Release | None, reason: str) -> None:
        self._counts["failures"] += 1
        log.warning("updates: %s", reason)
        self._error = reason
        self._listener.failed(release, reason)

    def _topic(self, name: str) -> str:
        return f"{self._base}/metadata/{name}"

    def _chunk_topic(self, chunk: int) -> str:
        assert self._download.pull is not None
        return f"{self._base}/blob/{self._download.pull.release.sha256}/{chunk}"


def _same(one: Release, other: Release) -> bool:
    """Whether they come in the same pieces; a zip may be published anew in other ones."""
    return (one.sha256, one.chunks) == (other.sha256, other.chunks)
