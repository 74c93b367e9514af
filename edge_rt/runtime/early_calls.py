"""Help that is called for while the daemon starts, before there is an alarm machine to call on."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_rt.core.errors import DaemonError, EdgeRtError
from edge_rt.core.fall_table import Event, State
from edge_rt.core.types import Announce
from edge_rt.runtime.actuators import Siren

log = logging.getLogger(__name__)

KEPT_NAME = "help-called"


def unheard(run_dir: Path) -> bool:
    """Whether somebody called for help in a start that came to nothing."""
    return (run_dir / KEPT_NAME).exists()


class EarlyCalls:
    """Sounds and announces at once. The machine takes the incident over when it is there, and is
    then asked for help itself: it may know of no alarm, or of one that has ended since.

    run_dir     outlives a process and no more; a call that no machine has heard yet is noted there
    alarm_open  an alarm will go on: one more call is one more cause to sound, and no more
    """

    def __init__(self, siren: Siren, announce: Announce, run_dir: Path, alarm_open: bool) -> None:
        self._siren, self._announce, self._alarm_open = siren, announce, alarm_open
        self._kept = run_dir / KEPT_NAME
        self._called = unheard(run_dir)
        self._lock = threading.Lock()
        self._incident = ""
        self._later: Callable[[], Any] | None = None

    def help_now(self) -> dict[str, Any]:
        """What the help button does until `connect`, and hands on afterwards."""
        with self._lock:
            if self._later is None:
                self._siren.sound(State.ALARM)
                if not self._alarm_open and not self._incident:
                    self._incident = uuid.uuid4().hex
                    why = {"event": Event.HELP, "by": "button", "fault": "edge-rt is starting"}
                    self._announce("fall", "alarm", {"incident": self._incident, "why": why})
                self._called = True
                try:
                    self._kept.touch()
                except OSError as error:  # only a start that fails would have needed it
                    log.warning("a call for help is not noted: %s: %s", self._kept, error.strerror)
                return {"state": State.ALARM.value}
        answer: dict[str, Any] = self._later()
        return answer

    def not_yet(self) -> None:
        """What the other button does until then: raises DaemonError."""
        raise DaemonError("edge-rt is starting; press again in a moment")

    def connect(self, help_now: Callable[[], Any]) -> str:
        """From here on `help_now` is called; the incident of a call before, or nothing."""
        with self._lock:
            self._later = help_now
            return self._incident

    def hand_over(self) -> None:
        """Have the machine, which runs now, asked for help if anybody has called."""
        if not self._called or self._later is None:
            return
        try:
            self._later()
            self._kept.unlink(missing_ok=True)
        except (EdgeRtError, OSError) as error:  # it was announced; this start goes on
            log.error("a call for help during the start: %s", error)
