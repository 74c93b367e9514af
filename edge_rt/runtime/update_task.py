"""Drives the update of one task: writes each move down, then does what the record says.

Everything here runs in the thread `updates`. What is done follows from the record alone, so that a
start after a kill goes on where the record stands.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edge_rt.core.errors import EdgeRtError, PublisherError, StorageError
from edge_rt.core.remote_command import Refused
from edge_rt.core.update import Event, objection, objection_to_rollback, step
from edge_rt.core.update_record import SLOTS, Candidate, Notice, Place, Record, State, spare
from edge_rt.core.wire import Event as LoggedEvent
from edge_rt.runtime.update_journal import Journal, manifest_sha256

if TYPE_CHECKING:
    from edge_rt.runtime.update_ports import Live, Tries, Watch

log = logging.getLogger(__name__)

# So much of a day's watching is lost by a power cut; a shadow has up to 120 kB to keep, and cards
# wear out.
KEEP_S = 600.0
FLUSH_S = 5.0  # a full or read-only disk is tried again so often
Announcer = Callable[[str, str, Mapping[str, Any]], "Future[LoggedEvent]"]


class Rules(NamedTuple):
    """settle_s: a start that ran for so long has held; retry_s: after a failure of our own."""

    settle_s: float
    retry_s: float


class TaskUpdate:
    """One task. `turn` often; the other methods in between."""

    def __init__(
        self,
        journal: Journal,
        live: Live,
        tries: Tries,
        staged: Callable[[str], Path],
        announce: Announcer,
        rules: Rules,
        monotonic: Callable[[], float],
    ) -> None:
        """staged: the folder in which a release of this sha256 is unpacked."""
        self.journal = journal
        self.live = live
        self._tries = tries
        self._staged = staged
        self._announce = announce
        self._rules = rules
        self._monotonic = monotonic
        self._runs: Place = journal.record.live  # runtime.update_start has opened it
        self._watch: tuple[State, Watch] | None = None
        self._figures: dict[str, Any] = {}  # of the last change of model
        self._tickets: dict[tuple[str, Any], Future[LoggedEvent]] = {}
        self._born_s = monotonic()
        self._kept_s = self._flush_s = self._born_s
        self._retry_s = float("-inf")
        self._settled = False
        self._arrived = ""  # sha256 of a candidate that lies staged, while that is not written down
        self._tidied = -1  # the step after which it was done
        self.problem = ""

    @property
    def record(self) -> Record:
        return self.journal.record

    # ---- what moves it from outside ----

    def offer(self, candidate: Candidate | None) -> None:
        """The newest release that the signed catalog has for this device."""
        record = self.record
        if candidate is None or record.candidate == candidate:
            return
        try:
            self.journal.raise_floor()  # before anything that an older one would let in
        except StorageError as error:
            self.problem = str(error)
            return
        if objection(record, candidate, self.journal.floor(), self.live.version):
            return
        if record.state not in (State.IDLE, State.TRIAL, State.INSTALLING):
            self._move(Event.WITHDRAWN, reason=f"{candidate.version} takes its place")
        if self.record.state is State.IDLE and self._monotonic() >= self._retry_s:
            self._forward(Event.CHOSEN, candidate=candidate)
            if self.live.declines and self.record.candidate == candidate:
                self._fail(self.live.declines)

    def withdraw(self, sha256: str, reason: str) -> None:
        """The publisher takes a release back: the one under way, or the live one."""
        record = self.record
        if record.candidate is not None and record.candidate.sha256 == sha256:
            self._move(Event.WITHDRAWN, reason=reason)
        elif record.running is not None and record.running.sha256 == sha256:
            idle = record.state is State.IDLE
            self._move(Event.WITHDRAWN if idle else Event.BROKEN, reason=reason)

    def arrived(self, sha256: str) -> None:
        """The candidate lies in its staging folder."""
        self._arrived = sha256
        self._take_in()

    def spoiled(self, sha256: str, reason: str) -> None:
        """What was signed cannot be used."""
        if self._waits_for(sha256):
            self._move(Event.REFUSED, reason=reason)

    def roll_back(self, by: str) -> dict[str, Any]:
        """A person wants the previous model. Raises Refused if that cannot be."""
        floor, epoch = self.journal.floor(), self.live.security_epoch
        objections = objection_to_rollback(self.record, floor, epoch)
        if objections:
            raise Refused("not_possible", f"{self.journal.task}: {objections}")
        self._move(Event.ROLLBACK, reason=f"asked for by {by}")
        self._follow()
        return self.report()

    def turn(self) -> None:
        """Do what is to be done now; a candidate's tests may take a minute."""
        now_s = self._monotonic()
        if not self.journal.saved and now_s - self._flush_s >= FLUSH_S:
            self._flush_s = now_s
            self.journal.flush()
        self._follow()
        self.live.look()
        self._settle(now_s)
        if now_s >= self._retry_s:
            self._take_in()
            self._work(now_s)
            self._follow()
        self._tell()

    def close(self) -> None:
        """An end that was asked for is no start that failed."""
        if self._watch is not None:
            watch = self._watch[1]
            self._end_watch()
            self.journal.keep_progress(watch.seen())
        record = self.record
        if record.loads or record.tries:
            self.journal.keep(step(record, Event.SETTLED))

    def report(self) -> dict[str, Any]:
        """JSON-able: what runs, and where an update stands."""
        record, running = self.record, self.record.running
        candidate = record.candidate
        return {
            "name": running.name if running else self.live.name,
            "version": running.version if running else self.live.version,
            "slot": record.live,
            "previous": record.previous if record.live != "factory" else None,
            "state": record.state.value,
            "candidate": None if candidate is None else candidate.version,
        }

    def status(self) -> dict[str, Any]:
        """The report, and more for who looks closely."""
        watching = self._watch[1].status() if self._watch else None
        return {
            **self.report(),
            "step": self.record.step,
            "security_epoch_floor": self.journal.floor(),
            "refused": [c.version for c in self.record.refused],
            "problem": self.journal.problem or self.problem,
            "watching": watching,
        }

    # ---- moves ----

    def _move(self, event: Event, **more: Any) -> None:
        """Away from a candidate or back to the former model: not even a sick disk holds it up."""
        before = self.record
        self.journal.keep(step(before, event, **more))
        self._log(before, event, more.get("reason", ""))

    def _forward(self, event: Event, **more: Any) -> None:
        """Further with a candidate: only once that is on disk."""
        before = self.record
        try:
            self.journal.write(step(before, event, **more))
        except StorageError as error:
            # Nothing has happened; it is tried again.
            self.problem = str(error)
            self._retry_s = self._monotonic() + FLUSH_S
            return
        self.problem = ""
        self._log(before, event, "")

    def _log(self, before: Record, event: Event, reason: str) -> None:
        after = self.record
        who = before.candidate or after.candidate or before.running
        name = f"{who.name} {who.version}" if who else "factory"
        log.info(
            "%s %s: %s -> %s (%s) %s",
            *(self.journal.task, name, before.state, after.state, event, reason),
        )
        if after.state is not before.state:
            self._end_watch()

    # ---- what the record asks for ----

    def _take_in(self) -> None:
        """Go on with what has arrived; it is told once, and the disk may not take it at once."""
        if self._waits_for(self._arrived):
            manifest = ""
            with contextlib.suppress(StorageError):  # gone already: the tests will say so
                manifest = manifest_sha256(self._staged(self._arrived))
            self._forward(Event.STAGED, manifest=manifest)
        if not self._waits_for(self._arrived):
            self._arrived = ""

    def _follow(self) -> None:
        """Run the model that the record names."""
        while self._runs != self.record.live:
            wanted = self.record.live
            try:
                figures = self.live.go(self.journal.folder_of(wanted))
            except Exception as error:  # whatever it is, a model has to run
                log.error("%s: cannot run the model in %s: %s", self.journal.task, wanted, error)
                self.problem = str(error)
                if wanted == "factory":
                    return  # what runs goes on; the next turn tries again
                self._move(Event.BROKEN, reason=str(error))
                continue
            self._runs, self._figures = wanted, figures
            self._born_s, self._settled = self._monotonic(), False  # a swap has to hold as well
        if self.record.state is State.TRIAL and not self.record.active:
            self.journal.keep(step(self.record, Event.ACTIVE, figures=self._figures))

    def _settle(self, now_s: float) -> None:
        if self._settled or now_s - self._born_s < self._rules.settle_s:
            return
        record = self.record
        if record.loads or record.tries:
            self.journal.keep(step(record, Event.SETTLED))
        self._settled = True

    def _work(self, now_s: float) -> None:
        record = self.record
        try:
            match record.state:
                case State.TESTING:
                    self._forward(Event.PASSED, figures=self._tries.self_test(self._folder(record)))
                case State.CHALLENGING:
                    self._forward(Event.PASSED, figures=self._tries.challenge(self._folder(record)))
                case State.SHADOWING:
                    self._watched(record, now_s)
                case State.INSTALLING:
                    self._install(record)
                case State.TRIAL:
                    self._watched(record, now_s)
                case State.IDLE:
                    self._tidy()
        except PublisherError as error:
            # Where it lies on this device is nobody's concern.
            reason = str(error).removeprefix(f"{self._staged(self._sha256(record))}: ")
            self._move(Event.REFUSED, reason=reason)
        except EdgeRtError as error:
            self._fail(str(error))
        except Exception as error:  # a bug of ours must not end updates, nor go on with a candidate
            log.exception("%s: the update failed", self.journal.task)
            self._fail(f"bug: {type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        self.problem = reason
        self._retry_s = self._monotonic() + self._rules.retry_s
        if self.record.state is State.TRIAL:
            # Who cannot watch a trial cannot confirm it either.
            self._move(Event.BROKEN, reason=reason)
            self._retry_s = self._monotonic()
        elif self.record.candidate is not None:
            self._move(Event.FAILED, reason=reason)

    def _watched(self, record: Record, now_s: float) -> None:
        """Shadow or trial: begin it, keep what it has seen, act on its verdict."""
        if record.state is State.TRIAL and self._runs != record.live:
            return
        if self._watch is None:
            begun = self._begin_watch(record, self.journal.progress())
            self._watch, self._kept_s = (record.state, begun), now_s
            self.journal.keep_progress(begun.seen())
        watch = self._watch[1]
        verdict = watch.verdict()
        if verdict is None:
            if now_s - self._kept_s >= KEEP_S:
                self._kept_s = now_s
                self.journal.keep_progress(watch.seen())
            return
        figures = dict(verdict.figures)
        if verdict.passed:
            self._forward(Event.PASSED, figures=figures)
            return
        event = Event.REFUSED
        if not verdict.final:
            event, self._retry_s = Event.FAILED, now_s + self._rules.retry_s
        self._move(event, reason="; ".join(verdict.reasons), figures=figures)

    def _begin_watch(self, record: Record, seen: dict[str, Any] | None) -> Watch:
        try:
            if record.state is State.TRIAL:
                return self.live.trial(seen)
            return self.live.shadow(self._folder(record), seen)
        except Exception as error:  # what another version of ours has saved may be of any shape
            if seen is None or isinstance(error, PublisherError):
                raise
            log.warning("%s: watched from the beginning: %r", self.journal.task, error)
            return self._begin_watch(record, None)

    def _install(self, record: Record) -> None:
        slot = spare(record.live)
        self.journal.slots.install(self._staged(self._sha256(record)), slot)
        # Staged folder gone, former bundle still there: that is not what was tried.
        self.journal.check(slot, record.candidate)
        self.live.fits(self.journal.slots.folder(slot))
        self._forward(Event.PASSED)

    def _tidy(self) -> None:
        """What a confirmation leaves to be done; slots that nobody goes back to are emptied."""
        if self._tidied == self.record.step:
            return
        self.journal.raise_floor()
        for slot in SLOTS:
            if slot not in self.record.contents:
                self.journal.slots.clear(slot)
        self._tidied = self.record.step

    def _folder(self, record: Record) -> Path:
        folder = self._staged(self._sha256(record))
        if not folder.is_dir():
            raise StorageError(f"{folder}: the candidate is gone; it is fetched again")
        self.journal.check_folder(folder, record.candidate)
        return folder

    def _sha256(self, record: Record) -> str:
        assert record.candidate is not None  # every state but IDLE has one
        return record.candidate.sha256

    def _waits_for(self, sha256: str) -> bool:
        record = self.record
        return record.state is State.FETCHING and self._sha256(record) == sha256

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch[1].close()
            self._watch = None

    # ---- what is to be told ----

    def _tell(self) -> None:
        """Announce each notice once, and forget those that the event log has."""
        notices = self.record.notices
        for notice in notices:
            ticket = self._tickets.get(_key(notice))
            if ticket is None or _failed(ticket):  # there was no room in memory for it
                self._tickets[_key(notice)] = self._announce("model", notice.what, notice.data)
        left = tuple(n for n in notices if not _stored(self._tickets[_key(n)]))
        if len(left) < len(notices):
            self._tickets = {_key(n): self._tickets[_key(n)] for n in left}
            self.journal.keep(msgspec.structs.replace(self.record, notices=left))


def _failed(ticket: Future[LoggedEvent]) -> bool:
    return ticket.done() and ticket.exception() is not None


def _stored(ticket: Future[LoggedEvent]) -> bool:
    return ticket.done() and ticket.exception() is None


def _key(notice: Notice) -> tuple[str, Any]:
    """What tells notices apart: one move tells each thing once."""
    return notice.what, notice.data.get("step")
