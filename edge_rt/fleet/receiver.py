"""The reference receiver: stores first, receipts then, drops repeats, sees gaps and silence."""

from __future__ import annotations

import logging
import random as random_module
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from edge_rt.adapters import mqtt
from edge_rt.core.errors import InputError
from edge_rt.core.uplink_link import Backoff, Event, Link, State
from edge_rt.core.uplink_wire import ROOT, Topics, decode_status, sign_receipt
from edge_rt.core.wire import decode, rfc3339, source_of
from edge_rt.fleet.store import Arrived, Store

log = logging.getLogger(__name__)

# Receipts without PUBACK; mosquitto takes 20 at once unless told otherwise.
WINDOW = 20
# Receipts of a backlog are joined for so long, of an alarm they go at once.
RECEIPT_S = 0.02
# A device is only called silent after this: a reconnect takes a moment.
DEFAULT_SILENT_S = 60.0
# How far it has listened is noted so often: a write to the disk each.
LISTENED_S = 60.0
MAX_DEVICES = 10_000  # status lines and last-heard times are a few hundred bytes each


class Device(NamedTuple):
    """What is known of one device. Times are monotonic seconds of the receiver.

    heard_s  last word of it; 0: none yet
    """

    topics: Topics
    status: str = "unknown"
    heard_s: float = 0.0
    offline_since_s: float | None = None
    silent_told: bool = False


class Listeners(NamedTuple):
    """What an application wants to hear of; each returns at once."""

    event: Callable[[Arrived], None] = lambda arrived: None
    silent: Callable[[Topics], None] = lambda topics: None
    back: Callable[[Topics], None] = lambda topics: None


