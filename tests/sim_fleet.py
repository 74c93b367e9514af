"""Devices down to their protocol: signed metadata, rollout, chunks, the update table and events are
the real ones, over MQTT of their own; only the model is not there, and whoever drives says how it
does on trial."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
from broker import Broker
from diaries import START_S, Diary

from edge_rt.adapters.mqtt import Acked, Closed, Connected, Mqtt, Received
from edge_rt.adapters.trust import Refused, refresh
from edge_rt.core.catalog import Catalog, Release, choose, decode_catalog
from edge_rt.core.mirror import limit_of
from edge_rt.core.twin import Reported
from edge_rt.core.update import Event, objection, step
from edge_rt.core.update_record import BY_PUBLISHER, Candidate, Record, State
from edge_rt.core.uplink_wire import ROOT, Topics
from edge_rt.core.wire import encode
from edge_rt.fleet.receiver import Receiver
from edge_rt.fleet.store import Store

FACTORY = "1.0.0"
MODELS = f"{ROOT}/home/models/"
IN_FLIGHT = 10
PATIENCE_S = 120.0


class SimDevice:
    """One device; its diary says what it has logged. Call turn() until it is idle()."""

    def __init__(self, broker: Broker, name: str, root: bytes, folder: Path) -> None:
        self.name = name
        self.topics = Topics("home", name)
        self.diary = Diary(name, boot=f"boot-{name}")
        self.record = Record()
        self.stamp = 0  # version of the timestamp that was verified last
        self.confirmed: list[str] = []
        self.ran: set[str] = set()  # versions that ever judged "live samples" here
        self._root, self._folder = root, folder
        (folder / "mirror").mkdir(parents=True)
        self._catalog = Catalog()
        self._unverified = False
        self._chunks: dict[int, bytes] = {}
        self._told = 0  # events of the diary that are on their way
        self._outbox: deque[tuple[str, bytes, bool]] = deque()
        self._flight: set[int] = set()
        self._mqtt = Mqtt(broker.settings(name))
        self._mqtt.open()
        self.online = False

    def turn(self) -> None:
        for fact in self._mqtt.poll(0.0):
            match fact:
                case Connected():
                    self.online = True
                    self._mqtt.subscribe([f"{MODELS}metadata/#"])
                    status = msgspec.json.encode({"status": "online"})
                    self._outbox.append((self.topics.status, status, True))
                case Received():
                    self._take(fact.topic.removeprefix(MODELS), fact.payload)
                case Acked():
                    assert fact.code < 128, f"{self.name}: refused: {fact.reason}"
                    self._flight.discard(fact.token)
                case Closed():
                    raise AssertionError(f"{self.name}: {fact.reason}")
        if self._unverified:
            self._verify()
        for event in self.diary.events[self._told :]:
            self._outbox.append((self.topics.event(event.kind), encode(event), False))
        self._told = len(self.diary.events)
        while self.online and self._outbox and len(self._flight) < IN_FLIGHT:
            topic, payload, retain = self._outbox.popleft()
            token = self._mqtt.publish(topic, payload, retain=retain)
            assert token is not None
            self._flight.add(token)

    def idle(self) -> bool:
        """Nothing of it is under way."""
        sent = self._told == len(self.diary.events) and not self._outbox and not self._flight
        return self.online and sent and self.record.state is not State.FETCHING

    def end_trial(self, reason: str = "") -> None:
        """The trial is over; reason: why the model is left."""
        self._move(Event.REFUSED if reason else Event.PASSED, reason=reason)
        if not reason:
            assert self.record.running is not None
            self.confirmed.append(self.record.running.version)

    @property
    def version(self) -> str:
        running = self.record.running
        return FACTORY if running is None else running.version

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.close()

    # ---- metadata, as runtime.update_fetch and the trust child do it ----

    def _take(self, name: str, payload: bytes) -> None:
        kind, rest = name.split("/", 1)
        if kind == "metadata":
            limit = limit_of(rest)
            if payload and limit is not None and len(payload) <= limit:
                (self._folder / "mirror" / rest).write_bytes(payload)
                self._unverified = (
                    self._unverified or (self._folder / "mirror/timestamp.json").exists()
                )
        elif payload:
            self._chunk(rest, payload)

    def _verify(self) -> None:
        self._unverified = False
        try:
            found = refresh(self._root, self._folder / "trusted", self._folder / "mirror")
        except Refused as refused:
            assert refused.missing, f"{self.name}: {refused}"
            return  # the rest of it is on its way
        self.stamp, self._catalog = found.timestamp_version, decode_catalog(found.catalog)
        self._compare()

    # ---- releases, as runtime.update_service compares them ----

    def _compare(self) -> None:
        record = self.record
        if record.running is not None:
            release = self._catalog.find(record.running.sha256)
            bad = ("withdrawn", "aborted") if record.state is State.TRIAL else ("withdrawn",)
            if release is not None and release.state in bad:
                self._move(Event.WITHDRAWN, reason=f"{release.state} {BY_PUBLISHER}")
        refused = [candidate.sha256 for candidate in self.record.refused]
        release = choose(
            self._catalog, "fall", self.name, FACTORY, name="fall-waist", refused=refused
        )
        if release is None or self.record.state is not State.IDLE:
            return
        candidate = Candidate(release.name, release.version, release.sha256, release.security_epoch)
        if not objection(self.record, candidate, 0, FACTORY):
            self._move(Event.CHOSEN, candidate=candidate)
            self._chunks.clear()
            names = (f"{MODELS}blob/{release.sha256}/{n}" for n in range(len(release.chunks)))
            self._mqtt.subscribe(list(names))

    def _chunk(self, name: str, payload: bytes) -> None:
        blob, number = name.split("/")
        release = self._wanted()
        if release is None or release.sha256 != blob:
            return
        assert sha256(payload).hexdigest() == release.chunks[int(number)]
        self._chunks[int(number)] = payload
        if len(self._chunks) == len(release.chunks):
            whole = b"".join(self._chunks[n] for n in sorted(self._chunks))
            assert sha256(whole).hexdigest() == release.sha256
            self._move(Event.STAGED)
            while self.record.state is not State.TRIAL:
                self._move(Event.PASSED)
            self._move(Event.ACTIVE)
            self.ran.add(release.version)

    def _wanted(self) -> Release | None:
        candidate = self.record.candidate
        if candidate is None or self.record.state is not State.FETCHING:
            return None
        return self._catalog.find(candidate.sha256)

    def _move(self, event: Event, reason: str = "", candidate: Candidate | None = None) -> None:
        self.record = step(self.record, event, reason=reason, candidate=candidate)
        self.diary.model = f"fall-waist {self.version}"
        for notice in self.record.notices:
            self.diary.add("model", notice.what, notice.data)
        self.record = msgspec.structs.replace(self.record, notices=())
        waiting = self.record.candidate
        row = {
            "name": "fall-waist",
            "version": self.version,
            "slot": self.record.live,
            "previous": self.record.previous,
            "state": self.record.state.value,
            "candidate": waiting and waiting.version,
        }
        report = msgspec.json.encode(Reported(0, {}, models={"fall": row}))
        self._outbox.append((f"{self.topics.base}/twin/reported", report, True))


class SimFleet:
    """Devices, the broker between, and the receiver; time is `hour` since START_S."""

    def __init__(self, broker: Broker, size: int, root: bytes, folder: Path) -> None:
        self.hour = 0.0
        self.store = Store(folder / "store")
        self.receiver = Receiver(
            broker.settings("@receiver", receive_maximum=1000),
            "home",
            self.store,
            wall=lambda: START_S + 3600.0 * self.hour,
        )
        self.until(lambda: self.receiver.subscribed)
        self.devices = [SimDevice(broker, f"pi-{n}", root, folder / f"pi-{n}") for n in range(size)]
        for device in self.devices:
            device.diary.started()
        self.settle(0)

    def until(self, done: Callable[[], bool], devices: bool = False) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, f"waited in vain at hour {self.hour}"
            self.receiver.turn(0.01)
            for device in self.devices if devices else ():
                device.turn()

    def settle(self, stamp: int) -> None:
        """Until every device has verified the catalog of this timestamp, done what it says, and
        the receiver has kept all that they tell of it."""

        def settled() -> bool:
            told = sum(len(device.diary.events) for device in self.devices)
            return (
                all(device.stamp >= stamp and device.idle() for device in self.devices)
                and self.receiver.counts["stored"] == told
            )

        self.until(settled, devices=True)

    def pass_days(self, days: int, day: Callable[[SimDevice, int, int], None]) -> None:
        """`day(device, its number, day)` for each device at the end of each day."""
        for _ in range(days):
            self.hour += 24.0
            for number, device in enumerate(self.devices):
                device.diary.hour = self.hour
                day(device, number, round(self.hour / 24.0))
        self.settle(0)
        self.store.note_listening(START_S + 3600.0 * self.hour)

    def ran(self, version: str) -> set[str]:
        return {device.name for device in self.devices if version in device.ran}

    def on_trial(self) -> list[SimDevice]:
        return [device for device in self.devices if device.record.state is State.TRIAL]

    def close(self) -> None:
        for device in self.devices:
            device.close()
        self.receiver.close()
        self.store.close()
