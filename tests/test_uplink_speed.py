"""How fast a backlog drains, and how long an alarm takes meanwhile. Release size: measured.

The receiver is a process of its own and keeps, on disk, all that it receipts; the bare loop
publishes and does nothing else. Both over TLS with client certificates on loopback.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from e2e.uplink_peer import Peer
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from test_uplink_service import Device, config_for, wait_for

from edge_rt.adapters.operations_key import make_pair
from edge_rt.core.uplink_config import MqttConfig

PEER = Path(__file__).parent / "e2e" / "uplink_peer.py"
WINDOW = 20
EVENTS = 5000
ROUNDS = 5
ALARMS = 300
BACKLOG = 80_000  # more than goes out while the alarms do, on a fast machine too
STAGES = ("commit_to_puback", "alarm_to_puback")

pytestmark = pytest.mark.release


class Remote:
    """The reference receiver in a process of its own; `folder` is on its disk."""

    def __init__(self, broker: Broker, folder: Path, sign_with: str = "") -> None:
        assert broker.pki is not None
        folder.mkdir()
        cert, key = broker.pki.client("@receiver")
        ca = str(broker.pki.authority.folder / "ca.crt")
        config = MqttConfig(host=broker.host, port=broker.port, ca=ca, cert=str(cert), key=str(key))
        given = folder / "peer.json"
        given.write_bytes(msgspec.json.encode(Peer(str(folder), config, 0, sign_with=sign_with)))
        self._process = subprocess.Popen([sys.executable, str(PEER), "receiver", str(given)])
        broker.wait_for_log("@receiver 1 edge-rt/v1/home/+/status")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def remote_at(tmp_path: Path) -> Iterator[Callable[..., Remote]]:
    """`remote_at(broker, folder, key)`: a receiver there, ended after the test."""
    made: list[Remote] = []

    def make(broker: Broker, folder: Path | None = None, sign_with: str = "") -> Remote:
        made.append(Remote(broker, folder or tmp_path / "remote", sign_with))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


@pytest.fixture
def disk_of_its_own() -> Iterator[Path]:
    """A folder whose syncs do not queue with the device's: the receiver is another computer."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def drain(device: Device) -> float:
    """Events a second, from the start of the uplink until all are receipted in the log."""
    start = time.monotonic()
    device.uplink.start()
    wait_for(lambda: device.uplink.status()["published"] >= EVENTS, 60)
    wait_for(lambda: device.awaiting() == 0, 60)
    return EVENTS / (time.monotonic() - start)


def bare(broker: Broker, body: bytes) -> float:
    """Messages a second of paho alone, from connecting to the last PUBACK."""
    settings = broker.settings("dev1")
    client = Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=MQTTv5)
    client.tls_set(str(settings.ca), str(settings.cert), str(settings.key))
    client.max_inflight_messages_set(WINDOW)
    client.on_socket_open = lambda c, u, s: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    room, connected, done = (
        threading.Semaphore(WINDOW),
        threading.Event(),
        threading.Event(),
    )
    left = EVENTS

    def acknowledged(*_: object) -> None:
        nonlocal left
        left -= 1
        room.release()
        if not left:
            done.set()

    client.on_publish = acknowledged
    client.on_connect = lambda *_: connected.set()
    start = time.monotonic()
    client.connect(settings.host, settings.port)
    client.loop_start()
    assert connected.wait(10)
    for _ in range(EVENTS):
        room.acquire()
        client.publish("edge-rt/v1/home/dev1/dt/bench", body, 1)
    assert done.wait(60)
    rate = EVENTS / (time.monotonic() - start)
    client.disconnect()
    client.loop_stop()
    return rate


