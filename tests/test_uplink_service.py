"""The uplink with a real event log, a real broker and the reference receiver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki

from edge_rt.adapters.eventlog import DEFAULT_MAX_BYTES, EventLog
from edge_rt.adapters.eventreader import EventReader
from edge_rt.adapters.mqtt import Mqtt, Received
from edge_rt.core.errors import StorageError
from edge_rt.core.uplink import Rules
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_link import Backoff, State
from edge_rt.core.uplink_wire import Topics, decode_status
from edge_rt.core.wire import Event, Lane, source_of
from edge_rt.fleet.receiver import Receiver
from edge_rt.fleet.store import Arrived, Store
from edge_rt.runtime.compose_commands import receipts
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps
from edge_rt.runtime.uplink_service import UplinkService

BOOT = "b" * 32
QUICK = Backoff(first_s=0.05, cap_s=0.2, refused_cap_s=0.2)
RULES = Rules(resend_s=1.0, refused_s=0.2, refused_cap_s=0.2)
PATIENCE_S = 10.0


class Device:
    """Recorder, log and uplink of one device."""

    def __init__(
        self,
        folder: Path,
        config: MqttConfig,
        name: str = "dev1",
        max_bytes: int = DEFAULT_MAX_BYTES,
        stamps: Stamps | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / "log.sqlite"
        self.topics = Topics("home", name)
        self.unheard: list[str] = []
        self.closed = False
        self.recorder = Recorder(
            lambda d, check: EventLog(self.path, d, max_bytes=max_bytes, check=check),
            stamps or Stamps(source_of("home", name), BOOT),
        )
        assert self.recorder.flush(10)
        self.uplink = UplinkService(
            config,
            self.topics,
            self.recorder,
            self.path,
            self.unheard.append,
            boot_id=BOOT,
            open_receipt=receipts(self.topics, config),
            rules=RULES,
            backoff=QUICK,
        )

    def announce(self, kind: str, what: str, **data: Any) -> Event:
        return self.recorder.announce(kind, what, data).result(10)

    def backlog(self, count: int) -> None:
        tickets = [
            self.recorder.announce("device", "clock_stepped", {"n": n}) for n in range(count)
        ]
        assert all(ticket.result(10) for ticket in tickets)

    def awaiting(self) -> int:
        reader = EventReader(self.path)
        found = sum(len(reader.next_unreceipted(lane, 0, 1000)) for lane in Lane)
        reader.close()
        return found

    def events(self, kind: str, what: str) -> list[Event]:
        reader = EventReader(self.path)
        found = [stored.event for stored in reader.read(0, 1000)]
        reader.close()
        return [event for event in found if (event.kind, event.what) == (kind, what)]

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.uplink.stop()
            self.recorder.close(5)


class Site:
    """The other side, driven by the test."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.store = Store(folder)
        self.arrived: list[Arrived] = []
        self.receiver = Receiver(broker.settings("@receiver"), "home", self.store, backoff=QUICK)
        self.receiver.listeners = self.receiver.listeners._replace(event=self.arrived.append)
        self.until(lambda: self.receiver.subscribed)

    def until(self, done: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, f"nothing came of it in {timeout_s} s"
            self.receiver.turn(0.02)

    def whats(self) -> list[str]:
        return [arrived.event.what for arrived in self.arrived]

    def close(self) -> None:
        self.receiver.close()
        self.store.close()


Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, make_broker: Callable[..., Broker]) -> Iterator[Make]:
    """`make(Device, ...)` or `make(Site, ...)`: closed after the test."""
    made: list[Device | Site] = []

    def build(kind: type[Device] | type[Site], *arguments: Any, **more: Any) -> Any:
        made.append(kind(*arguments, **more))
        return made[-1]

    yield build
    for thing in reversed(made):
        thing.close()


def config_for(broker: Broker, **more: Any) -> MqttConfig:
    """How a device called dev1 connects to this broker."""
    if broker.pki is None:
        return MqttConfig(host=broker.host, port=broker.port, insecure=True, **more)
    cert, key = broker.pki.client("dev1")
    ca = str(broker.pki.authority.folder / "ca.crt")
    return MqttConfig(
        host=broker.host, port=broker.port, ca=ca, cert=str(cert), key=str(key), **more
    )


