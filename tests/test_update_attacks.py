"""What a hostile broker, or a thief of one key, can send: refused by name, and nothing changes."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from rogue_broker import RogueBroker
from tuf.api.metadata import Metadata, MetaFile
from updates import PASSPHRASE, RULES, Device, Fleet, Hand

from edge_rt.adapters import signing, trust
from edge_rt.core.catalog import Release
from edge_rt.core.errors import InputError
from edge_rt.fleet.publisher import KEYS

ROLES = ("targets", "snapshot", "timestamp")


class Forge:
    """The metadata of a fleet in the hands of somebody with some of its keys."""

    def __init__(self, fleet: Fleet) -> None:
        self.folder = fleet.folder / "metadata"
        self.repository = signing.Repository(self.folder)
        self.held: dict[str, Metadata[Any]] = {
            role: Metadata.from_file(str(self.folder / self.name(role))) for role in ROLES
        }
        self._keys = fleet.folder / KEYS

    def name(self, role: str) -> str:
        version = self.repository.versions[role]
        return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"

    def signers(self, role: str) -> list[signing.Signer]:
        timer = (self._keys / "timestamp.passphrase").read_bytes().strip()
        opens = timer if role == "timestamp" else PASSPHRASE
        ids = self.repository.root.signed.roles[role].keyids
        paths = [signing.find_key([self._keys], keyid) for keyid in ids]
        return [signing.load_key(path, opens) for path in paths if path is not None]

    def sign(self, role: str, signers: list[signing.Signer] | None = None) -> bytes:
        """Sign what is held of a role, one version on."""
        metadata = self.held[role]
        metadata.signed.version += 1
        metadata.signatures.clear()
        for signer in self.signers(role) if signers is None else signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def above(self, role: str, data: bytes) -> dict[str, bytes]:
        """The files that make devices look at `data` as the newest of a role: what is above it is
        signed as it should be."""
        version = self.held[role].signed.version
        name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
        files = {name: data}
        if role == "targets":
            meta = MetaFile.from_data(version, data, ["sha256"])
            self.held["snapshot"].signed.meta["targets.json"] = meta
            files |= self.above("snapshot", self.sign("snapshot"))
        elif role == "snapshot":
            self.held["timestamp"].signed.snapshot_meta = MetaFile.from_data(
                version, data, ["sha256"]
            )
            files |= self.above("timestamp", self.sign("timestamp"))
        return files


def unsigned(forge: Forge) -> dict[str, bytes]:
    return forge.above("timestamp", forge.sign("timestamp", []))


def unsigned_targets(forge: Forge) -> dict[str, bytes]:
    return forge.above("targets", forge.sign("targets", []))


def wrong_key(forge: Forge) -> dict[str, bytes]:
    other = signing.make_key(forge.folder / "other", "timestamp", PASSPHRASE)
    return forge.above("timestamp", forge.sign("timestamp", [other]))


def below_threshold(forge: Forge) -> dict[str, bytes]:
    return forge.above("targets", forge.sign("targets", forge.signers("targets")[:1]))


def expired(role: str) -> Callable[[Forge], dict[str, bytes]]:
    def attack(forge: Forge) -> dict[str, bytes]:
        forge.held[role].signed.expires = datetime.now(UTC) - timedelta(days=1)
        return forge.above(role, forge.sign(role))

    return attack


def older_timestamp(forge: Forge) -> dict[str, bytes]:
    forge.held["timestamp"].signed.version -= 2
    return forge.above("timestamp", forge.sign("timestamp"))


def older_snapshot(forge: Forge) -> dict[str, bytes]:
    """By somebody who has stolen the timestamp's key, which lies at a timer."""
    forge.held["snapshot"].signed.version -= 2
    return forge.above("snapshot", forge.sign("snapshot"))


def older_targets(forge: Forge) -> dict[str, bytes]:
    forge.held["targets"].signed.version -= 2
    return forge.above("targets", forge.sign("targets"))


def mixed_targets(forge: Forge) -> dict[str, bytes]:
    """New snapshot, and targets of another time under the name that it asks for."""
    old = (forge.folder / forge.name("targets")).read_bytes()
    files = forge.above("targets", forge.sign("targets"))
    name = next(name for name in files if name.endswith("targets.json"))
    return {**files, name: old}


