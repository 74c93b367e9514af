"""Commands from afar: decided by the core, remembered on disk, done through the command table."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import ConfigError, EdgeRtError, InputError, StorageError
from edge_rt.core.fall_table import WrongState
from edge_rt.core.remote_command import (
    RULES,
    Allowance,
    Asked,
    Memory,
    OperationsKey,
    Refused,
    decide,
    decode_command,
    finish,
    interrupted,
)
from edge_rt.core.types import Announce
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.control import Command

log = logging.getLogger(__name__)

# A person sends one at a time. A flood waits no longer than these take, and what does not fit was
# never begun: its sender hears no outcome and sends it again.
MAX_WAITING = 16
# Refusals and repeats that are told: a few mistakes in a row, then two a minute (600 kB a day).
TOLD_BURST, TOLD_EACH_S = 20, 30.0
CLOSE_S = 3.0


class Facts(NamedTuple):
    """What the service asks of the world; time in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    clock_trusted: Callable[[], bool] = lambda: False


class RemoteCommands:
    """handle() on the uplink's thread; the rest happens on a thread of its own.

    file      remembers commands and counters
    table     name -> command; only the names in core.remote_command.RULES are ever looked up
    announce  tells outcomes
    warn      says at the device that a command is about to be done; returns at once
    key       judges signatures; None: no signed command is accepted
    """

    def __init__(
        self,
        topics: Topics,
        file: StateFile[Memory],
        table: Mapping[str, Command],
        announce: Announce,
        warn: Callable[[str], None],
        key: OperationsKey | None = None,
        facts: Facts | None = None,
    ) -> None:
        self._topics = topics
        self._file = file
        self._table = table
        self._announce = announce
        self._warn = warn
        self._key = key
        self._facts = facts or Facts()
        self._memory: Memory | None = None  # None: damaged, and left for a person to look at
        self._lock = threading.Lock()  # of the memory: slow commands end on threads of their own
        self._acted_s: dict[str, float] = {}
        self._running: set[str] = set()
        self._told = Allowance(TOLD_BURST, TOLD_EACH_S)
        self._counts = dict.fromkeys(("done", "failed", "refused", "repeated", "untold"), 0)
        self._inbox: queue.Queue[Asked | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    # ---- any thread ----

    def start(self) -> None:
        """Say what an earlier run left unfinished, then be ready."""
        try:
            self._memory = self._file.load() or Memory()
        except StorageError as error:
            log.error("commands: signed ones are refused until this is mended: %s", error)
        if self._memory is not None:
            for known in interrupted(self._memory):
                self._end(known.id, known.name, "failed", "interrupted", {})
        self._thread.start()

    def close(self) -> None:
        """Stop after the command at hand. One that takes longer is `interrupted` at the start."""
        if self._thread.is_alive():
            try:
                self._inbox.put(None, timeout=CLOSE_S)
            except queue.Full:
                return
            self._thread.join(CLOSE_S)

    def handle(self, topic: str, payload: bytes) -> None:
        """Take `cmd/<name>`. Raises InputError for what is no command, or one too many."""
        asked = decode_command(self._topics, topic.rpartition("/")[2], payload)
        try:
            self._inbox.put_nowait(asked)
        except queue.Full:
            raise InputError(f"{MAX_WAITING} commands are waiting; {asked.name} is lost") from None

    def status(self) -> dict[str, Any]:
        """Counts since the start; plain values."""
        return {**self._counts, "waiting": self._inbox.qsize()}

    # ---- the thread ----

    def _run(self) -> None:
        while (asked := self._inbox.get()) is not None:
            try:
                self._take(asked)
            except Exception:  # the next command may be the one that matters
                log.exception("commands: %s came to nothing", asked.name)

    def _take(self, asked: Asked) -> None:
        name, id = asked.name, asked.payload.id
        with self._lock:
            memory = self._memory
            decision = decide(
                asked,
                memory or Memory(),
                key=self._key,
                now_s=self._facts.wall() if self._facts.clock_trusted() else None,
                since_s=self._facts.monotonic() - self._acted_s.get(name, float("-inf")),
                busy=name in self._running,
            )
            signed = asked.payload.signature is not None
            if decision.memory is not None and not self._keep(decision.memory) and signed:
                # Not on disk, not done: it could be done twice. An unsigned one may be.
                self._refuse(id, name, "refused", "storage", False)
                return
        if not decision.act:
            if decision.outcome:
                self._refuse(id, name, decision.outcome, decision.reason, decision.repeat)
            return
        self._acted_s[name] = self._facts.monotonic()
        if RULES[name].slow:
            with self._lock:
                self._running.add(name)
            worker = threading.Thread(
                target=self._act, args=(asked,), name=f"command-{name}", daemon=True
            )
            try:
                worker.start()
            except RuntimeError as error:  # no more threads to be had just now
                log.error("commands: %s: %s", name, error)
                with self._lock:
                    self._running.discard(name)
                self._end(id, name, "failed", "failed", {})
        else:
            self._act(asked)

    def _act(self, asked: Asked) -> None:
        """Do it and say what became of it."""
        name = asked.name
        log.warning("command from afar: %s %s", name, asked.payload.id)
        outcome, reason = "done", ""
        result: dict[str, Any] = {}
        try:
            if RULES[name].announced:
                self._warn(name)
            result = self._call(asked)
        except Exception as error:  # whoever asked has to hear of it, a bug of ours included
            outcome, reason = _class_of(error)
            result = _told(error.result) if isinstance(error, Refused) else {}
            if isinstance(error, EdgeRtError):
                log.warning("commands: %s: %s", name, error)
            else:
                log.exception("commands: %s failed", name)
        with self._lock:
            self._running.discard(name)
        self._end(asked.payload.id, name, outcome, reason, result)

    def _call(self, asked: Asked) -> dict[str, Any]:
        command = self._table[asked.name]
        # All values came as text: "60" is a number where one is wanted.
        args = msgspec.convert(asked.payload.args, command.arguments, strict=False)
        answer = command.handler(args)
        assert isinstance(answer, Mapping), "no stream is in RULES"
        return _told(answer)

    def _end(self, id: str, name: str, outcome: str, reason: str, result: dict[str, Any]) -> None:
        # Told first: after a kill in between it is told twice, `interrupted` the second time.
        self._tell(id, name, outcome, reason, **result)
        with self._lock:
            self._counts[outcome] += 1
            if self._memory is not None:
                self._keep(finish(self._memory, id, outcome, reason))

    def _keep(self, memory: Memory) -> bool:
        """Durably, with the lock held; False if the disk does not take it."""
        if self._memory is None:
            return False
        try:
            self._file.save(memory)
        except StorageError as error:
            log.error("commands: %s", error)
            return False
        self._memory = memory
        return True

    def _refuse(self, id: str, name: str, outcome: str, reason: str, repeat: bool) -> None:
        self._counts["repeated" if repeat else "refused"] += 1
        if not self._told.take(self._facts.monotonic()):
            self._counts["untold"] += 1
            return
        log.warning("command from afar: %s %s: %s %s", name, id, outcome, reason)
        if repeat:
            self._tell(id, name, outcome, reason, repeat=True)
        else:
            self._tell(id, name, outcome, reason)

    def _tell(self, id: str, name: str, outcome: str, reason: str, **more: Any) -> None:
        data = {"id": id, "name": name, "outcome": outcome, "reason": reason, **more}
        self._announce("device", "command", data)


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a command returns, only this leaves the device: never a name, a path or a score."""
    return {key: result[key] for key in ("state", "armed", "checks") if key in result}


def _class_of(error: Exception) -> tuple[str, str]:
    """Outcome and reason of a command that came to nothing."""
    match error:
        case Refused():
            return ("failed" if error.reason == "checks_failed" else "refused"), error.reason
        case msgspec.ValidationError() | InputError():
            return "refused", "bad_arguments"
        case WrongState():
            return "refused", "not_possible"
        case ConfigError():
            return "refused", "not_available"
    return "failed", "failed"