def wait_for(done: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not done():
        assert time.monotonic() < deadline, f"nothing came of it in {timeout_s} s"
        pause.wait(0.01)  # another thread's progress can only be watched


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_events_arrive_are_receipted_and_presence_is_told(
    make_broker: Callable[..., Broker], pki: Pki, make: Make, tmp_path: Path, version: str
) -> None:
    broker = make_broker(pki)
    site = make(Site, broker, tmp_path / "site")
    device = make(Device, tmp_path / "device", config_for(broker, version=version))
    device.announce("device", "started")
    device.uplink.start()
    event = device.announce("fall", "alarm", incident="i")
    site.until(lambda: device.awaiting() == 0)
    assert [a.event.id for a in site.arrived if a.event.what == "alarm"] == [event.id]
    assert sorted(site.whats()) == ["alarm", "started"]
    site.until(lambda: site.receiver.devices["dev1"].status == "online")
    status = device.uplink.status()
    assert (status["state"], status["refused"], status["bad_input"]) == ("online", 0, 0)
    assert device.uplink.stop()
    site.until(lambda: site.receiver.devices["dev1"].status == "stopped")


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_an_alarm_overtakes_a_backlog(
    make_broker: Callable[..., Broker], pki: Pki, make: Make, tmp_path: Path, version: str
) -> None:
    broker = make_broker(pki)
    site = make(Site, broker, tmp_path / "site")
    device = make(Device, tmp_path / "device", config_for(broker, version=version))
    device.backlog(300)
    device.announce("fall", "alarm", incident="i")
    device.uplink.start()
    site.until(lambda: len(site.arrived) == 301)
    assert site.whats()[0] == "alarm"
    numbers = [a.event.data["n"] for a in site.arrived[1:]]
    assert numbers == list(range(300)), "telemetry keeps its order"


def test_an_alarm_that_nobody_receipts_sounds_the_siren_and_is_logged(
    make_broker: Callable[..., Broker], pki: Pki, make: Make, tmp_path: Path
) -> None:
    broker = make_broker(pki)  # it acknowledges, and nobody is there
    device = make(Device, tmp_path / "device", config_for(broker, alarm_patience_s=1.0))
    device.uplink.start()
    device.announce("fall", "alarm", incident="i")
    device.announce("fall", "alarm", incident="came")
    device.announce("fall", "resolved", incident="came")
    wait_for(lambda: device.unheard == ["i"])
    assert device.uplink.status()["acked"] >= 2
    wait_for(lambda: bool(device.events("device", "alarm_unheard")))
    site = make(Site, broker, tmp_path / "site")
    site.until(lambda: device.awaiting() == 0)
    assert device.uplink.status()["alarms_unheard"] == 0
    assert device.unheard == ["i"]


def test_an_alarm_of_an_earlier_run_is_watched_too(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path
) -> None:
    config = config_for(make_broker(None, start=False), alarm_patience_s=1.0)
    before = make(Device, tmp_path / "device", config)
    before.announce("fall", "alarm", incident="i")
    assert before.recorder.close(5)
    after = make(Device, tmp_path / "device", config)
    after.uplink.start()
    wait_for(lambda: after.unheard == ["i"])


def test_an_alarm_of_an_earlier_run_is_watched_though_its_log_opens_late(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path
) -> None:
    config = config_for(make_broker(None, start=False), alarm_patience_s=1.0)
    before = make(Device, tmp_path / "device", config)
    before.announce("fall", "alarm", incident="i")
    assert before.recorder.close(5)
    well = threading.Event()

    def open_log(draft: Any, check: bool) -> EventLog:
        if not well.is_set():
            raise StorageError("no disk yet")
        return EventLog(before.path, draft, check=check)

    unheard: list[str] = []
    recorder = Recorder(open_log, Stamps(source_of("home", "dev1"), BOOT))
    uplink = UplinkService(
        config, before.topics, recorder, before.path, unheard.append, boot_id=BOOT, backoff=QUICK
    )
    try:
        wait_for(lambda: recorder.status().storage == "failing")
        begun_s = uplink.turned_s
        uplink.start()
        wait_for(lambda: uplink.turned_s > begun_s)
        well.set()
        wait_for(lambda: unheard == ["i"])
    finally:
        uplink.stop()
        recorder.close(5)


def test_a_refusal_is_a_status_and_one_event_and_no_loop(
    make_broker: Callable[..., Broker], pki: Pki, make: Make, tmp_path: Path
) -> None:
    broker = make_broker(pki)
    # It calls itself dev2, its certificate says dev1: the ACL refuses all it writes.
    device = make(Device, tmp_path / "device", config_for(broker), name="dev2")
    device.backlog(3)
    device.uplink.start()
    wait_for(lambda: device.uplink.status()["refused"] >= 6)  # and it tries again
    assert "Not authorized" in device.uplink.status()["error"]
    told = [event.data for event in device.events("device", "uplink_refused")]
    assert told == [
        {"what": what, "reason": "Not authorized"}
        for what in dict.fromkeys(d["what"] for d in told)
    ]
    assert {"telemetry"} <= {data["what"] for data in told}
    assert device.uplink.status()["connects"] == 1


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_refused_login_is_told_once_and_tried_on(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path, version: str
) -> None:
    broker = make_broker(None, more="allow_anonymous false")
    device = make(Device, tmp_path / "device", config_for(broker, version=version))
    device.uplink.start()
    wait_for(lambda: device.uplink.status()["tries"] >= 3)
    wait_for(lambda: len(device.events("device", "uplink_refused")) == 1)
    assert "Not authorized" in device.uplink.status()["error"]


def test_an_event_over_the_brokers_packet_size_is_told_of_and_skipped(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path
) -> None:
    broker = make_broker(None, more="max_packet_size 2000")
    site = make(Site, broker, tmp_path / "site")
    device = make(Device, tmp_path / "device", config_for(broker))
    device.announce("device", "started", pad="x" * 3000)
    device.announce("fall", "alarm", incident="i")
    device.uplink.start()
    site.until(lambda: device.awaiting() == 0)
    assert sorted(site.whats()) == ["alarm", "dropped"]
    dropped = next(a.event.data for a in site.arrived if a.event.what == "dropped")
    assert (dropped["reason"], dropped["ranges"]) == ("over_packet_size", [[1, 1]])
    (key,) = site.store.known()
    assert site.store.log(*key).gaps() == [], "what was dropped is accounted for"


NASTY = [
    b"",
    b"{",
    b"null",
    b"\xff\xfe",
    b"[" * 50_000,
    b'{"logid":"l","lanes":' + b'{"alarm":' * 5000,
    b'{"logid":1,"lanes":{}}',
    b'{"logid":"l","lanes":{"vip":{"upto":1}}}',
    b'{"logid":"l","lanes":{"alarm":{"upto":-1}}}',
    b'{"logid":"l","lanes":{"alarm":{"upto":1e300}}}',
    b'{"logid":"l","lanes":{"alarm":{"upto":5,"missing":[[1]]}}}',
    b'{"logid":"l","lanes":{"alarm":{"upto":5,"missing":[' + b"[1,2]," * 300 + b"[1,2]]}}}",
    b" " * 100_000,
]


def test_whatever_comes_as_a_receipt_the_uplink_goes_on(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path
) -> None:
    broker = make_broker(None)
    device = make(Device, tmp_path / "device", config_for(broker))
    device.uplink.start()
    wait_for(lambda: device.uplink.status()["state"] == State.ONLINE)
    stranger = Mqtt(broker.settings("stranger"))
    stranger.open()
    wait_for(lambda: bool(stranger.poll(0.1)))
    for payload in NASTY:
        assert stranger.publish(device.topics.ack, payload) is not None
        stranger.poll(0.01)
    wait_for(lambda: device.uplink.status()["bad_input"] == len(NASTY))
    # Well-formed, and a lie: receipts what was never sent, and what is of another log.
    event = device.announce("device", "started")
    for logid in (event.logid, "other"):
        lie = {"logid": logid, "lanes": {"event": {"upto": 10**11, "missing": [[1, 1]]}}}
        assert stranger.publish(device.topics.ack, msgspec.json.encode(lie)) is not None
    site = make(Site, broker, tmp_path / "site")
    device.announce("fall", "alarm", incident="i")
    site.until(lambda: device.awaiting() == 0)
    assert sorted(site.whats()) == ["alarm", "started"]
    stranger.close()


def test_a_log_that_started_anew_is_followed(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path
) -> None:
    broker = make_broker(None)
    site = make(Site, broker, tmp_path / "site")
    device = make(Device, tmp_path / "device", config_for(broker))
    device.backlog(5)
    device.uplink.start()
    site.until(lambda: len(site.arrived) == 5)
    assert device.uplink.stop()
    assert device.recorder.close(5)
    device.path.write_bytes(b"not a database, by the look of it" * 100)
    again = make(Device, tmp_path / "device", config_for(broker))
    again.uplink.start()
    site.until(lambda: len(site.arrived) == 6)
    assert site.arrived[-1].event.data["reason"] == "log_damaged"
    assert len(site.store.known()) == 2


def test_a_killed_connection_is_told_by_the_last_will(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path
) -> None:
    broker = make_broker(None)
    watcher = Mqtt(broker.settings("watcher"))
    watcher.open()
    wait_for(lambda: bool(watcher.poll(0.1)))
    device = make(Device, tmp_path / "device", config_for(broker))
    watcher.subscribe([device.topics.status])
    device.uplink.start()
    found: list[str] = []

    def heard(status: str) -> bool:
        for fact in watcher.poll(0.1):
            if isinstance(fact, Received):
                found.append(decode_status(fact.payload).status)
        return status in found

    wait_for(lambda: heard("online"))
    thief = Mqtt(broker.settings("home-dev1"))  # the same client id: the broker ends the older
    thief.open()
    wait_for(lambda: bool(thief.poll(0.1)))
    wait_for(lambda: heard("offline"))
    thief.close()
    watcher.close()


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize(
    ("count", "max_bytes"),
    [
        pytest.param(6_000, 2**20, id="commit"),
        pytest.param(100_000, 2**23, id="release", marks=pytest.mark.release),
    ],
)
def test_a_day_without_a_broker_keeps_alarms_and_accounts_for_what_went(
    make_broker: Callable[..., Broker], make: Make, tmp_path: Path, count: int, max_bytes: int
) -> None:
    broker = make_broker(None, start=False)
    elapsed = [0]

    def seconds() -> float:  # the day passes evenly with the events
        return 1.8e9 + 86_400 * elapsed[0] / count

    stamps = Stamps(source_of("home", "dev1"), BOOT, wall_s=seconds, monotonic_s=seconds)
    device = make(
        Device, tmp_path / "device", config_for(broker), max_bytes=max_bytes, stamps=stamps
    )
    device.uplink.start()
    alarms = set()
    early_mb = 0.0
    for start in range(0, count, 500):
        tickets = []
        for n in range(start, start + 500):
            elapsed[0] = n
            what = ("clock_stepped", "not_worn", "storage_low")[n % 3]
            tickets.append(device.recorder.announce("device", what, {"n": n}))
        alarms.add(device.announce("fall", "suspected", incident=f"i{start}").id)
        assert all(ticket.result(30) for ticket in tickets)
        early_mb = early_mb or resident_mb() * (start >= count // 10)
    assert resident_mb() - early_mb < 8, "memory grew with the length of the outage"
    assert device.path.stat().st_size < 1.3 * max_bytes
    assert device.recorder.status().log_bytes < 1.2 * max_bytes
    # Once the alarms leave it the disk; else what has arrived would be trimmed, and counted, too.
    wait_for(lambda: device.recorder.status().log_bytes <= max_bytes)
    device.close()
    broker.start()
    # The receiver is there first: what a broker takes for nobody comes later, and out of order.
    site = make(Site, broker, tmp_path / "site")
    device = make(
        Device, tmp_path / "device", config_for(broker), max_bytes=max_bytes, stamps=stamps
    )
    device.uplink.start()
    site.until(lambda: device.awaiting() == 0, 60)
    assert alarms <= {a.event.id for a in site.arrived}
    first_others = [a.event.what for a in site.arrived].index("storage_low")
    assert first_others >= len(alarms), "alarms come first"
    told = [a.event.data["count"] for a in site.arrived if a.event.what == "dropped"]
    (key,) = site.store.known()
    # Nothing just vanished: what did not come was told of, range by range.
    assert site.store.log(*key).gaps() == []
    assert sum(told) > count // 2
    assert len(site.arrived) + sum(told) == device.recorder.status().last_sequence