def mixed_catalog(forge: Forge) -> dict[str, bytes]:
    catalog = json.loads(forge.repository.catalog)
    catalog["releases"][0]["rollout"]["percent"] = 1.5
    return {
        **forge.above("timestamp", forge.sign("timestamp")),
        forge.repository.catalog_name: json.dumps(catalog).encode(),
    }


def oversized(role: str, size: int) -> Callable[[Forge], dict[str, bytes]]:
    def attack(forge: Forge) -> dict[str, bytes]:
        data = forge.sign(role) + b" " * size
        return forge.above(role, data)

    return attack


def no_snapshot(forge: Forge) -> dict[str, bytes]:
    files = forge.above("snapshot", forge.sign("snapshot"))
    return {name: b"" if "snapshot" in name else data for name, data in files.items()}


def own_root(forge: Forge) -> dict[str, bytes]:
    """The next root, signed by nobody whom the present one names."""
    root = Metadata.from_bytes(forge.repository.root.to_bytes())
    root.signed.version += 1
    root.signatures.clear()
    root.sign(signing.make_key(forge.folder / "other", "root", PASSPHRASE))
    stamp = forge.above("timestamp", forge.sign("timestamp"))
    return {f"{root.signed.version}.root.json": root.to_bytes(), **stamp}


def nonsense(forge: Forge) -> dict[str, bytes]:
    return {"timestamp.json": b"\xff" * 500}


@pytest.fixture
def broker(make_broker: Callable[..., Broker], pki: Pki) -> Broker:
    return make_broker(pki)


