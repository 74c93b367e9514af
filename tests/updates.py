"""Plugin: a publisher that really signs, releases of any size, a device's fetcher at a broker."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker

from edge_rt.adapters.bundle_files import write_manifest
from edge_rt.adapters.mqtt import Acked, Connected, Mqtt
from edge_rt.core.catalog import CHUNK_BYTES, Catalog, Release
from edge_rt.core.fetch_config import FetchConfig
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_link import Backoff
from edge_rt.core.uplink_wire import Topics
from edge_rt.fleet.publisher import FleetConfig, KeyPlan, Publisher, init
from edge_rt.fleet.upload import Done, Upload
from edge_rt.runtime.update_fetch import Fetcher
from edge_rt.runtime.update_source import Listener

PASSPHRASE = b"a passphrase of tests"
BASE = "edge-rt/v1/home/models"
QUICK = Backoff(first_s=0.02, cap_s=0.1, refused_cap_s=0.1, stable_s=0.2)
RULES = FetchConfig(missing_s=0.4, patience_s=5.0, retry_s=0.2, retry_cap_s=1.0, interval_s=0.05)
PATIENCE_S = 30.0  # two noisy cores; every wait ends as soon as its condition holds


def wait_for(condition: Callable[[], Any], said: Callable[[], object] = lambda: "") -> Any:
    """What `condition` returns once that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {said()}"
        time.sleep(0.01)  # threads and processes of others can only be watched
    return found


def plain_bundle(folder: Path, size: int = 300_000, seed: int = 1, **changes: Any) -> Path:
    """A sound fall bundle with `size` bytes of noise for a model: it travels, it does not run."""
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(random.Random(seed).randbytes(size))
    (folder / "golden.npz").write_bytes(b"golden")
    (folder / "CARD.md").write_text("# A card\n" * 20)
    manifest = {
        "schema": 1,
        "task": "fall",
        "name": "fall-waist",
        "version": "1.1.0",
        "model": "model.tflite",
        "license": "Apache-2.0",
        "minimum_runtime": "0.1.0",
        "security_epoch": 1,
        "latency_budget_ms": 5.0,
        "golden": {"file": "golden.npz", "tolerance": 1.0},
        "provenance": {"source": "noise", "script": "none"},
        "input": {"kind": "window", "rate_hz": 50.0, "window": 100, "hop": 5, "channels": ["x"]},
        "output": {"kind": "score"},
        "decision": {"threshold": {"value": 0.0, "min": -1.0, "max": 1.0}},
    }
    write_manifest(folder, {**manifest, **changes})
    return folder


class Fleet:
    """A publisher's folder, made once and copied: signing keys takes its time."""

    def __init__(self, folder: Path, broker: Broker | None = None, **plan: Any) -> None:
        self.folder = folder
        self.broker = broker
        if not folder.exists():
            made = msgspec.convert(plan, KeyPlan)
            init(folder, FleetConfig(), made, lambda path: PASSPHRASE, datetime.now(UTC))

    def publisher(self, passphrase: bytes = PASSPHRASE) -> Publisher:
        return Publisher(self.folder, lambda path: passphrase)

    def publish(
        self,
        size: int = 300_000,
        percent: float = 100,
        *,
        passphrase: bytes = PASSPHRASE,
        chunk_bytes: int = CHUNK_BYTES,
        **changes: Any,
    ) -> Release:
        """Sign a release of a bundle made for it."""
        folder = self.folder.parent / f"bundle{len(list(self.folder.parent.glob('bundle*')))}"
        made = plain_bundle(folder, size, **changes)
        return self.publisher(passphrase).publish(made, percent, chunk_bytes)

    def upload(self, *, again: bool = False) -> Done:
        assert self.broker is not None
        with Upload(self.publisher(), self.broker.settings("@operator")) as upload:
            return upload.run(again=again)

    def copy(self, folder: Path) -> Fleet:
        """Another folder with the same keys and what was signed so far."""
        shutil.copytree(self.folder, folder)
        return Fleet(folder, self.broker)


