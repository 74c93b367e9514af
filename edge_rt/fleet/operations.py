"""Who operates a fleet: signs commands, and sends them over a connection of its own."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import random as random_module
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edge_rt.adapters import mqtt
from edge_rt.adapters.operations_key import PrivateKey
from edge_rt.adapters.statefile import AtomicFile
from edge_rt.core.errors import CredentialError, InputError
from edge_rt.core.remote_command import Payload, signed_text
from edge_rt.core.uplink_link import Backoff, Event, Link, State
from edge_rt.core.uplink_wire import Topics
from edge_rt.core.wire import rfc3339

log = logging.getLogger(__name__)

# A person waits: tried again soon, and never more seldom than every few seconds.
QUICK = Backoff(first_s=0.5, cap_s=5.0, refused_cap_s=5.0)


class Counter:
    """The counter of a key, in a file beside it: `<key>.counter`.

    Milliseconds since 1970, or one more than the last: a lost file and a second holder of the key
    still count on, as long as their clocks agree. On disk before it is given out.
    """

    def __init__(self, key: Path, wall: Callable[[], float] = time.time) -> None:
        self._key = key
        self._file = AtomicFile(key.with_name(key.name + ".counter"), max_bytes=32)
        self._wall = wall

    def next(self) -> int:
        """Larger than ever before; safe between processes. Raises CredentialError, StorageError."""
        with self._alone():
            text = self._file.read()
            try:
                last = int(text) if text is not None else 0
            except ValueError:
                raise CredentialError(
                    f"{self._file.path}: no counter; remove it if this computer's clock is right"
                ) from None
            value = max(last + 1, int(self._wall() * 1000))
            self._file.write(b"%d\n" % value)
            return value

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            handle = os.open(self._key, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CredentialError(f"{self._key}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


class Signer:
    """Signs with the key in a file; raises CredentialError for one that cannot be used."""

    def __init__(self, key: Path, wall: Callable[[], float] = time.time) -> None:
        self._key = PrivateKey.read(key)
        self._counter = Counter(key, wall)
        self.sign = self._key.sign

    def command(self, topics: Topics, name: str, payload: Payload) -> Payload:
        """The same command with a counter and a signature."""
        counted = msgspec.structs.replace(payload, counter=self._counter.next(), signature=None)
        signature = self._key.sign(signed_text(topics, name, counted)).hex()
        return msgspec.structs.replace(counted, signature=signature)


def make_payload(args: Mapping[str, str], expires_unix_s: float | None) -> Payload:
    """A command of a new id, unsigned. Raises InputError for arguments that none could have."""
    expires = None if expires_unix_s is None else rfc3339(expires_unix_s)
    given = {"id": secrets.token_hex(16), "args": dict(args), "expires": expires}
    try:
        return msgspec.convert(given, Payload)
    except msgspec.ValidationError as error:
        raise InputError(f"--arg: {error}") from None


class Line:
    """A connection that comes back by itself. turn() again and again from one thread; close().

    filters  what is subscribed to at each connect
    """

    def __init__(
        self,
        settings: mqtt.Settings,
        filters: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.error = ""
        self.ready = False  # connected, and subscribed to everything
        self.denied = ""  # what the broker refused of the last message or the subscription
        self._filters = list(filters)
        self._clock = clock
        self._mqtt = mqtt.Mqtt(settings)
        self._link = Link(QUICK, random)
        self.wake = self._mqtt.wake

    def turn(self, timeout_s: float) -> list[mqtt.Received]:
        """Wait for news so long at most."""
        now = self._clock()
        if self._link.state is State.WAITING:
            if now >= self._link.due_s:
                self._link.step(Event.DUE, now)
                self._mqtt.open()
            else:
                timeout_s = min(timeout_s, self._link.due_s - now)
        found = []
        for fact in self._mqtt.poll(timeout_s):
            match fact:
                case mqtt.Received():
                    found.append(fact)
                case mqtt.Connected():
                    self._link.step(Event.ACCEPTED, self._clock())
                    self.error = ""
                    self._mqtt.subscribe(self._filters)
                case mqtt.Subscribed():
                    self.ready = not fact.refused
                    if fact.refused:
                        self.error = self.denied = f"the broker refused {fact.refused}"
                case mqtt.Acked() if fact.code >= 128:
                    self.error = self.denied = f"the broker refused a message: {fact.reason}"
                case mqtt.Closed():
                    self._closed(fact)
        return found

    def publish(self, topic: str, payload: bytes, expiry_s: float = 0.0) -> bool:
        """QoS 1, not retained; False without a connection. expiry_s: as of adapters.mqtt."""
        self.denied = ""
        if not self.ready:
            return False
        return self._mqtt.publish(topic, payload, expiry_s=math.ceil(expiry_s)) is not None

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._link.step(Event.STOP, self._clock())
        self._mqtt.disconnect()
        self._mqtt.close()

    def _closed(self, fact: mqtt.Closed) -> None:
        self.ready = False
        self.error = fact.line
        if self._link.state in (State.CONNECTING, State.ONLINE):
            self._link.step(Event.REFUSED if fact.refused else Event.LOST, self._clock())