@pytest.fixture(scope="module")
def two_of_two(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A publisher whose targets need two signatures, with one release."""
    folder = tmp_path_factory.mktemp("attacked") / "fleet"
    made = Fleet(folder, targets=(2, 2), separate=True)
    made.publish(60_000)
    return made


ATTACKS = {
    "unsigned": (unsigned, "UnsignedMetadataError: timestamp was signed by 0/1"),
    "unsigned targets": (unsigned_targets, "targets was signed by 0/2"),
    "wrong key": (wrong_key, "timestamp was signed by 0/1"),
    "below threshold": (below_threshold, "targets was signed by 1/2"),
    "expired timestamp": (expired("timestamp"), "ExpiredMetadataError: timestamp.json is expired"),
    "expired snapshot": (expired("snapshot"), "ExpiredMetadataError: snapshot.json is expired"),
    "expired targets": (expired("targets"), "ExpiredMetadataError: New targets is expired"),
    "older timestamp": (older_timestamp, "New timestamp version"),
    "older snapshot": (older_snapshot, "New snapshot version"),
    "older targets": (older_targets, "Expected targets.json version"),
    "mix and match": (mixed_targets, "LengthOrHashMismatchError"),
    "another catalog": (mixed_catalog, "Length(OrHash)?MismatchError"),
    "withheld snapshot": (no_snapshot, "snapshot.json is not there"),
    "own root": (own_root, "root was signed by 0/1"),
    "nonsense": (nonsense, "Failed to deserialize"),
    "long timestamp": (
        oversized("timestamp", 20_000),
        "timestamp.json: 20.* bytes, 8192|Downloaded",
    ),
    "long targets": (oversized("targets", 20_000), "targets.json: 20.* bytes, 8192|Downloaded"),
}
# Over a broker and through the child each takes a second or two: the commit size tries these.
COMMIT = ("wrong key", "mix and match", "long targets")


def prepared(two_of_two: Fleet, folder: Path) -> Fleet:
    """A fleet with a past, so that something older was once valid."""
    fleet = two_of_two.copy(folder)
    fleet.publisher().refresh()
    fleet.publisher().refresh(everything=True)
    return fleet


# What is signed may be long: only the device's door is narrower.
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "long targets"])
def test_metadata(two_of_two: Fleet, tmp_path: Path, name: str) -> None:
    attack, reason = ATTACKS[name]
    fleet = prepared(two_of_two, tmp_path / "copy")
    root = (fleet.folder / "root.json").read_bytes()
    mirror, trusted = tmp_path / "mirror", tmp_path / "trusted"
    shutil.copytree(fleet.folder / "metadata", mirror)
    trust.refresh(root, trusted, mirror)
    before = (trusted / "targets.json").read_bytes()
    for file, data in attack(Forge(fleet)).items():
        if data:
            (mirror / file).write_bytes(data)
    with pytest.raises(trust.Refused, match=reason):
        trust.refresh(root, trusted, mirror)
    assert (trusted / "targets.json").read_bytes() == before
    assert (trusted / "catalog.json").read_bytes() == Forge(fleet).repository.catalog


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in COMMIT else pytest.mark.release) for n in ATTACKS],
)
def test_metadata_over_mqtt(
    broker: Broker,
    two_of_two: Fleet,
    tmp_path: Path,
    make_device: Callable[..., Device],
    make_hand: Callable[..., Hand],
    name: str,
) -> None:
    attack, reason = ATTACKS[name]
    fleet = prepared(two_of_two, tmp_path / "copy")
    fleet.broker = broker
    fleet.upload()
    device = make_device(broker, root=fleet.folder / "root.json")
    device.wait(lambda: device.catalogs)
    hand = make_hand(broker)
    for file, data in attack(Forge(fleet)).items():
        hand.put(f"metadata/{file}", data)
    found = device.refusal()
    assert re.search(reason, found), found
    assert len(device.catalogs) == 1, "what was refused must not reach anybody"


def test_what_is_signed_after_an_attack_is_taken_as_ever(
    broker: Broker,
    fleet: Fleet,
    make_device: Callable[..., Device],
    make_hand: Callable[..., Hand],
) -> None:
    fleet.broker = broker
    fleet.publish(60_000)
    fleet.upload()
    device = make_device(broker)
    device.wait(lambda: device.catalogs)
    make_hand(broker).put("metadata/timestamp.json", wrong_key(Forge(fleet))["timestamp.json"])
    device.refusal()
    fleet.publisher().pause("fall-waist", "1.1.0")
    with pytest.raises(InputError, match="find out who writes there"):
        fleet.upload()
    fleet.upload(again=True)
    device.wait(lambda: len(device.catalogs) == 2)
    assert device.catalogs[1].releases[0].state == "paused"
    assert device.fetcher.status()["error"] == ""


def test_at_1970_nothing_is_accepted(
    broker: Broker, fleet: Fleet, make_device: Callable[..., Device]
) -> None:
    fleet.broker = broker
    fleet.publish(60_000)
    fleet.upload()
    now = [0.0]
    device = make_device(broker, wall=lambda: now[0])
    device.wait(lambda: device.fetcher.status()["phase"] == "waiting for the clock")
    assert device.fetcher.status()["connects"] == 0
    now[0] = datetime.now(UTC).timestamp()
    device.fetcher.wake()
    device.wait(lambda: device.catalogs)


def test_the_floor_rises_and_stays(
    broker: Broker, fleet: Fleet, make_device: Callable[..., Device], tmp_path: Path
) -> None:
    fleet.broker = broker
    fleet.publish(60_000)
    fleet.upload()
    device = make_device(broker)
    device.wait(lambda: device.catalogs)
    assert device.fetcher.stop(10)
    later = make_device(broker, wall=lambda: datetime.now(UTC).timestamp() - 3600)
    later.wait(lambda: later.fetcher.status()["phase"] == "waiting for the clock")
    assert later.catalogs == device.catalogs, "what was verified before stays known"


def test_a_clock_that_nobody_vouches_for_has_to_wait(
    broker: Broker, fleet: Fleet, make_device: Callable[..., Device]
) -> None:
    fleet.broker = broker
    fleet.upload()
    now = [0.0]
    device = make_device(broker, clock=lambda: now[0], synchronised=lambda: False)
    device.wait(lambda: device.fetcher.status()["phase"] == "waiting for the clock")
    now[0] = 599.0
    device.fetcher.wake()
    assert device.fetcher.status()["connects"] == 0
    now[0] = 601.0
    device.fetcher.wake()
    device.wait(lambda: device.fetcher.status()["connects"] == 1)


# ---- chunks ----


def swapped(release: Release, chunks: list[bytes]) -> bytes:
    return chunks[1]


def truncated(release: Release, chunks: list[bytes]) -> bytes:
    return chunks[0][:-1]


def endless(release: Release, chunks: list[bytes]) -> bytes:
    return chunks[0] + b"x" * 60_000


@pytest.mark.parametrize(
    ("bend", "reason"),
    [
        (swapped, "chunk 0 was refused: sha256 is not the signed one"),
        (truncated, "chunk 0 was refused: 65535 bytes, 65536 are signed"),
        (endless, "chunk 0 was refused: 125536 bytes, 65536 are signed"),
    ],
)
def test_chunks(
    broker: Broker,
    fleet: Fleet,
    make_device: Callable[..., Device],
    make_hand: Callable[..., Hand],
    bend: Callable[[Release, list[bytes]], bytes],
    reason: str,
) -> None:
    fleet.broker = broker
    release = fleet.publish(300_000)
    fleet.upload()
    blob = fleet.publisher().blob(release).read_bytes()
    chunks = [blob[at : at + 65536] for at in range(0, len(blob), 65536)]
    hand = make_hand(broker)
    hand.put(f"blob/{release.sha256}/0", bend(release, chunks))
    device = make_device(broker)
    device.wait(lambda: device.catalogs)
    device.fetcher.want(release)
    assert reason in device.refusal()
    assert device.failed[-1][0] is None, "the release itself is not to blame"
    assert device.staged == []
    # Once the right one is there, all others are here already.
    hand.put(f"blob/{release.sha256}/0", chunks[0])
    device.fetch(release)
    assert device.fetcher.status()["taken"] == len(chunks)


def test_a_chunk_that_is_not_there_holds_nothing_else_up(
    broker: Broker, fleet: Fleet, make_device: Callable[..., Device], make_hand: Callable[..., Hand]
) -> None:
    fleet.broker = broker
    release = fleet.publish(300_000)
    fleet.upload()
    hand = make_hand(broker)
    hand.put(f"blob/{release.sha256}/2", b"")
    rules = msgspec.structs.replace(RULES, patience_s=0.3)
    device = make_device(broker, fetch=rules)
    device.wait(lambda: device.catalogs)
    device.fetcher.want(release)
    assert "chunk 2 was refused: it does not come" in device.refusal()
    assert device.fetcher.status()["taken"] == len(release.chunks) - 1


def test_a_signed_bundle_for_another_task_is_not_tried_again(
    broker: Broker, fleet: Fleet, make_device: Callable[..., Device], tmp_path: Path
) -> None:
    from updates import plain_bundle

    from edge_rt.adapters.bundle_files import read_bundle
    from edge_rt.adapters.unpack import pack
    from edge_rt.fleet.publisher import describe

    fleet.broker = broker
    bundle = plain_bundle(tmp_path / "b", 60_000)
    manifest = read_bundle(bundle).manifest
    blob = pack(bundle, manifest)
    release = msgspec.structs.replace(describe(manifest, blob, 100, 65536), task="face-embed")
    fleet.publisher().offer(release, blob)
    fleet.upload()
    device = make_device(broker)
    device.wait(lambda: device.catalogs)
    device.fetcher.want(release)
    assert "task is 'fall', 'face-embed' was signed" in device.refusal()
    assert device.failed[-1][0] == release, "the release itself is to blame"
    assert device.staged == []
    device.wait(lambda: device.fetcher.status()["phase"] == "idle")


# ---- a broker that keeps to no rules ----


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("kind", ["flood", "endless", "strangers"])
@pytest.mark.native("memory is measured")
def test_a_flood_costs_the_broker_its_connection(
    kind: str, make_device: Callable[..., Device]
) -> None:
    before_mb = resident_mb()
    expected = {
        "flood": "not asked for",
        "strangers": "not asked for",
        "endless": "larger packet than was agreed",
    }[kind]
    with RogueBroker(kind) as rogue:
        device = make_device(rogue)

        def named() -> bool:  # until it tries again
            error = device.fetcher.status()["error"]
            return expected in error or any(expected in reason for _, reason in device.failed)

        # It comes back and is pestered again: how much one connection takes is a matter of speed.
        device.wait(lambda: rogue.dropped >= 2 and rogue.sent > 1_000_000)
        device.wait(named)
    assert resident_mb() - before_mb < 40, "what is sent must not be kept"


def test_a_device_cannot_write_what_it_reads(
    broker: Broker, make_hand: Callable[..., Hand]
) -> None:
    hand = make_hand(broker, "dev1")
    for topic in ("models/metadata/timestamp.json", "models/blob/" + "0" * 64 + "/0"):
        assert hand.send(f"edge-rt/v1/home/{topic}", b"x") >= 128