def config_for(broker: Broker, name: str) -> MqttConfig:
    """How a device of this name connects."""
    if broker.pki is None:
        return MqttConfig(host=broker.host, port=broker.port, insecure=True)
    cert, key = broker.pki.client(name)
    ca = str(broker.pki.authority.folder / "ca.crt")
    return MqttConfig(host=broker.host, port=broker.port, ca=ca, cert=str(cert), key=str(key))


class Device:
    """A fetcher and what it has told."""

    def __init__(self, broker: Broker, folder: Path, root: Path, **more: Any) -> None:
        self.folder = folder
        self.catalogs: list[Catalog] = []
        self.staged: list[tuple[Release, Path]] = []
        self.failed: list[tuple[Release | None, str]] = []
        rules = msgspec.structs.replace(more.pop("fetch", RULES), root=str(root))
        given = {"backoff": QUICK, "synchronised": lambda: True, **more}
        name = given.pop("name", "dev1")
        self.fetcher = Fetcher(
            config_for(broker, name), Topics("home", name), folder, fetch=rules, **given
        )

    def start(self) -> Device:
        self.fetcher.start(
            Listener(
                self.catalogs.append,
                lambda release, folder: self.staged.append((release, folder)),
                lambda release, reason: self.failed.append((release, reason)),
            )
        )
        return self

    def said(self) -> object:
        return {**self.fetcher.status(), "failed": self.failed[-5:]}

    def wait(self, condition: Callable[[], Any]) -> Any:
        return wait_for(condition, self.said)

    def refusal(self) -> str:
        """Why something was refused, once it was."""
        self.wait(lambda: self.failed)
        return self.failed[-1][1]

    def fetch(self, release: Release) -> Path:
        """The staging folder of a release, once it is there."""
        self.fetcher.want(release)
        self.wait(lambda: any(found == release for found, _ in self.staged))
        return self.staged[-1][1]


class Hand:
    """A client that puts retained messages on the broker as whoever may: a broker's own malice."""

    def __init__(self, broker: Broker, name: str = "@operator") -> None:
        self._mqtt = Mqtt(broker.settings(name)._replace(client_id="the-hand"))
        self._mqtt.open()
        self.codes: list[int] = []
        self._until(Connected)

    def put(self, name: str, payload: bytes, *, retain: bool = True) -> None:
        """Put it below models/, and see it taken."""
        self._mqtt.publish(f"{BASE}/{name}", payload, retain=retain)
        self.codes.append(self._until(Acked).code)

    def send(self, topic: str, payload: bytes) -> int:
        self._mqtt.publish(topic, payload)
        code: int = self._until(Acked).code
        return code

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.close()

    def _until(self, kind: type) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for fact in self._mqtt.poll(1.0):
                if isinstance(fact, kind):
                    return fact
        raise AssertionError(f"no {kind.__name__}")


@pytest.fixture(scope="session")
def signed_fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A publisher with nothing on offer; copy it, never change it."""
    return Fleet(tmp_path_factory.mktemp("publisher") / "fleet")


@pytest.fixture
def fleet(signed_fleet: Fleet, tmp_path: Path) -> Fleet:
    """A publisher of the test's own; give it a broker to upload to."""
    return signed_fleet.copy(tmp_path / "publisher" / "fleet")


@pytest.fixture
def make_device(tmp_path: Path, fleet: Fleet) -> Iterator[Callable[..., Device]]:
    """`make_device(broker)`: a started device that trusts the fleet; ended after the test."""
    made: list[Device] = []

    def make(broker: Broker, **more: Any) -> Device:
        folder = more.pop("folder", tmp_path / "updates")
        root = more.pop("root", fleet.folder / "root.json")
        made.append(Device(broker, folder, root, **more).start())
        return made[-1]

    yield make
    for device in made:
        assert device.fetcher.stop(10)


@pytest.fixture
def make_hand() -> Iterator[Callable[..., Hand]]:
    made: list[Hand] = []

    def make(broker: Broker, name: str = "@operator") -> Hand:
        made.append(Hand(broker, name))
        return made[-1]

    yield make
    for hand in made:
        hand.close()
