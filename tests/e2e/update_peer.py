"""Processes of the update tests: a device that fetches and journals, a bare publisher.

python update_peer.py fetch|publish FILE.json
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from edge_rt.core.catalog import Catalog, Release
from edge_rt.core.fetch import Offer
from edge_rt.core.fetch_config import FetchConfig
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_link import Backoff
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.update_fetch import Fetcher
from edge_rt.runtime.update_source import Listener

QUICK = Backoff(first_s=0.05, cap_s=0.5, refused_cap_s=0.5, stable_s=1.0)
WINDOW = 20


class Fetch(msgspec.Struct):
    """What a fetching peer is told. pace_s: it pauses so long after each chunk."""

    folder: str
    config: MqttConfig
    rules: FetchConfig
    pace_s: float = 0.0


class Flow(msgspec.Struct):
    """What a publishing peer is told: `count` messages of `size` bytes for a line on stdin."""

    config: MqttConfig
    topic: str
    count: int
    size: int


def fetch(peer: Fetch) -> None:
    """Fetch the first release of the catalog; `journal` has a line for each verified chunk, and
    `staged` at the end."""
    folder = Path(peer.folder)
    handle = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    fetcher = Fetcher(
        peer.config,
        Topics("home", "dev1"),
        folder / "updates",
        fetch=peer.rules,
        backoff=QUICK,
        synchronised=lambda: True,
    )
    download = fetcher._download
    offer = download.offer

    def journalled(place: str, payload: bytes, now_s: float) -> Offer:
        verdict = offer(place, payload, now_s)
        if verdict is Offer.TAKEN:
            os.write(handle, place.rpartition("/")[2].encode() + b"\n")
            time.sleep(peer.pace_s)
        return verdict

    download.offer = journalled  # type: ignore[method-assign]
    done = threading.Event()

    def catalog(found: Catalog) -> None:
        fetcher.want(found.releases[0])

    def staged(release: Release, where: Path) -> None:
        os.write(handle, b"staged\n")
        done.set()

    fetcher.start(Listener(catalog, staged, lambda release, why: print(why, file=sys.stderr)))
    while not done.wait(0.2):
        (folder / "status.new").write_bytes(msgspec.json.encode(fetcher.status()))
        os.replace(folder / "status.new", folder / "status")
    fetcher.stop()


def client(config: MqttConfig, name: str) -> Client:
    """paho alone, connected, its loop running."""
    made = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5)
    made.tls_set(config.ca, config.cert, config.key)
    made.max_inflight_messages_set(WINDOW)
    made.on_socket_open = lambda c, u, s: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected = threading.Event()
    made.on_connect = lambda *_: connected.set()
    made.connect(config.host, config.port)
    made.loop_start()
    assert connected.wait(10)
    return made


def publish(flow: Flow) -> None:
    """Publish at QoS 1, a window at a time; says `ready` and waits for a line first, again and
    again, until stdin ends."""
    made = client(flow.config, "bare-publisher")
    room = threading.Semaphore(WINDOW)
    made.on_publish = lambda *_: room.release()
    body: Any = os.urandom(flow.size)
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(flow.count):
            room.acquire()
            made.publish(flow.topic, body, 1)
    made.disconnect()
    made.loop_stop()


if __name__ == "__main__":
    data = Path(sys.argv[2]).read_bytes()
    if sys.argv[1] == "fetch":
        fetch(msgspec.json.decode(data, type=Fetch))
    else:
        publish(msgspec.json.decode(data, type=Flow))
