"""The reference receiver: what it refuses, and silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from broker import Broker
from test_store import arrived

from edge_rt.adapters.mqtt import Acked, Connected, Mqtt
from edge_rt.core.uplink_wire import Topics
from edge_rt.core.wire import Event, encode, rfc3339
from edge_rt.fleet.receiver import LISTENED_S, Listeners, Receiver
from edge_rt.fleet.store import Store, read_store


def until(done: Callable[[], bool], receiver: Receiver, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "nothing came of it"
        receiver.turn(0.02)


def publisher(broker: Broker) -> Mqtt:
    client = Mqtt(broker.settings("dev"))
    client.open()
    deadline = time.monotonic() + 10
    while not any(isinstance(fact, Connected) for fact in client.poll(0.2)):
        assert time.monotonic() < deadline
    return client


def send(client: Mqtt, topic: str, payload: bytes, retain: bool = False) -> None:
    assert client.publish(topic, payload, retain=retain) is not None
    deadline = time.monotonic() + 10
    while not any(isinstance(fact, Acked) for fact in client.poll(0.2)):
        assert time.monotonic() < deadline


def changed(event: Event, **fields: object) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(event, **fields))


def test_what_is_no_event_of_that_device_is_counted_and_not_stored(
    make_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    broker = make_broker(None)
    receiver = Receiver(broker.settings("@receiver"), "home", Store(tmp_path / "site"))
    until(lambda: receiver.subscribed, receiver)
    device, topics = publisher(broker), Topics("home", "dev1")
    event, good = arrived(1).event, topics.event("device")
    bad = [
        (good, b""),
        (good, b"[" * 100_000),
        (good, b"{}"),
        (good, b"x" * 20_000),
        (topics.event("fall"), encode(event)),
        (Topics("home", "dev2").event("device"), encode(event)),
        (good, changed(event, source="/edge-rt/home/dev2")),
        (good, changed(event, sequence="")),
        (good, changed(event, sequence="-1")),
        (good, changed(event, sequence="0")),
        (good, changed(event, sequence="\u0663")),
        (good, changed(event, sequence="9" * 13)),
        (good, changed(event, logid="")),
        (good, changed(event, logid="x" * 65)),
        (topics.status, b"{}"),
        (topics.status, b'{"status":"dancing"}'),
    ]
    for topic, payload in bad:
        send(device, topic, payload)
    send(device, good, encode(event))
    until(lambda: receiver.counts["stored"] == 1, receiver)
    assert receiver.counts["bad_input"] == len(bad)
    assert receiver.store.known() == [(event.source, event.logid)]
    device.close()
    receiver.close()


def test_a_device_that_stays_away_is_silent_once_and_then_back(
    make_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    broker = make_broker(None)
    now = [1000.0]
    told: list[str] = []
    listeners = Listeners(
        silent=lambda t: told.append(f"{t.device} silent"),
        back=lambda t: told.append(f"{t.device} back"),
    )
    receiver = Receiver(
        broker.settings("@receiver"),
        "home",
        Store(tmp_path / "site"),
        silent_s=60,
        listeners=listeners,
        clock=lambda: now[0],
    )
    until(lambda: receiver.subscribed, receiver)
    device, status = publisher(broker), Topics("home", "dev1").status

    def say(what: str) -> None:
        send(device, status, b'{"status":"%s"}' % what.encode())
        until(lambda: receiver.devices["dev1"].status == what, receiver)

    send(device, status, b'{"status":"online"}')
    until(lambda: "dev1" in receiver.devices, receiver)
    say("offline")
    now[0] += 59
    receiver.turn(0.0)
    say("online")  # back in time: nobody is woken
    now[0] += 100
    say("offline")
    now[0] += 60
    receiver.turn(0.0)
    receiver.turn(0.0)
    assert told == ["dev1 silent"]
    say("online")
    say("stopped")  # a clean end is not silence
    now[0] += 1000
    receiver.turn(0.0)
    assert told == ["dev1 silent", "dev1 back"]
    device.close()
    receiver.close()


def test_a_device_without_a_word_is_silent_too_unless_it_ended_or_we_hear_nothing(
    make_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    broker = make_broker(None)
    now = [1000.0]
    told: list[str] = []
    receiver = Receiver(
        broker.settings("@receiver"),
        "home",
        Store(tmp_path / "site"),
        unheard_s=300,
        listeners=Listeners(
            silent=lambda t: told.append(f"{t.device} silent"),
            back=lambda t: told.append(f"{t.device} back"),
        ),
        clock=lambda: now[0],
    )
    until(lambda: receiver.subscribed, receiver)
    device, other = Topics("home", "dev1"), Topics("home", "dev2")
    client = publisher(broker)
    send(client, device.status, b'{"status":"online"}', retain=True)
    send(client, other.status, b'{"status":"stopped"}', retain=True)
    until(lambda: len(receiver.devices) == 2, receiver)
    assert receiver.devices["dev1"].heard_s == 1000.0
    now[0] += 299
    send(client, f"{device.base}/dt/health", b"{}")  # telemetry is a word
    until(lambda: receiver.devices["dev1"].heard_s == now[0], receiver)
    now[0] += 299
    receiver.turn(0.0)
    assert told == []
    now[0] += 1
    receiver.turn(0.0)
    receiver.turn(0.0)
    assert told == ["dev1 silent"]
    send(client, device.event("device"), arrived(1).body)
    until(lambda: len(told) == 2, receiver)
    assert told[1] == "dev1 back"
    assert receiver.counts["bad_input"] == 0
    client.close()
    late = Receiver(broker.settings("@late"), "home", Store(tmp_path / "late"), unheard_s=300)
    until(lambda: len(late.devices) == 2, late)
    assert late.devices["dev1"].heard_s == 0.0, "what the broker remembers is no word of it"
    late.turn(0.0)
    assert not late.devices["dev1"].silent_told, "it has listened for no time yet"
    late.close()
    broker.kill()
    until(lambda: not receiver.subscribed, receiver)
    now[0] += 10_000
    receiver.turn(0.0)
    assert len(told) == 2, "it is we who hear nothing"
    receiver.close()


def test_who_is_there_and_how_far_it_has_listened_is_kept(
    make_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    broker = make_broker(None)
    wall, clock = [1.7e9], [0.0]
    store = Store(tmp_path / "site")
    receiver = Receiver(
        broker.settings("@receiver"), "home", store, wall=lambda: wall[0], clock=lambda: clock[0]
    )

    def kept() -> tuple[dict[str, tuple[str, str]], float]:
        with read_store(store.folder) as found:
            return found.presence, found.listened_s

    until(lambda: kept()[1] == 1.7e9, receiver)
    device, topics = publisher(broker), Topics("home", "dev1")
    for status, hour in (("online", 0), ("offline", 1)):
        wall[0] = 1.7e9 + 3600.0 * hour
        body = msgspec.json.encode({"status": status})
        send(device, topics.status, body, retain=True)
        until(
            lambda s=status: "dev1" in receiver.devices and receiver.devices["dev1"].status == s,
            receiver,
        )
        assert kept()[0] == {"/edge-rt/home/dev1": (status, rfc3339(wall[0]))}
    assert kept()[1] == 1.7e9, "not each turn is written down"
    clock[0] += LISTENED_S
    receiver.turn(0.0)
    assert kept()[1] == wall[0]
    receiver.close()
    again = Receiver(broker.settings("@receiver"), "home", store, wall=lambda: 1.8e9)
    until(lambda: "dev1" in again.devices, again)  # what is retained is no news
    assert kept()[0] == {"/edge-rt/home/dev1": ("offline", rfc3339(1.7e9 + 3600.0))}
    device.close()
    again.close()
    store.close()
