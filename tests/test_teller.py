"""Who hears of what, when, and how often."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest

from edge_rt.core.wire import Event
from edge_rt.runtime.stamps import Stamps
from edge_rt.runtime.teller import Notice, Teller

PATIENT = 20.0
STAMPS = Stamps("/edge-rt/home/hall", "b" * 32)


def alarm() -> Event:
    return STAMPS.draft("fall", "alarm", {})


@pytest.fixture
def teller() -> Iterator[Teller]:
    made = Teller()
    yield made
    assert made.close(PATIENT)


@pytest.fixture
def siren(teller: Teller) -> queue.Queue[Notice]:
    heard: queue.Queue[Notice] = queue.Queue()
    teller.listen(heard.put, urgent=True)
    return heard


@pytest.fixture
def uplink(teller: Teller) -> queue.Queue[Notice]:
    heard: queue.Queue[Notice] = queue.Queue()
    teller.listen(heard.put, urgent=False)
    return heard


def test_an_alarm_without_a_commit_is_told_to_the_urgent_only(
    teller: Teller, siren: queue.Queue[Notice], uplink: queue.Queue[Notice]
) -> None:
    event = alarm()
    teller.expect(event)
    assert siren.get(timeout=PATIENT) == Notice(event, False)
    assert teller.wait_idle(PATIENT)
    assert uplink.empty()
    sealed = event.sealed(1, "l")
    teller.committed([sealed])
    assert uplink.get(timeout=PATIENT) == Notice(sealed, True)
    assert siren.empty(), "once is enough"


def test_alarms_keep_their_order_while_the_disk_fails(
    teller: Teller, siren: queue.Queue[Notice]
) -> None:
    teller.hurry(True)
    events = [alarm() for _ in range(100)]
    for event in events:
        teller.expect(event)
    assert [siren.get(timeout=PATIENT).event for _ in events] == events


def test_closing_tells_what_is_left() -> None:
    teller, heard = Teller(), queue.Queue[Notice]()
    teller.listen(heard.put, urgent=True)
    event = alarm()
    teller.expect(event)
    assert teller.close(PATIENT)
    assert heard.get_nowait().event == event


def test_a_listener_that_hangs_is_reported_at_the_end() -> None:
    teller, gate = Teller(), queue.Queue[None]()
    teller.listen(lambda notice: gate.get(timeout=PATIENT), urgent=True)
    teller.committed([alarm().sealed(1, "l")])
    assert not teller.wait_idle(0.01)
    assert not teller.close(0.01)
    gate.put(None)
    assert teller.close(PATIENT)


def test_who_listens_ahead_hears_of_an_alarm_before_its_commit(teller: Teller) -> None:
    ahead: list[Notice] = []
    forget = teller.listen_ahead(ahead.append)
    event = alarm()
    teller.expect(event)
    assert ahead == [Notice(event, False)]
    teller.committed([event.sealed(1, "l")])
    forget()
    teller.expect(alarm())
    assert len(ahead) == 1


def test_a_listener_that_hangs_is_noticed(teller: Teller, siren: queue.Queue[Notice]) -> None:
    go, hangs = threading.Event(), threading.Event()

    def listener(notice: Notice) -> None:
        hangs.set()
        go.wait(PATIENT)

    assert teller.stuck_s() == 0.0
    teller.listen(listener, urgent=True)
    teller.expect(alarm())
    assert hangs.wait(PATIENT)
    begun_s = time.monotonic()
    while teller.stuck_s() < 0.05:
        assert time.monotonic() - begun_s < PATIENT
    go.set()
    assert teller.wait_idle(PATIENT) and teller.stuck_s() == 0.0
