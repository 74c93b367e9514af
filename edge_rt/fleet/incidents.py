"""Which falls are open, from the events themselves: pure, and the same after a restart."""

from __future__ import annotations

import re
from datetime import datetime

from edge_rt.core.wire import Event
from edge_rt.fleet.escalation import Kind, Matter

# A device has one incident at a time (core.fall_table), so a second one that is open has lost its
# end. The oldest goes: a flood from one device must not fill the table.
MAX_OPEN = 8
# An end may overtake its alarm; beyond this many, a late alarm is told of though it is over.
MAX_ENDED = 4096
_TIME = re.compile(r"[0-9T:.Z+-]{1,40}")
_STAGES = {"prealarm": Kind.PREALARM, "alarm": Kind.ALARM}
_ENDS = ("cancelled", "resolved")

_Key = tuple[str, str]  # source, incident


class Incidents:
    """Give it every fall event, in any order, as often as it comes."""

    def __init__(self) -> None:
        self._open: dict[_Key, dict[Kind, Matter]] = {}
        self._ended: dict[_Key, str] = {}

    def take(self, event: Event, received: str) -> None:
        """received: RFC 3339, when it was stored here."""
        if event.kind != "fall":
            return
        incident = event.data.get("incident")
        # An alarm without an incident (another edge_rt, a fault) is one of its own.
        named = incident if isinstance(incident, str) and 0 < len(incident) <= 64 else event.id
        key = (event.source, named)
        if event.what in _ENDS:
            self._ended[key] = event.what
            while len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]
            self._open.pop(key, None)
        elif event.what in _STAGES and key not in self._ended:
            kind = _STAGES[event.what]
            self._open.setdefault(key, {}).setdefault(kind, _matter(event, kind, named, received))
            mine = [k for k in self._open if k[0] == event.source]
            for old in mine[:-MAX_OPEN]:
                del self._open[old]

    def open(self) -> list[Matter]:
        """One matter an incident: its alarm, or its pre-alarm as long as there is none."""
        return [
            stages[Kind.ALARM] if Kind.ALARM in stages else stages[Kind.PREALARM]
            for stages in self._open.values()
        ]

    def end_of(self, key: str) -> str:
        """How the incident of a matter ended; empty if that is not known."""
        _, source, incident = key.split(" ", 2)
        return self._ended.get((source, incident), "")


def unix_s(stamp: str) -> float:
    """Unix seconds of an RFC 3339 time of our own making (core.wire.rfc3339)."""
    return datetime.fromisoformat(stamp).timestamp()


def _matter(event: Event, kind: Kind, incident: str, received: str) -> Matter:
    word = "fall alarm" if kind is Kind.ALARM else "possible fall"
    # Some services show text as HTML or Markdown: nothing a device says goes there unchecked.
    time = event.time if _TIME.fullmatch(event.time) else "an unreadable time"
    doubt = "" if event.clocktrusted else f" (by its own clock, not yet set; here {received})"
    return Matter(
        f"{kind} {event.source} {incident}",
        kind,
        event.source.rsplit("/", 1)[-1],
        unix_s(received),
        f"{word} at {time}{doubt}",
    )
