"""One line a device, from the store and from what the receiver sees."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from test_store import arrived

from edge_rt.core.uplink_wire import Topics
from edge_rt.fleet.overview import Overview, Row
from edge_rt.fleet.receiver import Device
from edge_rt.fleet.store import Arrived, Store

RECEIVED = "2023-11-14T22:13:22.500Z"  # 2.5 s after the events' own time


def of(device: str, number: int, *what: str, trusted: bool = True, **data: str) -> Arrived:
    made = arrived(number, *what, **data)
    event = msgspec.structs.replace(
        made.event, source=f"/edge-rt/home/{device}", clocktrusted=trusted
    )
    return Arrived(event, msgspec.json.encode(event), RECEIVED)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def keep(store: Store, overview: Overview, *items: Arrived) -> None:
    for item in store.add(items)[0]:
        overview.take(item)


def device(name: str, status: str, heard_s: float = 0.0, silent: bool = False) -> Device:
    return Device(Topics("home", name), status, heard_s, silent_told=silent)


def test_alarms_come_first_then_who_is_away(store: Store) -> None:
    overview = Overview(store)
    keep(
        store,
        overview,
        of("b", 1, "fall", "alarm", incident="i1"),
        of("b", 2, "fall", "alarm", incident="i2"),
        of("c", 1, "device", "started"),
        of("c", 5, "device", "stopped"),
        of("d", 1, "device", "started", trusted=False),
    )
    devices = {
        name: device(name, status, heard_s, silent)
        for name, status, heard_s, silent in (
            ("a", "online", 0.0, False),
            ("b", "online", 90.0, False),
            ("c", "offline", 50.0, True),
            ("d", "online", 99.0, False),
        )
    }
    stamp = "2023-11-14T22:13:20.000Z"
    assert overview.rows(devices, 100.0) == [
        Row("b", "online", 10.0, "fall.alarm", stamp, 2, 0, 2.5),
        Row("c", "silent", 50.0, "device.stopped", stamp, 0, 3, 2.5),
        Row("a", "online", None, "", "", 0, 0, None),
        Row("d", "online", 1.0, "device.started", stamp, 0, 0, None),
    ]
    keep(
        store,
        overview,
        of("b", 3, "fall", "resolved", incident="i1"),
        of("c", 3, "device", "started"),
    )
    first, second, *_ = overview.rows(devices, 100.0)
    assert (first.device, first.alarms, first.last) == ("b", 1, "fall.resolved")
    assert (second.missing, second.last) == (2, "device.stopped"), "a backlog is not news"
    store.close()


def test_a_new_receiver_knows_what_the_store_held(store: Store) -> None:
    before = Overview(store)
    keep(store, before, *(of("b", n, "fall", "alarm", incident="i") for n in (1, 4)))
    keep(store, before, of("c", 2, "device", "started"))
    store.close()
    again = Store(store.folder)
    rows = Overview(again).rows({}, 0.0)
    assert rows == before.rows({}, 0.0)
    assert [(r.device, r.status, r.alarms, r.missing) for r in rows] == [
        ("b", "unknown", 1, 2),
        ("c", "unknown", 0, 1),
    ]
    again.close()
