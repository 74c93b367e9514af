"""One line a device: what a person watching a fleet wants to know first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edge_rt.core.wire import Event
from edge_rt.fleet.escalation import Kind
from edge_rt.fleet.incidents import Incidents, unix_s
from edge_rt.fleet.receiver import Device
from edge_rt.fleet.store import Arrived, Store


class Row(NamedTuple):
    """One device.

    status   as the broker has it: online, stopped, offline; silent, once that was told; unknown
    heard_s  seconds since the last word of it; None: nothing yet, since this receiver began
    last     its newest event, kind and what, and `time`, which is as good as the device's clock
    alarms   falls that nobody has resolved
    missing  events that have not come, though later ones have
    lag_s    from `time` of the newest event to its arrival; None while its clock is not trusted
    """

    device: str
    status: str
    heard_s: float | None
    last: str
    time: str
    alarms: int
    missing: int
    lag_s: float | None


class Overview:
    """Use from the store's thread. Knows what the store held before, too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._incidents = Incidents()
        for event, received in store.falls():
            self._incidents.take(event, received)
        self._newest: dict[str, tuple[Event, str]] = {}  # by device; when it arrived
        for event, received in store.newest():
            self._newest[_device(event.source)] = (event, received)
        # From here on the store keeps their gaps up to date.
        for source, logid in store.known():
            store.log(source, logid)

    def take(self, arrived: Arrived) -> None:
        """An event that is stored."""
        event = arrived.event
        self._incidents.take(event, arrived.received)
        # A backlog comes after what was more urgent: the newest is what happened last.
        old = self._newest.get(_device(event.source))
        if old is None or old[0].logid != event.logid or old[0].sequence < event.sequence:
            self._newest[_device(event.source)] = (event, arrived.received)

    def rows(self, devices: Mapping[str, Device], now_s: float) -> list[Row]:
        """Every device, those with an open alarm first, then those that are not there.

        devices: as the receiver sees them; now_s: on its monotonic clock
        """
        alarms: dict[str, int] = {}
        for matter in self._incidents.open():
            if matter.kind is Kind.ALARM:
                alarms[matter.device] = alarms.get(matter.device, 0) + 1
        missing: dict[str, int] = {}
        for (source, _), state in self._store.logs.items():
            gaps = sum(last - first + 1 for first, last in state.gaps())
            missing[_device(source)] = missing.get(_device(source), 0) + gaps
        rows = []
        for name in self._newest.keys() | devices.keys():
            event, received = self._newest.get(name, (None, ""))
            device = devices.get(name)
            rows.append(
                Row(
                    name,
                    _status(device),
                    now_s - device.heard_s if device is not None and device.heard_s else None,
                    event.type.removeprefix("edge_rt.") if event else "",
                    event.time if event else "",
                    alarms.get(name, 0),
                    missing.get(name, 0),
                    _lag_s(event, received),
                )
            )
        return sorted(rows, key=_urgency)


def _urgency(row: Row) -> tuple[bool, bool, str]:
    return not row.alarms, row.status not in ("silent", "offline"), row.device


def _status(device: Device | None) -> str:
    if device is None:
        return "unknown"
    return "silent" if device.silent_told else device.status


def _lag_s(event: Event | None, received: str) -> float | None:
    if event is None or not event.clocktrusted:
        return None
    try:
        return unix_s(received) - unix_s(event.time)
    except ValueError:  # a time of somebody else's making
        return None


def _device(source: str) -> str:
    return source.rsplit("/", 1)[-1]
