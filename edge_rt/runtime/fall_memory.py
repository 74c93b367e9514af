"""What the fall pipeline remembers over a restart, and how the event log corrects it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.core.fall import OPEN
from edge_rt.core.fall_resume import RANK, Stage, plan
from edge_rt.core.wire import Lane
from edge_rt.falls.pipeline import Announcement, FallPipeline
from edge_rt.runtime.places import FALL_NAME
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.saver import LatestSaver

log = logging.getLogger(__name__)

# An incident has five stages; the last forty incidents reach back further than any saved state.
STAGES_READ = 200
LOG_S = 2.0  # a disk that takes longer is sick: the saved state alone has to do


class _Kept(msgspec.Struct, frozen=True):
    """monotonic_s: the clock of boot `boot_id` when this was saved."""

    boot_id: str
    monotonic_s: float
    machine: dict[str, Any]


class Restored(NamedTuple):
    """asleep_s: how long the state slept, 0 if unknown; tell: stages that the log never got;
    corrected: the state is another than the saved one, and to be saved."""

    asleep_s: float
    tell: list[Announcement]
    corrected: bool


class FallMemory:
    """The saved state of the alarm machine: read once at start, then kept up to date."""

    def __init__(self, folder: Path, boot_id: str, monotonic: Callable[[], float]) -> None:
        self._file = StateFile(folder / FALL_NAME, _Kept)
        self._boot_id = boot_id
        self._monotonic = monotonic
        self._damaged = False
        self._saver: LatestSaver[_Kept] = LatestSaver(self._file, "fall state")

    @property
    def problem(self) -> str:
        """Why the last write failed; empty when it did not."""
        return self._saver.problem

    def restore(self, pipeline: FallPipeline, stages: Sequence[Stage] | None) -> Restored:
        """Put the pipeline where it was, by the saved state and the newest stages of the log; None
        if the log does not tell: a saved state that cannot be read then stays as it is.

        An incident that either of them knows to be open is open afterwards.
        """
        asleep_s = self._load(pipeline)
        machine = pipeline.machine
        chosen = plan(machine.state, machine.incident, stages or ())
        if chosen.reset:
            machine.forget()
        if chosen.adopt is not None:
            machine.adopt(*chosen.adopt)
        tell = []
        if chosen.tell is not None:
            data = {"incident": machine.incident, "why": {"event": "restored"}}
            tell.append(Announcement("fall", chosen.tell, data))
        if machine.state in OPEN:
            log.warning("%s from before the restart: still open", machine.state)
        mended = self._damaged and stages is not None
        return Restored(asleep_s, tell, mended or chosen.reset or chosen.adopt is not None)

    def save(self, machine: dict[str, Any]) -> None:
        """Keep this state; never waits for the disk."""
        self._saver.save(_Kept(self._boot_id, self._monotonic(), machine))

    def close(self) -> None:
        """Write what is outstanding."""
        self._saver.close()

    def _load(self, pipeline: FallPipeline) -> float:
        try:
            kept = self._file.load()
            if kept is None:
                return 0.0
            pipeline.restore(kept.machine)
        except StorageError as error:
            self._damaged = True
            log.error("the alarm machine goes by the event log alone: %s", error)
            return 0.0
        return self._monotonic() - kept.monotonic_s if kept.boot_id == self._boot_id else 0.0


def open_stage(folder: Path) -> str | None:
    """The stage of the incident that was open when the state was last saved, "" if none was; None
    if the state cannot be read."""
    try:
        kept = StateFile(folder / FALL_NAME, _Kept).load()
    except StorageError:  # said by who restores it
        return None
    state = "" if kept is None else str(kept.machine.get("state"))
    return state if state in OPEN else ""


def logged_stages(recorder: Recorder) -> list[Stage] | None:
    """The newest fall stages of the log, oldest first; None if it cannot be read in time."""

    def read(events: EventLog) -> list[Stage]:
        found = [stored.event for stored in events.newest(Lane.ALARM, STAGES_READ)]
        return [
            Stage(e.what, str(e.data.get("incident")))
            for e in found
            if e.kind == "fall" and e.what in RANK  # a newer version may have told of more
        ]

    try:
        return recorder.ask(read).result(LOG_S)
    except (StorageError, TimeoutError) as error:
        log.error("the event log cannot tell of open incidents: %s", error or "it is slow")
        return None