def test_a_backlog_drains_at_half_the_speed_of_bare_publishing(
    make_broker: Callable[..., Broker],
    remote_at: Callable[..., Remote],
    pki: Pki,
    tmp_path: Path,
    figure: Callable[..., None],
) -> None:
    key = tmp_path / "operations.key"
    signed: dict[str, Any] = {"operations_key": str(make_pair(key)), "signed_receipts": True}
    plain_broker, signing_broker = (make_broker(pki, more="log_type subscribe") for _ in range(2))
    remote_at(plain_broker)
    remote_at(signing_broker, tmp_path / "signing", str(key))
    ours, checked, theirs = [], [], []
    for number in range(ROUNDS):
        for broker, more, rates in ((plain_broker, {}, ours), (signing_broker, signed, checked)):
            device = Device(tmp_path / f"device{number}{bool(more)}", config_for(broker, **more))
            for _ in range(EVENTS // 500):
                device.backlog(500)
            rates.append(drain(device))
            device.close()
        theirs.append(bare(plain_broker, b"x" * 400))
    figure(
        "bare paho, QoS 1, window 20, TLS loopback",
        statistics.median(theirs),
        unit="msg/s",
    )
    figure("drain, receipted and marked", statistics.median(ours), unit="events/s")
    figure("drain, receipts signed and judged", statistics.median(checked), unit="events/s")
    for what, rates in (("drain", ours), ("drain with signed receipts", checked)):
        ratio = statistics.median(rates) / statistics.median(theirs)
        figure(f"{what} against bare publishing", ratio, at_least=0.5, unit="x")


def bare_syncs(file: Path, count: int = 200) -> list[float]:
    """Milliseconds of fdatasync(2) after two pages written to a file that has its size, sorted:
    the part of an alarm's commit that is the disk's alone."""
    pause, took = threading.Event(), []
    with file.open("w+b") as handle:
        handle.write(bytes(8192 * count))
        os.fsync(handle.fileno())
        handle.seek(0)
        for _ in range(count):
            handle.write(os.urandom(8192))
            handle.flush()
            start = time.monotonic()
            os.fdatasync(handle.fileno())
            took.append(1e3 * (time.monotonic() - start))
            pause.wait(0.01)
    return sorted(took)


def send_alarms(device: Device) -> list[float]:
    """ALARMS stages, one after the other; milliseconds from each decision to its commit, sorted."""
    pause, commits = threading.Event(), []
    for number in range(ALARMS):
        start = time.monotonic()
        device.announce("fall", "suspected", incident=str(number))
        commits.append(1e3 * (time.monotonic() - start))
        pause.wait(0.01)
    return sorted(commits)


def out(device: Device) -> dict[str, dict[str, float]]:
    """Figures of the way out, once all alarms have their PUBACK; ends the device."""
    status = device.uplink.status
    wait_for(lambda: status().get("alarm_to_puback", {}).get("count") == ALARMS)
    found: dict[str, dict[str, float]] = {name: status()[name] for name in STAGES}
    device.close()
    return found


def with_a_backlog(folder: Path, broker: Broker) -> Device:
    """A device whose log, in `folder`, holds far more than goes out while the alarms do."""
    device = Device(folder, config_for(broker))
    for _ in range(BACKLOG // 500):
        device.backlog(500)
    return device


def alarms_during(device: Device) -> tuple[list[float], dict[str, dict[str, float]]]:
    """Alarms while the backlog drains: `send_alarms` and `out`."""
    device.uplink.start()
    wait_for(lambda: device.uplink.status()["published"] > 0)
    commits = send_alarms(device)
    assert device.uplink.status()["published"] < BACKLOG, (
        "the backlog ran out before the alarms did"
    )
    return commits, out(device)


def test_an_alarm_is_out_within_ten_milliseconds_while_a_backlog_drains(
    make_broker: Callable[..., Broker],
    remote_at: Callable[..., Remote],
    pki: Pki,
    tmp_path: Path,
    disk_of_its_own: Path,
    figure: Callable[..., None],
) -> None:
    broker = make_broker(pki, more="log_type subscribe")
    remote_at(broker, disk_of_its_own / "remote")
    idle = Device(tmp_path / "idle", config_for(broker))
    idle.uplink.start()
    wait_for(lambda: idle.uplink.status()["state"] == "online")
    send_alarms(idle)
    alone = out(idle)["alarm_to_puback"]
    device = with_a_backlog(tmp_path / "device", broker)
    syncs = bare_syncs(tmp_path / "bare")
    commits, drain = alarms_during(device)
    syncs = sorted(syncs + bare_syncs(tmp_path / "bare"))
    figure(
        "bare fdatasync of two pages, before and after, p50",
        syncs[len(syncs) // 2],
        unit="ms",
    )
    figure("bare fdatasync of two pages, before and after, p99", syncs[-4], unit="ms")
    figure("alarm: decision to PUBACK with an empty log, p50", alone["p50_ms"], unit="ms")
    figure("alarm: decision to PUBACK with an empty log, p99", alone["p99_ms"], unit="ms")
    figure("alarm: decision to commit during a drain, p99", commits[-4], unit="ms")
    uplink, measured = (drain[name] for name in STAGES)
    figure("alarm: commit to PUBACK during a drain, p99", uplink["p99_ms"], unit="ms")
    figure("alarm: decision to PUBACK during a drain, p50", measured["p50_ms"], unit="ms")
    figure("alarm: decision to PUBACK, p99", measured["p99_ms"], at_most=10, unit="ms")


def test_all_but_the_disk_takes_less_than_ten_milliseconds_of_an_alarm(
    make_broker: Callable[..., Broker],
    remote_at: Callable[..., Remote],
    pki: Pki,
    disk_of_its_own: Path,
    figure: Callable[..., None],
) -> None:
    """The same with a log whose syncs cost nothing: what is ours of the figure above."""
    broker = make_broker(pki, more="log_type subscribe")
    remote_at(broker, disk_of_its_own / "remote")
    _, drain = alarms_during(with_a_backlog(disk_of_its_own / "device", broker))
    measured = drain["alarm_to_puback"]
    figure("alarm: decision to PUBACK, log in memory, p50", measured["p50_ms"], unit="ms")
    figure(
        "alarm: decision to PUBACK, log in memory, p99", measured["p99_ms"], at_most=10, unit="ms"
    )
