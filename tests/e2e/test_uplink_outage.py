"""Broker, device and receiver killed, the link cut: every journalled event arrives."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from broker import Broker, Pki
from e2e.uplink_peer import Peer, numbers_in

from edge_rt.adapters.eventreader import EventReader
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.wire import Lane
from edge_rt.fleet.store import Store

PEER = Path(__file__).with_name("uplink_peer.py")
SEED = int(os.environ.get("EDGE_RT_SEED", "7"))  # of when what goes wrong


class Namespace:
    """A network namespace with one cable to it: the broker's side is .1, ours .2."""

    def __init__(self) -> None:
        self._lossy = False
        number = os.getpid() % 60000
        self.name = f"ert{number}"
        net = f"10.{64 + number // 256 % 64}.{number % 256}"
        self.broker, self.ours = f"{net}.1", f"{net}.2"
        self.cable = f"{self.name}a"
        ip("netns", "add", self.name)
        far = f"{self.name}b"
        ip("link", "add", self.cable, "type", "veth", "peer", "name", far, "netns", self.name)
        ip("addr", "add", f"{self.ours}/30", "dev", self.cable)
        ip("link", "set", self.cable, "up")
        ip("-n", self.name, "addr", "add", f"{self.broker}/30", "dev", far)
        ip("-n", self.name, "link", "set", far, "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        self.inside = ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        ip("link", "set", self.cable, "down")

    def slow(self, rate: str) -> None:
        """Either way no more than this, in the words of tc(8)."""
        shape = ("root", "tbf", "rate", rate, "burst", "4kb", "latency", "20s")
        tc("qdisc", "add", "dev", self.cable, *shape)
        far = f"{self.name}b"
        subprocess.run([*self.inside, "tc", "qdisc", "add", "dev", far, *shape], check=True)

    def mend(self) -> None:
        ip("link", "set", self.cable, "up")

    def tc(self, what: str, *arguments: str) -> None:
        """Shape what comes to us (tc(8), qdisc)."""
        far = f"{self.name}b"
        command = ["tc", "-n", self.name, "qdisc", what, "dev", far, *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=10)

    def lose(self, percent: int) -> None:
        """Drop so many of the packets, both ways (nft(8)). Where they arrive: a sender would hear
        of what is dropped at its own end."""
        for inside, device in (((), self.cable), (self.inside, f"{self.name}b")):
            rules = (
                f"table netdev {self.name} {{\n chain lossy {{\n"
                f"  type filter hook ingress device {device} priority 0; policy accept;\n"
                f"  numgen random mod 100 < {percent} drop\n }}\n}}\n"
            )
            command = [*inside, "nft", "-f", "-"]
            subprocess.run(
                command, input=rules.encode(), check=True, capture_output=True, timeout=10
            )
        self._lossy = True

    def remove(self) -> None:
        if self._lossy:
            subprocess.run(["nft", "delete", "table", "netdev", self.name], check=True, timeout=10)
        ip("netns", "del", self.name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


def tc(*arguments: str) -> None:
    subprocess.run(["tc", *arguments], check=True, capture_output=True, timeout=10)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip(8) to make a network namespace")
    try:
        made = Namespace()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    yield made
    made.remove()


class Process:
    """A peer that can be killed and started again."""

    def __init__(self, kind: str, given: Peer) -> None:
        self.kind = kind
        self.file = Path(given.folder) / f"{kind}.json"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(msgspec.json.encode(given))
        self.errors = self.file.with_suffix(".log")
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(PEER), self.kind, str(self.file)],
                stderr=errors,
                env=environment,
            )

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def said(self) -> str:
        return self.errors.read_text()[-3000:]


