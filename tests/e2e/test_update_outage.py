"""A device that is killed, or has a miserable line, while it fetches: no good chunk comes twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from e2e.test_uplink_outage import Namespace, namespace
from e2e.update_peer import Fetch
from updates import RULES, Fleet, config_for

from edge_rt.adapters.bundle_files import read_bundle

PEER = Path(__file__).with_name("update_peer.py")
SEED = int(os.environ.get("EDGE_RT_SEED", "7"))
__all__ = ["namespace"]


class Process:
    """The fetching peer, which can be killed and started again."""

    def __init__(self, folder: Path, broker: Broker, root: Path, **more: Any) -> None:
        self.folder = folder
        folder.mkdir()
        rules = msgspec.structs.replace(RULES, root=str(root), **more.pop("rules", {}))
        config = msgspec.structs.replace(config_for(broker, "dev1"), keepalive_s=5)
        self._given = folder / "fetch.json"
        self._given.write_bytes(msgspec.json.encode(Fetch(str(folder), config, rules, **more)))
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PEER), "fetch", str(self._given)], stderr=log, env=environment
            )

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    @property
    def journal(self) -> list[str]:
        path = self.folder / "journal"
        return path.read_text().split() if path.exists() else []

    @property
    def state(self) -> str:
        path = self.folder / "status"
        return str(msgspec.json.decode(path.read_bytes())["state"]) if path.exists() else ""

    def said(self) -> str:
        status = self.folder / "status"
        now = status.read_text() if status.exists() else ""
        return f"{len(self.journal)} chunks; {now}; {(self.folder / 'log').read_text()[-2000:]}"

    def wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.005)  # another process's progress can only be watched

    def staged(self) -> bool:
        return self.journal[-1:] == ["staged"]

    def check(self, sha256: str, chunks: int) -> None:
        """Each chunk was verified once; the bundle is there."""
        verified = Counter(line for line in self.journal if line != "staged")
        assert set(verified) == {str(n) for n in range(chunks)}
        assert max(verified.values()) == 1, f"fetched again: {verified.most_common(3)}"
        read_bundle(self.folder / "updates" / "staging" / sha256)


@pytest.mark.parametrize(
    "kills",
    [pytest.param(3, id="commit"), pytest.param(40, id="release", marks=pytest.mark.release)],
)
def test_killed_again_and_again(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, tmp_path: Path, kills: int
) -> None:
    broker = fleet.broker = make_broker(pki)
    release = fleet.publish(900_000, chunk_bytes=4096)
    fleet.upload()
    count = len(release.chunks)
    moments = sorted(random.Random(SEED).sample(range(1, count), kills))
    device = Process(tmp_path / "device", broker, fleet.folder / "root.json", pace_s=0.002)
    try:
        for moment in moments:
            device.wait(lambda moment=moment: len(device.journal) >= moment, 60)
            device.kill()
            device.start()
        device.wait(device.staged, 60)
    finally:
        device.kill()
    device.check(release.sha256, count)


@pytest.mark.parametrize(
    ("size", "rate", "loss", "cuts", "timeout_s"),
    [
        pytest.param(250_000, "4mbit", 2, 1, 90, id="commit"),
        pytest.param(
            6 * 1024 * 1024, "256kbit", 10, 10, 2400, id="release", marks=pytest.mark.release
        ),
    ],
)
def test_on_a_thin_and_lossy_line_that_is_cut(
    mosquitto: str,
    namespace: Namespace,
    fleet: Fleet,
    tmp_path: Path,
    figure: Callable[..., None],
    size: int,
    rate: str,
    loss: int,
    cuts: int,
    timeout_s: float,
) -> None:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed: apt-get install nftables")
    pki = Pki(tmp_path, namespace.broker)
    broker = fleet.broker = Broker(tmp_path / "broker", pki, namespace.broker)
    broker.start(namespace.inside)
    broker.wait_ready()
    release = fleet.publish(size)
    fleet.upload()
    namespace.tc("add", "root", "tbf", "rate", rate, "burst", "8kb", "latency", "400ms")
    namespace.lose(loss)
    count = len(release.chunks)
    # Each refresh waits so long for a next root, which does not come.
    missing_s = 10.0 if rate.endswith("kbit") else 1.0
    rules = {"missing_s": missing_s, "patience_s": 120.0, "retry_s": 2.0}
    root = fleet.folder / "root.json"
    start = time.monotonic()
    device = Process(tmp_path / "device", broker, root, rules=rules)
    try:
        for number in range(cuts):
            moment = 1 + number * (count - 2) // cuts
            device.wait(lambda moment=moment: len(device.journal) >= moment, timeout_s)
            if number % 2:
                namespace.cut()  # for long enough that the device gives the connection up
                device.wait(lambda: device.state != "online" or device.staged(), 60)
                namespace.mend()
            else:
                broker.kill(signal.SIGTERM)  # it saves what is retained
                broker.start(namespace.inside)
        device.wait(device.staged, timeout_s)
    finally:
        device.kill()
        broker.kill()
    device.check(release.sha256, count)
    seconds = time.monotonic() - start
    figure(f"{release.size} bytes at {rate}/s, {loss} % loss, {cuts} cuts", seconds, unit="s")
