"""Help that is called for while the daemon starts, before there is an alarm machine to call on."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

from edge_rt.core.errors import DaemonError
from edge_rt.core.fall_table import Event, State
from edge_rt.core.types import Announce
from edge_rt.runtime.actuators import Siren


class EarlyCalls:
    """Sounds and announces at once; the machine takes the incident over when it is there.

    alarm_open  a saved alarm will go on: one more call is one more cause to sound, and no more
    """

    def __init__(self, siren: Siren, announce: Announce, alarm_open: bool) -> None:
        self._siren, self._announce, self._alarm_open = siren, announce, alarm_open
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
