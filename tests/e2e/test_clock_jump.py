"""A daemon whose clock starts in 1970, jumps to the present, and back: libfaketime turns it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Pki
from daemons import Running, daemon
from test_daemon_mqtt import config

from edge_rt.core.wire import Event
from edge_rt.fleet.receiver import Receiver
from edge_rt.fleet.store import Store
from edge_rt.runtime.clock import clock_trusted

# Debian's places, by architecture.
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
EPOCH, PRESENT = "@1970-01-01 00:00:10", "+0"


class Clock:
    """What the daemon's wall clock shows; the monotonic one goes on undisturbed."""

    def __init__(self, folder: Path) -> None:
        if not LIBRARIES:
            pytest.skip("libfaketime is not installed: apt-get install libfaketime")
        self._file = folder / "clock"
        self.set(EPOCH)
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "TZ": "UTC",
        }

    def set(self, what: str) -> None:
        new = self._file.with_name("clock.new")
        new.write_text(what + "\n")
        new.replace(self._file)


class Site:
    """The other side, whose clock is right."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.receiver = Receiver(broker.settings("@receiver"), "home", Store(folder))
        self.events: list[Event] = []
        self.receiver.listeners = self.receiver.listeners._replace(
            event=lambda arrived: self.events.append(arrived.event)
        )
        while not self.receiver.subscribed:
            self.receiver.turn(1.0)
            assert not self.receiver.error

    def heard(self, what: str, count: int = 1) -> list[Event]:
        """The events of this kind, once there are so many."""
        self.receiver.turn(0.05)
        found = [event for event in self.events if event.what == what]
        return found if len(found) >= count else []


def test_events_keep_their_order_over_the_jump_and_say_what_the_clock_is_worth(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    broker = make_broker(pki)
    site = Site(broker, tmp_path / "site")
    idle = config(broker)
    idle["falls"]["source"] = {"driver": "simulated", "scene": "sitting"}

    def help_now(running: Running, count: int) -> Event:
        running.call("help_now")
        found: list[Event] = running.wait(lambda: site.heard("alarm", count), "the alarm")
        running.call("resolve")
        running.wait(lambda: site.heard("resolved", count), "its end")
        return found[-1]

    with daemon(tmp_path, idle, environment=clock.environment) as running:
        (started,) = running.wait(lambda: site.heard("started"), "TLS in 1970")
        assert started.time.startswith("1970-01-01T00:00:")
        first = help_now(running, 1)
        assert first.time.startswith("1970-01-01T00:")
        clock.set(PRESENT)
        second = help_now(running, 2)
        year = str(time.gmtime().tm_year)
        assert second.time.startswith(year)
        assert status(running)["connects"] == 1, "a jump ends no connection"
        assert status(running)["alarms_unheard"] == 0
        # TLS afresh, at a time when the one before was half a century ago.
        broker.kill()
        broker.start()
        third = help_now(running, 3)
        clock.set(EPOCH)
        fourth = help_now(running, 4)
        assert running.stop() == 0
    alarms = [first, second, third, fourth]
    assert [event.time[:4] for event in alarms] == ["1970", year, year, "1970"]
    # 1970 is never believed; the present as far as this machine's kernel believes it.
    believed = clock_trusted()
    assert [e.clocktrusted for e in alarms] == [False, believed, believed, False]
    assert not started.clocktrusted
    by_place = sorted(site.events, key=lambda event: event.sequence)
    assert [int(e.sequence) for e in by_place] == list(range(1, len(by_place) + 1))
    stamps = [int(event.monotonicms) for event in by_place]
    assert stamps == sorted(stamps)
    assert {event.bootid for event in by_place} == {started.bootid}
    site.receiver.close()


def status(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = running.status()["mqtt"]
    return found
