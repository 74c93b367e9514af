"""What the worker has seen becomes attempts, events and a pulse of the lock; and who is armed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.core.types import Announce
from edge_rt.core.unlock import LIVENESS_NOT_CHECKED, Look, Outcome, UnlockMachine, Verdict
from edge_rt.runtime.actuators import Lock
from edge_rt.runtime.face_messages import Seen

log = logging.getLogger(__name__)

# Who was seen longer ago may have left, and somebody else may stand at the door. A board that needs
# a second for a face is inside; a disk or a worker that stalls is not.
LATE_S = 3.0
RETRY_S = 5.0  # a disk that takes nothing is not asked more often


class FaceJudge:
    """Judges by when a frame was taken, not by when it is looked at. Use from one thread.

    last     data of the last outcome; problem: why the last look could not be judged, or nothing
    """

    def __init__(
        self,
        machine: UnlockMachine,
        announce: Announce,
        lock: Lock,
        monotonic: Callable[[], float],
    ) -> None:
        self.machine = machine
        self._announce, self._lock, self._monotonic = announce, lock, monotonic
        self._was_late = False
        self.seen: Seen | None = None
        self.last: dict[str, Any] | None = None
        self.problem = ""

    def judge(self, seen: Seen) -> str | None:
        """The pseudonym of whoever was let in by this frame, if anybody was."""
        self.seen = seen
        t_s = min(seen.t_s, self._monotonic())
        if self._is_late(t_s):
            return None
        look = Look(Verdict(seen.verdict), seen.person or None, seen.reason or None)
        try:
            outcomes = self.machine.step(look, t_s)
        except StorageError as error:
            # No disk, no unlocking: an attempt that cannot be counted is not judged.
            self.problem = str(error)
            return None
        self.problem = ""
        let_in = None
        for outcome in outcomes:
            # Counting took that long.
            late = outcome.what == "unlocked" and self._is_late(t_s)
            told = Outcome("denied", reason="late") if late else outcome
            self.last = told.data(LIVENESS_NOT_CHECKED)
            self._announce("face", told.what, self.last)
            if told.what == "unlocked":
                self._lock.pulse()
                let_in = told.person
        return let_in

    def disarmed(self) -> None:
        """An attempt does not outlive it."""
        try:
            self.machine.abandon(self._monotonic())
        except StorageError as error:
            self.problem = str(error)

    def _is_late(self, t_s: float) -> bool:
        age_s = self._monotonic() - t_s
        if age_s > LATE_S and not self._was_late:
            log.warning(
                "faces: a look of %.1f s ago unlocks nothing; disk or worker stalled", age_s
            )
        self._was_late = age_s > LATE_S
        return self._was_late


class _Kept(msgspec.Struct, frozen=True):
    armed: bool
    configured: bool


class Arming:
    """Whether faces are looked at, over restarts; a changed configuration counts again.

    path  None: what is asked for is forgotten with the process
    """

    def __init__(self, path: Path | None, configured: bool) -> None:
        self._file = None if path is None else StateFile(path, _Kept)
        self._configured = configured
        self._unsaved: bool | None = None
        self._retry_s = 0.0
        self.problem = ""

    def load(self) -> bool:
        """What was asked for last, or the configuration. Who cannot be asked is not looked at."""
        try:
            kept = None if self._file is None else self._file.load()
        except StorageError as error:
            log.error("faces stay disarmed until armed: %s", error)
            self.problem = f"{error}; arm faces anew: edge-rt arm faces"
            return False
        same = kept is not None and kept.configured == self._configured
        return kept.armed if kept is not None and same else self._configured

    def keep(self, armed: bool, now_s: float) -> None:
        """Remember it; `problem` says if that failed, and `turn` tries again."""
        self._unsaved, self._retry_s = armed, now_s
        self.turn(now_s)

    def turn(self, now_s: float) -> None:
        """Save what could not be saved before, now and then."""
        if self._file is None or self._unsaved is None or now_s < self._retry_s:
            return
        try:
            self._file.save(_Kept(self._unsaved, self._configured))
            self._unsaved, self.problem = None, ""
        except StorageError as error:
            if str(error) != self.problem:
                log.error("faces: armed or not would be forgotten at a restart: %s", error)
            self.problem, self._retry_s = str(error), now_s + RETRY_S
