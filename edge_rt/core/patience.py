"""Which alarms still await their receipt, and for how long: nobody heard means the siren."""

from __future__ import annotations

from typing import NamedTuple

from edge_rt.core.uplink_wire import LaneReceipt

# One person has one open incident; 256 leaves room for a day of help calls without a network. The
# oldest goes first: its siren has long sounded.
MAX_ALARMS = 256


class Alarm(NamedTuple):
    """An alarm without a receipt."""

    sequence: int
    incident: str
    since_s: float


class Patience:
    """Watches alarms from their commit to their receipt. Times are monotonic seconds."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._open: dict[int, Alarm] = {}
        self._unheard: dict[int, Alarm] = {}

    def stage(self, what: str, incident: str, sequence: int, now_s: float) -> None:
        """A fall's stage was committed."""
        if what == "alarm":
            self._open[sequence] = Alarm(sequence, incident, now_s)
            while len(self._open) > MAX_ALARMS:
                del self._open[next(iter(self._open))]
        elif what in ("resolved", "cancelled"):  # somebody came: no siren for its sake
            for alarm in [a for a in self._waiting() if a.incident == incident]:
                self._forget(alarm.sequence)

    def receipted(self, given: LaneReceipt) -> list[Alarm]:
        """The alarm lane's receipt came; returns the alarms once overdue that are heard now."""
        held = given.holds()
        heard = [alarm for alarm in self._waiting() if held(alarm.sequence)]
        late = [alarm for alarm in heard if alarm.sequence in self._unheard]
        for alarm in heard:
            self._forget(alarm.sequence)
        return late

    def overdue(self, now_s: float) -> list[Alarm]:
        """Alarms that nobody has receipted in time, each once."""
        late = [a for a in self._open.values() if now_s - a.since_s >= self.patience_s]
        for alarm in late:
            self._unheard[alarm.sequence] = self._open.pop(alarm.sequence)
            while len(self._unheard) > MAX_ALARMS:
                del self._unheard[next(iter(self._unheard))]
        return late

    def next_s(self) -> float:
        """When the next alarm becomes overdue; infinity if none waits."""
        return min((a.since_s + self.patience_s for a in self._open.values()), default=float("inf"))

    @property
    def waiting(self) -> int:
        return len(self._open) + len(self._unheard)

    def _waiting(self) -> list[Alarm]:
        return [*self._open.values(), *self._unheard.values()]

    def _forget(self, sequence: int) -> None:
        self._open.pop(sequence, None)
        self._unheard.pop(sequence, None)