class Receiver:
    """Call turn() again and again from one thread; close() at the end.

    fleet      whose events; the broker's ACL must let this client read them and write each `ack`
    silent_s   a device is silent when the broker has called it offline for so long
    unheard_s  ... or nothing has come of it for so long, telemetry included; 0: never
    sign       text to Ed25519 signature, by the operations key; None: receipts go unsigned
    `error` says why there is no connection, or what the broker refuses: a line, with the remedy.
    Raises StorageError from turn() when the store cannot be written: nothing of that batch was
    receipted, so it comes again after a new start.
    """

    def __init__(
        self,
        settings: mqtt.Settings,
        fleet: str,
        store: Store,
        *,
        silent_s: float = DEFAULT_SILENT_S,
        unheard_s: float = 0.0,
        listeners: Listeners | None = None,
        sign: Callable[[bytes], bytes] | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.fleet = fleet
        self.store = store
        self.devices: dict[str, Device] = {}
        self.counts = dict.fromkeys(("stored", "repeats", "bad_input", "receipts"), 0)
        self.error = ""
        self.subscribed = False
        self._silent_s = silent_s
        self._unheard_s = unheard_s
        self._online_s = 0.0
        self._noted_s = float("-inf")
        self.listeners = listeners or Listeners()
        self._sign = sign
        self._due: dict[tuple[str, str], float] = {}
        self._in_flight: set[int] = set()
        self._window = WINDOW
        self._clock = clock
        self._wall = wall
        self._mqtt = mqtt.Mqtt(settings)
        self._link = Link(backoff or Backoff(), random)

    @property
    def state(self) -> State:
        return self._link.state

    def wake(self) -> None:
        """Make a waiting turn() return; from any thread or signal handler."""
        self._mqtt.wake()

    def turn(self, timeout_s: float = 1.0) -> None:
        """Wait for news up to `timeout_s`, store it, receipt it."""
        now = self._clock()
        if self._link.state is State.WAITING:
            if now >= self._link.due_s:
                self._link.step(Event.DUE, now)
                self._mqtt.open()
            else:
                timeout_s = min(timeout_s, self._link.due_s - now)
        if self._due and self._link.state is State.ONLINE and len(self._in_flight) < self._window:
            timeout_s = min(timeout_s, max(0.0, min(self._due.values()) - now))
        batch: list[Arrived] = []
        for fact in self._mqtt.poll(timeout_s):
            match fact:
                case mqtt.Received():
                    self._take(fact, batch)
                case mqtt.Connected():
                    self._link.step(Event.ACCEPTED, self._clock())
                    self.error = ""
                    self._in_flight.clear()
                    self._window = min(WINDOW, fact.receive_maximum or WINDOW)
                    self._online_s = self._clock()
                    self._mqtt.subscribe(self._filters())
                case mqtt.Closed():
                    self._closed(fact)
                case mqtt.Subscribed():
                    self.subscribed = not fact.refused
                    if fact.refused:
                        names = ", ".join(f"{name} ({why})" for name, why in fact.refused)
                        self.error = f"the broker refuses us {names}; see its access list"
                case mqtt.Acked():
                    self._in_flight.discard(fact.token)
                    if fact.code >= 128:
                        why = fact.reason
                        self.error = f"the broker refused a receipt: {why}; see its access list"
        if batch:
            self._keep(batch)
        self._receipt()
        self._note_listening()
        self._look_for_silence()

    def close(self) -> None:
        """Say goodbye to the broker; the store stays open."""
        self._link.step(Event.STOP, self._clock())
        self._mqtt.disconnect()
        self._mqtt.close()

    # ---- helpers ----

    def _filters(self) -> list[str]:
        base = f"{ROOT}/{self.fleet}/+"
        signs_of_life = [f"{base}/dt/+"] if self._unheard_s else []
        return [f"{base}/evt/+", f"{base}/status", *signs_of_life]

    def _closed(self, fact: mqtt.Closed) -> None:
        if self._link.state in (State.CONNECTING, State.ONLINE):
            self.error = fact.line
            self.subscribed = False
            self._link.step(Event.REFUSED if fact.refused else Event.LOST, self._clock())

    def _take(self, fact: mqtt.Received, batch: list[Arrived]) -> None:
        try:
            topics, rest = Topics.parse(fact.topic)
            if rest == "status":
                self._status(topics, decode_status(fact.payload).status, fact.retained)
                return
            if rest.startswith("dt/"):
                source_of(topics.fleet, topics.device)
                self._heard(topics)
                return
            event = decode(fact.payload)
            # The broker vouches for the topic by its ACL; the payload must not claim another.
            if event.source != source_of(topics.fleet, topics.device):
                raise InputError(f"{topics.device} sent an event of {event.source!r:.100}")
            if rest != f"evt/{event.kind}":
                raise InputError(f"event of kind {event.kind} came on {rest!r:.100}")
            if not (event.sequence.isascii() and event.sequence.isdigit() and event.logid):
                raise InputError(f"{topics.device} sent an event without its place in a log")
            if len(event.sequence) > 12 or int(event.sequence) < 1 or len(event.logid) > 64:
                raise InputError(f"{topics.device} sent an event with an impossible place")
        except InputError as error:
            self.counts["bad_input"] += 1
            log.warning("fleet: %s", error)
            return
        self._heard(topics)
        batch.append(Arrived(event, fact.payload, rfc3339(self._wall())))

    def _keep(self, batch: list[Arrived]) -> None:
        fresh, touched = self.store.add(batch)
        self.counts["stored"] += len(fresh)
        self.counts["repeats"] += len(batch) - len(fresh)
        now = self._clock()
        hurried = {(a.event.source, a.event.logid) for a in batch if a.event.kind == "fall"}
        for key in touched:
            due_s = now if key in hurried else now + RECEIPT_S
            self._due[key] = min(due_s, self._due.get(key, due_s))
        for arrived in fresh:
            self.listeners.event(arrived)

    def _receipt(self) -> None:
        """Send the receipts that are due, as far as the broker takes them at once."""
        now = self._clock()
        for source, logid in [key for key, due_s in self._due.items() if due_s <= now]:
            if len(self._in_flight) >= self._window:
                return
            _, _, fleet, device = source.split("/")
            topics = Topics(fleet, device)
            body = msgspec.json.encode(self.store.log(source, logid).receipt(logid))
            if self._sign is not None:
                body = sign_receipt(topics, body, self._sign)
            token = self._mqtt.publish(topics.ack, body)
            if token is None:  # the connection went: what was in doubt comes again
                return
            del self._due[source, logid]
            self._in_flight.add(token)
            self.counts["receipts"] += 1

    def _note_listening(self) -> None:
        now = self._clock()
        if self.subscribed and now - self._noted_s >= LISTENED_S:
            self._noted_s = now
            self.store.note_listening(self._wall())

    def _device(self, topics: Topics) -> Device | None:
        known = self.devices.get(topics.device)
        if known is None and len(self.devices) < MAX_DEVICES:
            known = Device(topics)
        return known

    def _heard(self, topics: Topics) -> None:
        device = self._device(topics)
        if device is None:
            return
        back = device.silent_told and device.offline_since_s is None
        if back:
            self.listeners.back(topics)
        told = device.silent_told and not back
        self.devices[topics.device] = device._replace(heard_s=self._clock(), silent_told=told)

    def _status(self, topics: Topics, status: str, retained: bool) -> None:
        device = self._device(topics)
        if device is None:
            return
        if status != device.status:
            source = source_of(topics.fleet, topics.device)
            self.store.note_status(source, status, rfc3339(self._wall()))
        changes: dict[str, Any] = {"status": status}
        # Where a word counts, what the broker remembers is none.
        if not (retained and self._unheard_s):
            changes["heard_s"] = self._clock()
        if status == "offline":
            if device.offline_since_s is None:
                changes["offline_since_s"] = self._clock()
        else:
            changes["offline_since_s"] = None
            changes["silent_told"] = False
            if device.silent_told:
                self.listeners.back(topics)
        self.devices[topics.device] = device._replace(**changes)

    def _look_for_silence(self) -> None:
        now = self._clock()
        for name, device in self.devices.items():
            if not device.silent_told and self._is_silent(device, now):
                log.error("fleet: device %s is silent", name)
                self.devices[name] = device._replace(silent_told=True)
                self.listeners.silent(device.topics)

    def _is_silent(self, device: Device, now: float) -> bool:
        if device.offline_since_s is not None:
            return now - device.offline_since_s >= self._silent_s
        if (
            not self._unheard_s
            or device.status == "stopped"
            or self._link.state is not State.ONLINE
        ):
            return False  # a clean end; or it is we who hear nothing
        return now - max(device.heard_s, self._online_s) >= self._unheard_s
