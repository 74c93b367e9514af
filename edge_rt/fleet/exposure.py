"""From a device's events: when it watched, with which model, and what happened meanwhile. Pure.

Times are Unix seconds. Within one boot they follow the monotonic clock, put in place by the last
event that the device's own clock was trusted in; a boot without one is left out, days and counts.

How long a device watched: between two events of a boot it did, unless the first of them was its
end; where a boot has no end, up to its last event; after its newest event, as long as the receiver
would have heard of another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from edge_rt.core.update_record import BY_PUBLISHER
from edge_rt.core.wire import Event
from edge_rt.fleet.incidents import unix_s

DAY_S = 86400.0
ONLINE = "online"


class Span(NamedTuple):
    """Watched from start_s to end_s; treated: with the version asked about."""

    start_s: float
    end_s: float
    treated: bool


class Happened(NamedTuple):
    """metric: one of core.comparison.METRICS."""

    at_s: float
    metric: str
    treated: bool


class Outcome(NamedTuple):
    """How far a device is with the version.

    state  "on its way", "on trial", "confirmed", "rejected", "put off", "rolled back",
           "called back" (by the publisher), or empty: it never heard of it
    """

    state: str = ""
    reason: str = ""


class Story(NamedTuple):
    """One device. first_s: when it first ran the version, None: never; unclocked: boots left
    out."""

    spans: list[Span]
    happened: list[Happened]
    outcome: Outcome
    treated: bool
    first_s: float | None
    unclocked: int


def tell(
    events: Sequence[Event], name: str, version: str, status: str, since_s: float, until_s: float
) -> Story:
    """The story of one device as to a version.

    events         all of its own, in the order in which it logged them
    status, since_s  as the broker has it, since when; until_s: so far the receiver has listened
    """
    clock = _clocks(events)
    teller = _Teller(name, version)
    for event in events:
        teller.take(event, clock.get(event.bootid))
    teller.end(until_s if status == ONLINE else min(since_s, until_s))
    boots = {event.bootid for event in events}
    return Story(
        teller.spans,
        teller.happened,
        teller.outcome,
        teller.treated,
        teller.first_s,
        len(boots - clock.keys()),
    )


class _Teller:
    def __init__(self, name: str, version: str) -> None:
        self._name, self._version = name, version
        self._label = f"{name} {version}"
        self.spans: list[Span] = []
        self.happened: list[Happened] = []
        self.outcome = Outcome()
        self.treated = False
        self.first_s: float | None = None
        self._last: Event | None = None
        self._last_s: float | None = None
        self._incidents: set[tuple[str, str]] = set()

    def take(self, event: Event, offset_s: float | None) -> None:
        at_s = None if offset_s is None else offset_s + int(event.monotonicms) / 1000.0
        last, self._last = self._last, event
        if last is not None and last.bootid == event.bootid and at_s is not None:
            self._watched(last, at_s)
        if event.type == "edge_rt.device.started" and last is not None and _crashed(last, event):
            self._count(at_s, "crash")
        self._last_s = at_s
        if event.modelversion == self._label:
            self._switch(True, at_s)
        elif isinstance(event.modelversion, str) and event.modelversion.startswith(
            f"{self._name} "
        ):
            self._switch(False, at_s)
        if event.kind == "model":
            self._model(event, at_s)
        elif event.kind == "fall":
            self._fall(event, at_s)

    def end(self, until_s: float) -> None:
        """Nothing has come after the last event."""
        if self._last is not None:
            self._watched(self._last, until_s)

    def _watched(self, last: Event, until_s: float) -> None:
        if self._last_s is not None and last.type != "edge_rt.device.stopped":
            self.spans.append(Span(self._last_s, max(self._last_s, until_s), self.treated))

    def _switch(self, treated: bool, at_s: float | None) -> None:
        self.treated = treated
        if treated and self.first_s is None:
            self.first_s = at_s

    def _count(self, at_s: float | None, metric: str) -> None:
        if at_s is not None:
            self.happened.append(Happened(at_s, metric, self.treated))

    def _fall(self, event: Event, at_s: float | None) -> None:
        metric = {"alarm": "alarm", "cancelled": "cancel"}.get(event.what)
        why = event.data.get("why")
        if metric is None or isinstance(why, dict) and why.get("trigger") == "help_now":
            return  # whoever calls for help does so whatever the model
        incident = (metric, str(event.data.get("incident", event.id)))
        if incident not in self._incidents:
            self._incidents.add(incident)
            self._count(at_s, metric)

    def _model(self, event: Event, at_s: float | None) -> None:
        data = event.data
        if data.get("name") != self._name:
            return
        if data.get("version") != self._version:
            if event.what in ("activated", "confirmed"):
                self._switch(False, at_s)
            return
        if event.what in ("activated", "confirmed"):
            self._switch(True, at_s)
        elif event.what == "rolled_back":
            self._switch(False, at_s)
        self.outcome = _outcome(event.what, data) or self.outcome


def _outcome(what: str, data: dict[str, Any]) -> Outcome | None:
    reason = str(data.get("reason", ""))
    called_back = reason.endswith(BY_PUBLISHER)
    match what:
        case "staged" | "shadow" if not reason:
            return Outcome("on its way")
        case "activated":
            return Outcome("on trial")
        case "confirmed":
            return Outcome("confirmed")
        case "rejected" if called_back:
            return Outcome("called back", reason)
        case "rejected":
            return Outcome("put off" if data.get("final") is False else "rejected", reason)
        case "rolled_back":
            return Outcome("called back" if called_back else "rolled back", reason)
    return None  # a shadow's no: the rejection follows it


def _crashed(last: Event, started: Event) -> bool:
    """Nobody stopped it: it ended by itself, or the machine lost its power. Both arms have both."""
    return last.type != "edge_rt.device.stopped" and last.logid == started.logid


def _clocks(events: Sequence[Event]) -> dict[str, float]:
    """By boot: what to add to its monotonic seconds."""
    found = {}
    for event in events:
        if event.clocktrusted:
            found[event.bootid] = unix_s(event.time) - int(event.monotonicms) / 1000.0
    return found
