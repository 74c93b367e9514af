"""How fast chunks come, hashed, written and fsynced, against bare MQTT. Release size: measured.

The bare flow is a publisher in a process of its own, the same broker, and a subscriber that counts:
as many messages of the size of a chunk, QoS 1, over TLS with client certificates.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from e2e.test_uplink_outage import Namespace, namespace
from e2e.update_peer import Flow, client
from updates import Device, Fleet, config_for

from edge_rt.core.catalog import CHUNK_BYTES
from edge_rt.core.update_task import Answer, Task, Unpack

PEER = Path(__file__).parent / "e2e" / "update_peer.py"
SIZE = 6 * 1024 * 1024  # of noise: it packs to no less
ROUNDS = 7
TOPIC = "edge-rt/v1/home/models/bench"

pytestmark = pytest.mark.release
__all__ = ["namespace"]


class Bare:
    """The bare flow; run() as often as wanted. prefix: where the publisher runs."""

    def __init__(
        self, broker: Broker, folder: Path, count: int, prefix: tuple[str, ...] = ()
    ) -> None:
        self._count = count
        self._left = 0
        self._done = threading.Event()
        flow = Flow(config_for(broker, "@operator"), TOPIC, count, CHUNK_BYTES)
        given = folder / "flow.json"
        given.write_bytes(msgspec.json.encode(flow))
        self._subscriber = client(config_for(broker, "dev1"), "bare-subscriber")
        subscribed = threading.Event()
        self._subscriber.on_subscribe = lambda *_: subscribed.set()
        self._subscriber.on_message = self._on_message
        self._subscriber.subscribe(TOPIC, 1)
        assert subscribed.wait(10)
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(PEER), "publish", str(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(self) -> float:
        """Seconds from the first message published to the last one received."""
        self._left = self._count
        self._done.clear()
        start = time.monotonic()
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        assert self._done.wait(120)
        return time.monotonic() - start

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._subscriber.disconnect()
        self._subscriber.loop_stop()

    def _on_message(self, *_: Any) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()


def chunk_phase(device: Device, release: Any) -> float:
    """Seconds from the wish to the last chunk compared with its signed hash and on the disk. The
    hash of the whole is compared by the child that unpacks it."""
    ended: list[float] = []
    download = device.fetcher._download
    run = download._run

    def note(task: Task) -> Answer:
        if isinstance(task, Unpack):
            ended.append(time.monotonic())
        return run(task)

    download._run = note
    device.fetcher.discard(release.sha256)
    device.wait(lambda: not device.fetcher._rubbish)
    count = len(device.staged)
    start = time.monotonic()
    device.fetcher.want(release)
    deadline = start + 120
    while not ended:
        assert time.monotonic() < deadline, device.said()
        time.sleep(0.0005)
    device.wait(lambda: len(device.staged) > count)
    download._run = run
    return ended[0] - start


def compare(
    broker: Broker,
    fleet: Fleet,
    device: Device,
    folder: Path,
    rounds: int,
    prefix: tuple[str, ...] = (),
) -> tuple[float, float]:
    """Median seconds of ours and of the bare flow, in turns."""
    release = device.catalogs[-1].releases[0]
    assert SIZE <= release.size < SIZE * 1.01
    bare = Bare(broker, folder, len(release.chunks), prefix)
    ours, theirs = [], []
    try:
        bare.run()  # warm
        for _ in range(rounds):
            ours.append(chunk_phase(device, release))
            theirs.append(bare.run())
    finally:
        bare.close()
    status = device.fetcher.status()
    assert status["asked_again"] == status["repeated"] == 0
    return statistics.median(ours), statistics.median(theirs)


def test_on_loopback(
    make_broker: Callable[..., Broker],
    pki: Pki,
    fleet: Fleet,
    make_device: Callable[..., Device],
    tmp_path: Path,
    figure: Callable[..., None],
) -> None:
    broker = fleet.broker = make_broker(pki)
    fleet.publish(SIZE)
    fleet.upload()
    device = make_device(broker)
    device.wait(lambda: device.catalogs)
    ours, theirs = compare(broker, fleet, device, tmp_path, ROUNDS)
    figure("6 MB of chunks on TLS loopback, hashed and fsynced", 1e3 * ours, unit="ms")
    figure("the same bytes by bare MQTT, QoS 1, TLS loopback", 1e3 * theirs, unit="ms")
    figure("chunk phase against bare MQTT on TLS loopback", ours / theirs, at_most=1.5, unit="x")


def test_on_a_line_of_ten_megabits(
    mosquitto: str,
    namespace: Namespace,
    fleet: Fleet,
    make_device: Callable[..., Device],
    tmp_path: Path,
    figure: Callable[..., None],
) -> None:
    pki = Pki(tmp_path, namespace.broker)
    broker = fleet.broker = Broker(tmp_path / "broker", pki, namespace.broker)
    try:
        broker.start(namespace.inside)
        broker.wait_ready()
        fleet.publish(SIZE)
        fleet.upload()
        device = make_device(broker)
        device.wait(lambda: device.catalogs)
        shape = ("root", "tbf", "rate", "10mbit", "burst", "32kb", "latency", "200ms")
        namespace.tc("add", *shape)
        ours, theirs = compare(broker, fleet, device, tmp_path, 3, namespace.inside)
        assert device.fetcher.stop(10)
    finally:
        broker.kill()
    figure("6 MB of chunks at 10 Mbit/s", ours, unit="s")
    figure("the same bytes by bare MQTT at 10 Mbit/s", theirs, unit="s")
    figure("chunk phase against bare MQTT at 10 Mbit/s", ours / theirs, at_most=1.15, unit="x")