def stored(folder: Path) -> int:
    """How many events the receiver has kept."""
    try:
        with sqlite3.connect(f"file:{folder}/events.sqlite?mode=ro", uri=True, timeout=10) as db:
            return int(db.execute("SELECT count(*) FROM events").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


def wait_until(done: Callable[[], bool], timeout_s: float, said: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"nothing came of it in {timeout_s} s: {said()}"
        time.sleep(0.02)  # watching other processes


def outages(seed: int, count: int, each: int) -> list[tuple[int, str]]:
    """When (events stored) what happens; every kind `each` times."""
    rng = random.Random(seed)
    kinds = ["broker", "device", "receiver", "link"] * each
    rng.shuffle(kinds)
    return sorted(zip(rng.sample(range(1, count), len(kinds)), kinds, strict=True))


@pytest.mark.parametrize(
    ("count", "each", "pace_s"),
    [
        pytest.param(1_000, 3, 0.1, id="commit"),
        pytest.param(10_000, 20, 0.05, id="release", marks=pytest.mark.release),
    ],
)
def test_no_event_is_lost(
    mosquitto: str, namespace: Namespace, tmp_path: Path, count: int, each: int, pace_s: float
) -> None:
    pki = Pki(tmp_path, namespace.broker)
    broker = Broker(tmp_path / "broker", pki, namespace.broker)
    broker.start(namespace.inside)
    cert, key = pki.client("dev1")
    common = {
        "host": namespace.broker,
        "port": broker.port,
        "ca": str(pki.authority.folder / "ca.crt"),
        "keepalive_s": 5,
    }
    config = MqttConfig(**common, cert=str(cert), key=str(key))
    cert, key = pki.client("@receiver")
    there = MqttConfig(**common, cert=str(cert), key=str(key))
    ours, theirs = tmp_path / "device", tmp_path / "receiver"
    receiver = Process("receiver", Peer(str(theirs), there, count))
    device = Process("device", Peer(str(ours), config, count, pace_s))

    def said() -> str:
        log = (broker.folder / "log").read_text()[-2000:]
        return f"{device.said()}\n--\n{receiver.said()}\n--\n{log}"

    try:
        for at, what in outages(SEED, count, each):
            wait_until(lambda at=at: stored(theirs) >= at, 60, said)
            if what == "link":
                namespace.cut()
                time.sleep(0.3)
                namespace.mend()
            elif what == "broker":
                broker.kill()
                broker.start(namespace.inside)
            else:
                process = {"device": device, "receiver": receiver}[what]
                process.kill()
                process.start()
        wait_until(lambda: stored(theirs) >= count, 60, said)
        wait_until(lambda: awaiting(ours / "log.sqlite") == 0, 30, said)
    finally:
        device.kill()
        receiver.kill()
        broker.kill()
    check(ours, theirs, count)


def awaiting(log: Path) -> int:
    """Events in the device's log without a receipt."""
    reader = EventReader(log)
    found = sum(len(reader.next_unreceipted(lane, 0, 1000)) for lane in Lane)
    reader.close()
    return found


def check(ours: Path, theirs: Path, count: int) -> None:
    journal = [int(line) for line in (ours / "journal").read_text().split()]
    assert sorted(journal) == list(range(1, count + 1))
    assert numbers_in(ours / "log.sqlite") == set(journal)

    store = Store(theirs)
    states = {key: store.log(*key) for key in store.known()}
    assert len(states) == 1, "the device's log started anew"
    ((_, logid),) = states
    assert states[next(iter(states))].gaps() == []
    assert states[next(iter(states))].conflicts == 0
    store.close()

    with sqlite3.connect(theirs / "events.sqlite") as db:
        bodies = dict(db.execute("SELECT sequence, body FROM events WHERE logid = ?", (logid,)))
        lines = [row[0] for row in db.execute("SELECT body FROM events ORDER BY arrival")]
    got = [msgspec.json.decode(body)["data"].get("n") for body in bodies.values()]
    assert sorted(n for n in got if n is not None) == sorted(journal)
    # The same place means the same event, byte for byte, however often it was sent.
    reader = EventReader(ours / "log.sqlite")
    sent = {s.sequence: s.body for a in range(0, count + 1000, 1000) for s in reader.read(a, 1000)}
    reader.close()
    assert bodies == sent
    assert (theirs / "events.jsonl").read_bytes().splitlines() == lines
