"""Brings a publisher's folder to the broker, as retained messages: chunks, then metadata."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge_rt.adapters import mqtt
from edge_rt.adapters.statefile import AtomicFile
from edge_rt.core.catalog import Release
from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.mirror import TIMESTAMP_NAME, limit_of
from edge_rt.core.uplink_wire import ROOT
from edge_rt.fleet.publisher import Publisher

log = logging.getLogger(__name__)

SENT_NAME = "sent.json"
# Messages without PUBACK; mosquitto takes 20 at once unless told otherwise. 1.25 MB of chunks.
WINDOW = 20
# Without a sign of the broker for so long an upload is given up.
PATIENCE_S = 30.0
TRIES = 5  # connections in a row in which nothing was taken
# What the broker has retained comes right behind its answer to the subscription.
LOOK_S, QUIET_S = 10.0, 0.5
MAX_RETAINED = 200  # metadata files; we keep some 40 there
# A lost `sent.json` makes the next upload complete; it names chunks of 100,000 releases.
MAX_SENT_BYTES = 16 * 1024 * 1024

Progress = Callable[[int, int], None]
"""`progress(bytes done, bytes in all)`"""


class Sent(msgspec.Struct):
    """What lies on the broker, by name below `models/`.

    version  of the timestamp seen there last
    topics   are there
    unsure   may be: an upload was cut short
    """

    broker: str = ""
    version: int = 0
    topics: list[str] = []
    unsure: list[str] = []


class Done(NamedTuple):
    """What an upload did: messages sent and cleared, bytes sent."""

    sent: int
    cleared: int
    bytes: int
    complete: bool  # no chunk was assumed to be there


class _Out(NamedTuple):
    name: str
    load: Callable[[], bytes]
    size: int


class Upload:
    """One connection of the operator's: catch_up(), sign something, run(), close()."""

    def __init__(
        self,
        publisher: Publisher,
        settings: mqtt.Settings,
        *,
        progress: Progress = lambda done, total: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._base = f"{ROOT}/{publisher.config.fleet}/models"
        self._place = f"{settings.host}:{settings.port}"
        self._mqtt = mqtt.Mqtt(settings)
        self._progress = progress
        self._clock = clock
        self._record = AtomicFile(publisher.folder / SENT_NAME, MAX_SENT_BYTES)
        self._window = WINDOW
        self._max_packet_bytes = 0
        self._done_bytes = 0
        self._sent: Sent | None = None

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._mqtt.disconnect()
        self._mqtt.close()

    def catch_up(self, *, again: bool = False) -> None:
        """Connect, and go on from what the broker holds: a timer, or another computer of ours, may
        have signed since. Comes before signing: a version counts once.

        again: what the broker holds and is not ours will be overwritten
        Raises InputError when the broker cannot be reached, or holds what is not ours.
        """
        self._connect()
        retained = self._retained()
        stamp = retained.get(TIMESTAMP_NAME)
        try:
            if stamp:
                self._publisher.catch_up(retained)
        except InputError as error:
            if not again:
                raise
            log.warning("%s: overwritten", error)
        sent = self._load()
        # A broker that lost its store, or got an old one back, holds less than we saw there.
        if sent.broker != self._place or not stamp or version_of(stamp) < sent.version:
            sent = Sent(self._place)
        self._sent = sent

    def run(self, *, again: bool = False, chunks: bool = True) -> Done:
        """Send what is not there, then clear what nothing refers to.

        again: send everything; chunks: False leaves those on the broker as they are, as a computer
        must that has none
        Raises InputError when the broker cannot be reached, refuses, or falls silent.
        """
        if self._sent is None:
            self.catch_up(again=again)
        assert self._sent is not None
        there = [] if again else self._sent.topics
        metadata = self._publisher.metadata()
        offer = self._publisher.on_offer() if chunks else []
        blobs = {out.name: out for release in offer for out in self._chunks(release)}
        files = {
            out.name: out
            for name, data in metadata.items()
            for out in [_Out(f"metadata/{name}", partial(bytes, data), len(data))]
        }
        fresh = [out for name, out in blobs.items() if name not in set(there)]
        known = list(dict.fromkeys([*self._sent.topics, *self._sent.unsure, *blobs, *files]))
        # What follows may be cut short anywhere; noted first, nothing is left behind there.
        version = self._publisher.repository.versions["timestamp"]
        self._save(Sent(self._place, self._sent.version, there, known))
        total = sum(out.size for out in (*fresh, *files.values()))
        self._send(fresh, total)
        for out in files.values():  # one by one: each must be there before what refers to it
            self._send([out], total)
        rest = [
            name
            for name in known
            if name not in blobs and name not in files and (chunks or name.startswith("metadata/"))
        ]
        self._send([_Out(name, bytes, 0) for name in rest], total)
        self._save(Sent(self._place, version, [name for name in known if name not in rest]))
        complete = bool(chunks and len(fresh) == len(blobs))
        return Done(len(fresh) + len(files), len(rest), total, complete)

    # ---- what there is ----

    def _chunks(self, release: Release) -> Iterator[_Out]:
        path = self._publisher.blob(release)
        for chunk in range(len(release.chunks)):
            at, length = chunk * release.chunk_bytes, release.length(chunk)
            load = partial(_slice, path, at, length)
            yield _Out(f"blob/{release.sha256}/{chunk}", load, length)

    def _load(self) -> Sent:
        try:
            data = self._record.read()
            return msgspec.json.decode(data, type=Sent) if data else Sent()
        except (StorageError, msgspec.DecodeError) as error:
            log.warning("%s: %s; everything is sent again", SENT_NAME, error)
            return Sent()

    def _save(self, sent: Sent) -> None:
        self._record.write(msgspec.json.encode(sent))

    # ---- the broker ----

    def _connect(self) -> None:
        self._mqtt.open()
        deadline_s = self._clock() + PATIENCE_S
        while self._clock() < deadline_s:
            for fact in self._mqtt.poll(1.0):
                match fact:
                    case mqtt.Connected():
                        self._window = min(WINDOW, fact.receive_maximum or WINDOW)
                        self._max_packet_bytes = fact.max_packet_bytes
                        return
                    case mqtt.Closed():
                        raise InputError(f"no connection: {fact.line}")
        raise InputError(f"{self._place}: no answer within {PATIENCE_S:g} s")

    def _retained(self) -> dict[str, bytes]:
        """The metadata on the broker, by name."""
        base = f"{self._base}/metadata/"
        self._mqtt.subscribe([f"{base}+"])
        found: dict[str, bytes] = {}
        end_s = self._clock() + LOOK_S
        while (left_s := end_s - self._clock()) > 0:
            for fact in self._mqtt.poll(left_s):
                match fact:
                    case mqtt.Received():
                        name = fact.topic.removeprefix(base)
                        limit = limit_of(name) or 0
                        if len(fact.payload) <= limit and len(found) < MAX_RETAINED:
                            found[name] = fact.payload
                    case mqtt.Closed():
                        raise InputError(f"{self._place}: connection lost: {fact.reason}")
                    case mqtt.Subscribed():
                        if fact.refused:
                            raise InputError(f"{self._place}: refused: {fact.refused[0][1]}")
                        end_s = self._clock() + QUIET_S
        self._mqtt.unsubscribe([f"{base}+"])
        return found

    def _send(self, messages: list[_Out], total: int) -> None:
        """Until the broker has taken them all, over as many connections as it takes."""
        waiting, flight = deque(messages), dict[int, _Out]()
        tries, heard_s = 0, self._clock()
        while waiting or flight:
            while waiting and len(flight) < self._window:
                out = waiting.popleft()
                token = self._publish(out)
                if token is None:
                    waiting.appendleft(out)
                    break
                flight[token] = out
            for fact in self._mqtt.poll(1.0):
                match fact:
                    case mqtt.Acked():
                        done = flight.pop(fact.token, None)
                        if fact.code >= 128:
                            raise InputError(
                                f"{self._place} refused {done.name if done else 'a message'}: "
                                f"{fact.reason}; may @operator write there?"
                            )
                        if done is not None:
                            tries, heard_s = 0, self._clock()
                            self._count(done.size, total)
                    case mqtt.Closed():
                        tries += 1
                        if tries >= TRIES:
                            raise InputError(f"{self._place}: connection lost: {fact.reason}")
                        log.warning("connection lost (%s); going on", fact.reason)
                        waiting.extendleft(reversed(flight.values()))
                        flight.clear()
                        self._connect()
                        heard_s = self._clock()
            if self._clock() - heard_s > PATIENCE_S:
                raise InputError(f"{self._place}: takes nothing for {PATIENCE_S:g} s")

    def _publish(self, out: _Out) -> int | None:
        topic, payload = f"{self._base}/{out.name}", out.load()
        size = len(topic) + len(payload) + 16
        if self._max_packet_bytes and size > self._max_packet_bytes:
            raise InputError(
                f"{out.name}: {size} bytes, {self._place} takes {self._max_packet_bytes}; raise "
                "max_packet_size there, or publish smaller chunks"
            )
        return self._mqtt.publish(topic, payload, retain=True)

    def _count(self, size: int, total: int) -> None:
        self._done_bytes += size
        self._progress(self._done_bytes, total)


def version_of(stamp: bytes) -> int:
    """The version that a timestamp claims; 0 for what is none."""
    try:
        return int(msgspec.json.decode(stamp)["signed"]["version"])
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError):
        return 0


def _slice(path: Path, at: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(length)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; withdraw its release") from None
