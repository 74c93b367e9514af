"""fleet.publisher and fleet.upload: what is signed, what is sent, what is cleared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from broker import Broker, Pki
from updates import BASE, PASSPHRASE, Fleet, Hand, plain_bundle, wait_for

from edge_rt.adapters import signing
from edge_rt.adapters.mqtt import Connected, Mqtt, Received
from edge_rt.core.errors import CredentialError, InputError, ManifestError
from edge_rt.fleet.publisher import FleetConfig, KeyPlan, Publisher, init
from edge_rt.fleet.running import Model, running, share
from edge_rt.fleet.upload import Upload


def retained(broker: Broker) -> dict[str, int]:
    """What lies on the broker below models/: name and size."""
    link = Mqtt(broker.settings("@operator")._replace(client_id="looker"))
    link.open()
    found: dict[str, int] = {}
    end_s = time.monotonic() + 0.8
    while time.monotonic() < end_s:
        for fact in link.poll(0.1):
            if isinstance(fact, Connected):
                link.subscribe([f"{BASE}/#"])
            elif isinstance(fact, Received):
                found[fact.topic.removeprefix(f"{BASE}/")] = len(fact.payload)
                end_s = time.monotonic() + 0.5
    link.disconnect()
    link.close()
    return found


def test_what_is_on_the_broker_is_what_is_signed(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet
) -> None:
    broker = fleet.broker = make_broker(pki)
    first = fleet.publish(200_000)
    second = fleet.publish(150_000, version="1.2.0", seed=2)
    told: list[tuple[int, int]] = []
    publisher = fleet.publisher()
    operator = broker.settings("@operator")
    with Upload(publisher, operator, progress=lambda *step: told.append(step)) as upload:
        done = upload.run()
    chunks = {
        f"blob/{r.sha256}/{n}": r.length(n) for r in (first, second) for n in range(len(r.chunks))
    }
    files = {f"metadata/{name}": len(data) for name, data in publisher.metadata().items()}
    assert retained(broker) == chunks | files
    assert told[-1] == (done.bytes, done.bytes)
    assert (done.sent, done.cleared) == (len(chunks) + len(files), 0)
    # A second time only what may have changed goes.
    again = fleet.upload()
    assert (again.sent, again.cleared, again.complete) == (len(files), 0, False)
    fleet.publisher().withdraw("fall-waist", "1.1.0")
    after = fleet.upload()
    # Chunks of the withdrawn one, and the catalog, targets and snapshot before.
    assert after.cleared == len(first.chunks) + 3
    files = {f"metadata/{name}": len(data) for name, data in fleet.publisher().metadata().items()}
    chunks = {name: size for name, size in chunks.items() if second.sha256 in name}
    assert retained(broker) == chunks | files


def test_a_broker_that_lost_everything_gets_everything_again(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet
) -> None:
    broker = fleet.broker = make_broker(pki)
    release = fleet.publish(150_000)
    fleet.upload()
    before = retained(broker)
    broker.kill()  # it had not saved yet
    broker.start()
    assert retained(broker) == {}
    done = fleet.upload()
    assert done.complete
    assert retained(broker) == before
    assert done.sent >= len(release.chunks)


def test_a_stranger_may_not_publish(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet
) -> None:
    broker = make_broker(pki)
    fleet.publish(60_000)
    with (
        Upload(fleet.publisher(), broker.settings("dev1")) as upload,
        pytest.raises(InputError, match="may @operator write there"),
    ):
        upload.run()


def test_no_broker_is_said(make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet) -> None:
    broker = make_broker(pki, start=False)
    with (
        Upload(fleet.publisher(), broker.settings("@operator")) as upload,
        pytest.raises(InputError, match="no connection"),
    ):
        upload.run()


def test_a_timer_on_another_computer_and_the_publisher_take_turns(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, tmp_path: Path
) -> None:
    broker = fleet.broker = make_broker(pki)
    timer = fleet.copy(tmp_path / "timer" / "fleet")
    for path in (timer.folder / "keys").glob("*.pem"):
        if not path.name.startswith("timestamp"):
            path.unlink()

    def refresh() -> None:
        publisher = timer.publisher()
        with Upload(publisher, broker.settings("@operator")) as upload:
            upload.catch_up()
            publisher.refresh()
            assert not upload.run(chunks=False).complete

    def act(what: Callable[[Publisher], object]) -> None:
        publisher = fleet.publisher()
        with Upload(publisher, broker.settings("@operator")) as upload:
            upload.catch_up()
            what(publisher)
            assert not upload.run().complete

    release = fleet.publish(150_000, percent=10)
    fleet.upload()
    versions = [fleet.publisher().repository.versions["timestamp"]]
    for percent in (20, 30):
        refresh()
        versions.append(timer.publisher().repository.versions["timestamp"])
        # It signs what the publisher signed, not what it was copied with.
        assert timer.publisher().catalog == fleet.publisher().catalog
        act(lambda p, percent=percent: p.roll_out("fall-waist", "1.1.0", percent))
        versions.append(fleet.publisher().repository.versions["timestamp"])
    assert versions == sorted(set(versions)), "each must be newer than the one before"
    # Signed here and not sent; then the timer signs for what was there before.
    fleet.publisher().roll_out("fall-waist", "1.1.0", 40)
    refresh()
    publisher = fleet.publisher()
    with Upload(publisher, broker.settings("@operator")) as upload:
        upload.catch_up()
        assert publisher.repository.outrun
        publisher.refresh()
        upload.run()
    assert publisher.repository.versions["timestamp"] == versions[-1] + 2
    assert publisher.catalog.releases[0].rollout.percent == 40
    act(lambda p: p.rotate("timestamp", lambda path: PASSPHRASE))
    with pytest.raises(CredentialError, match="timestamp"):
        refresh()  # its key counts no more
    assert len([name for name in retained(broker) if release.sha256 in name]) == len(release.chunks)


def test_what_others_sign_is_not_taken_over(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, tmp_path: Path
) -> None:
    broker = fleet.broker = make_broker(pki)
    other = Fleet(tmp_path / "other" / "fleet", broker)
    other.publisher().refresh()
    other.upload()
    before = {p.name: p.read_bytes() for p in (fleet.folder / "metadata").iterdir()}
    with pytest.raises(InputError, match="not ours"):
        fleet.upload()
    assert {p.name: p.read_bytes() for p in (fleet.folder / "metadata").iterdir()} == before
    fleet.upload(again=True)
    fleet.upload()


def test_rollouts(fleet: Fleet) -> None:
    release = fleet.publish(60_000, percent=10)
    publisher = fleet.publisher()
    seed = release.rollout.seed
    with pytest.raises(InputError, match="a share only grows"):
        publisher.roll_out("fall-waist", "1.1.0", 5)
    assert publisher.pause("fall-waist", "1.1.0").state == "paused"
    wider = publisher.roll_out("fall-waist", "1.1.0", 50)
    assert (wider.state, wider.rollout.percent, wider.rollout.seed) == ("active", 50, seed)
    aborted = publisher.abort("fall-waist", "1.1.0")
    assert (aborted.state, aborted.chunks) == ("aborted", ())
    assert not publisher.blob(release).exists(), "nobody may take it any more"
    with pytest.raises(InputError, match="for good"):
        publisher.roll_out("fall-waist", "1.1.0", 100)
    with pytest.raises(InputError, match="aborted already"):
        publisher.pause("fall-waist", "1.1.0")
    with pytest.raises(InputError, match="published already"):
        fleet.publish(60_000)
    with pytest.raises(InputError, match=r"there are: fall-waist 1\.1\.0"):
        publisher.withdraw("fall-waist", "9.9.9")
    publisher.forget("fall-waist", "1.1.0")
    assert fleet.publisher().catalog.releases == ()


def test_a_damaged_bundle_is_not_published(fleet: Fleet, tmp_path: Path) -> None:
    bundle = plain_bundle(tmp_path / "b", 10_000)
    (bundle / "CARD.md").write_text("other")
    with pytest.raises(ManifestError, match="CARD"):
        fleet.publisher().publish(bundle, 100)
    assert fleet.publisher().catalog.releases == ()


def test_keys_lie_encrypted_and_private(signed_fleet: Fleet) -> None:
    keys = list((signed_fleet.folder / "keys").glob("*.pem"))
    assert len(keys) == 3
    for path in keys:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        with pytest.raises(CredentialError, match="wrong passphrase"):
            signing.load_key(path, b"not the passphrase")


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="at least 12"):
        init(tmp_path / "f", FleetConfig(), KeyPlan(), lambda path: b"short", datetime.now(UTC))


def test_the_timer_needs_no_key_but_its_own(fleet: Fleet) -> None:
    for path in (fleet.folder / "keys").glob("*.pem"):
        if not path.name.startswith("timestamp"):
            path.unlink()
    publisher = Publisher(fleet.folder, lambda path: pytest.fail(f"asked for {path}"))
    version = publisher.repository.versions["timestamp"]
    publisher.refresh()
    assert publisher.repository.versions["timestamp"] == version + 1
    with pytest.raises(CredentialError, match="--keys"):
        publisher.refresh(everything=True)


def test_keys_on_sticks_and_thresholds(tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    plan = KeyPlan(root=(3, 2), targets=(2, 2), separate=True)
    init(folder, FleetConfig(), plan, lambda path: PASSPHRASE, datetime.now(UTC))
    sticks = [tmp_path / f"stick{n}" for n in range(2)]
    for stick, path in zip(sticks, sorted((folder / "keys").glob("targets*.pem")), strict=True):
        stick.mkdir()
        path.rename(stick / path.name)

    def publisher(*keys: Path) -> Publisher:
        return Publisher(folder, lambda path: PASSPHRASE, keys)

    with pytest.raises(CredentialError, match="2 of its keys must sign, 1 are here"):
        publisher(sticks[0]).refresh(everything=True)
    publisher(*sticks).refresh(everything=True)
    next((folder / "keys").glob("root1*.pem")).unlink()
    publisher(*sticks).rotate("root", lambda path: PASSPHRASE)  # 2 of 3 are enough
    assert publisher().newest_root == "2.root.json"


def test_it_says_what_ends_soon(fleet: Fleet) -> None:
    assert set(fleet.publisher().ending(60)) == {"timestamp"}
    later = datetime.now(UTC) + timedelta(days=330)
    publisher = Publisher(fleet.folder, lambda path: PASSPHRASE, now=lambda: later)
    assert set(publisher.ending(60)) == {"timestamp", "snapshot", "targets"}


def test_who_runs_what(
    make_broker: Callable[..., Broker], pki: Pki, make_hand: Callable[..., Hand]
) -> None:
    broker = make_broker(pki)
    for name, version in (("dev1", "1.1.0"), ("dev2", "1.0.0")):
        link = Mqtt(broker.settings(name))
        link.open()
        wait_for(lambda link=link: any(isinstance(f, Connected) for f in link.poll(1)))
        model = {"name": "fall-waist", "version": version, "state": "idle", "slot": "a"}
        body = {"version": 0, "settings": {}, "models": {"fall": model}}
        base = f"edge-rt/v1/home/{name}"
        link.publish(f"{base}/twin/reported", json.dumps(body).encode(), retain=True)
        link.publish(f"{base}/status", b'{"status":"online"}', retain=True)
        wait_for(lambda link=link: len(link.poll(1)) > 0)
        link.disconnect()
        link.close()
    rows = running(broker.settings("@operator"), "home")
    assert [(r.device, r.status, r.task, r.model.version) for r in rows] == [
        ("dev1", "online", "fall", "1.1.0"),
        ("dev2", "online", "fall", "1.0.0"),
    ]
    assert rows[0].model == Model("fall-waist", "1.1.0", "idle")
    assert share(rows, "fall-waist", "1.1.0") == {"devices": 1, "idle": 1}
