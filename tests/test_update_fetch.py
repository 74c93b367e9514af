"""runtime.update_fetch: from a publisher that signs, over a real broker, to a staging folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from broker import Broker, Pki
from updates import RULES, Device, Fleet, Hand, wait_for

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.core.catalog import Catalog, choose
from edge_rt.core.fetch import PullRules
from edge_rt.core.fetch_config import FetchConfig
from edge_rt.core.update_task import Answer
from edge_rt.runtime.update_child import run_child
from edge_rt.runtime.update_download import Download, Outcome
from edge_rt.runtime.update_refresh import Refreshing

MakeBroker = Callable[..., Broker]
MakeDevice = Callable[..., Device]


def test_from_bundle_to_staging_folder(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    fleet.broker = make_broker(pki)
    release = fleet.publish()
    assert fleet.upload().complete
    device = make_device(fleet.broker)
    catalog = device.wait(lambda: device.catalogs)[0]
    assert catalog.releases == (release,)
    folder = device.fetch(release)
    assert read_bundle(folder).manifest.version == "1.1.0"
    status = device.fetcher.status()
    assert status["taken"] == status["asked"] == len(release.chunks)
    assert (status["error"], status["failures"]) == ("", 0)
    msgspec.json.encode(status)


def test_a_new_release_is_heard_of_at_once_and_a_withdrawn_one_too(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    fleet.broker = make_broker(pki)
    fleet.upload()
    device = make_device(fleet.broker)
    device.wait(lambda: device.catalogs)
    release = fleet.publish(60_000, percent=10)
    fleet.upload()
    device.wait(lambda: device.catalogs[-1].releases == (release,))
    fleet.publisher().roll_out("fall-waist", "1.1.0", 50)
    fleet.upload()
    device.wait(lambda: device.catalogs[-1].releases[0].rollout.percent == 50)
    fleet.publisher().withdraw("fall-waist", "1.1.0")
    fleet.upload()
    device.wait(lambda: device.catalogs[-1].releases[0].state == "withdrawn")
    assert device.fetcher.status()["connects"] == 1


def test_without_an_index_every_file_is_found_all_the_same(
    make_broker: MakeBroker,
    pki: Pki,
    fleet: Fleet,
    make_device: MakeDevice,
    make_hand: Callable[..., Hand],
) -> None:
    fleet.broker = make_broker(pki)
    release = fleet.publish(60_000)
    fleet.upload()
    hand = make_hand(fleet.broker)
    for lie in (b"", b'{"files":{"../x":1,"99.targets.json":5}}'):
        hand.put("metadata/index.json", lie)
        device = make_device(fleet.broker, folder=fleet.folder.parent / f"device{len(lie)}")
        device.wait(lambda device=device: device.catalogs)
        assert device.catalogs[0].releases == (release,)
        assert device.fetcher.stop(10)


def test_keys_change_and_a_device_that_was_away_follows(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice, tmp_path: Path
) -> None:
    fleet.broker = make_broker(pki)
    fleet.upload()
    first_root = tmp_path / "first-root.json"
    shutil.copy(fleet.folder / "root.json", first_root)
    device = make_device(fleet.broker, root=first_root)
    device.wait(lambda: device.catalogs)
    assert device.fetcher.stop(10)
    publisher = fleet.publisher()
    for role in ("root", "timestamp", "targets", "root"):
        gone = publisher.rotate(role, lambda path: b"another passphrase")
        assert gone
        for path in gone:
            path.unlink()
    assert publisher.newest_root == "6.root.json"  # targets and snapshot share a key: two steps
    release = fleet.publish(60_000, passphrase=b"another passphrase")
    fleet.upload()
    later = make_device(fleet.broker, root=first_root)
    later.wait(lambda: later.catalogs and later.catalogs[-1].releases == (release,))
    assert later.fetcher.status()["root_version"] == 6
    assert later.failed == []
    new = make_device(fleet.broker, folder=tmp_path / "new")  # given the newest root.json
    new.wait(lambda: new.catalogs and new.catalogs[-1].releases == (release,))


def test_a_restart_goes_on_and_a_finished_download_needs_no_broker(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    broker = fleet.broker = make_broker(pki)
    release = fleet.publish(400_000)
    fleet.upload()
    device = make_device(broker)
    device.wait(lambda: device.catalogs)
    device.fetch(release)
    assert device.fetcher.stop(10)
    broker.kill()
    later = make_device(broker)
    assert later.wait(lambda: later.catalogs) == device.catalogs
    folder = later.fetch(release)
    assert later.fetcher.status()["resumed"] == len(release.chunks)
    assert later.fetcher.status()["asked"] == 0
    read_bundle(folder)
    later.fetcher.discard(release.sha256)
    later.wait(lambda: not folder.exists())
    assert list((later.folder / "download").iterdir()) == []


def test_a_damaged_file_is_found_and_only_the_damage_is_fetched_again(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    fleet.broker = make_broker(pki)
    release = fleet.publish(400_000)
    fleet.upload()
    device = make_device(fleet.broker)
    device.wait(lambda: device.catalogs)
    device.fetch(release)
    assert device.fetcher.stop(10)
    part = device.folder / "download" / f"{release.sha256}.part"
    data = bytearray(part.read_bytes())
    data[70_000] ^= 1
    part.write_bytes(data[:-10])
    later = make_device(fleet.broker)
    later.wait(lambda: later.catalogs)
    later.fetch(release)
    assert later.fetcher.status()["asked"] == 2  # the bent one, and the one cut short


def test_an_alarm_gets_the_line(
    make_broker: MakeBroker,
    pki: Pki,
    fleet: Fleet,
    make_device: MakeDevice,
    make_hand: Callable[..., Hand],
) -> None:
    broker = fleet.broker = make_broker(pki)
    release = fleet.publish(2_000_000)
    fleet.upload()
    hand = make_hand(broker)
    hand.put(f"blob/{release.sha256}/2", b"")  # so that something stays under way
    alarm = [False]
    device = make_device(broker, pause=lambda: alarm[0])
    device.wait(lambda: device.catalogs)
    device.fetcher.want(release)
    device.wait(lambda: device.fetcher.status().get("held", 0) >= 4)
    alarm[0] = True
    device.fetcher.wake()
    device.wait(lambda: device.fetcher.status()["pauses"] == 1)
    status = device.fetcher.status()
    assert status["phase"] == "paused"
    assert status["state"] != "online", "what is on its way must not come"
    blob = fleet.publisher().blob(release).read_bytes()
    hand.put(f"blob/{release.sha256}/2", blob[2 * 65536 : 3 * 65536])
    assert device.fetcher.status()["held"] == status["held"]
    alarm[0] = False
    device.fetcher.wake()
    device.wait(lambda: device.staged)
    assert device.fetcher.status()["taken"] == len(release.chunks), "none came twice"


def test_another_wish_takes_the_place_of_the_first(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    fleet.broker = make_broker(pki)
    first = fleet.publish(2_000_000)
    second = fleet.publish(60_000, version="1.2.0", seed=2)
    fleet.upload()
    device = make_device(fleet.broker)
    device.wait(lambda: device.catalogs)
    device.fetcher.want(first)
    device.wait(lambda: device.fetcher.status().get("held", 0) > 0)
    device.fetcher.want(second)
    device.wait(lambda: device.staged)
    assert device.staged[0][0] == second
    download = device.folder / "download"
    parts = {path.stem for path in download.glob("*.part")}
    assert parts == {first.sha256, second.sha256}, "the first may have its turn again"
    device.fetcher.discard(first.sha256)
    device.wait(lambda: [path.stem for path in download.glob("*.part")] == [second.sha256])


def test_nothing_comes_in_by_metadata_that_has_expired(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    """Whoever keeps newer metadata from the device could have it take what was withdrawn."""
    fleet.broker = make_broker(pki)
    release = fleet.publish(60_000)
    fleet.upload()
    now_s = [time.time()]
    device = make_device(fleet.broker, wall=lambda: now_s[0])
    device.wait(lambda: device.catalogs)
    now_s[0] = device.fetcher.status()["expires_s"] + 1.0
    device.fetcher.want(release)
    device.wait(lambda: device.fetcher.status()["phase"] == "metadata has expired")
    time.sleep(1.0)
    assert device.fetcher.status()["asked"] == 0 and device.staged == []
    assert device.fetcher.stop(10)
    # Nor after a restart, until there is metadata that holds.
    later = make_device(fleet.broker, wall=lambda: now_s[0])
    later.wait(lambda: later.catalogs)
    later.fetcher.want(release)
    later.wait(lambda: later.fetcher.status()["phase"] == "metadata has expired")
    now_s[0] -= 60.0
    later.wait(lambda: later.staged)


def test_a_disk_that_gives_back_other_bytes_is_no_fault_of_the_publisher(
    fleet: Fleet, tmp_path: Path
) -> None:
    release = fleet.publish(400_000)
    blob = fleet.publisher().blob(release).read_bytes()
    download = Download(tmp_path, PullRules(), 0, lambda task: run_child(task, lambda: False))

    def fetch() -> int:
        pull = download.open(release)
        asked = 0
        while not pull.done:
            for chunk in pull.ask(0.0):
                at = chunk * release.chunk_bytes
                data = blob[at : at + release.length(chunk)]
                download.offer(f"{release.sha256}/{chunk}", data, 0.0)
                asked += 1
        return asked

    assert fetch() == len(release.chunks)
    part = tmp_path / "download" / f"{release.sha256}.part"
    with part.open("r+b") as file:
        file.seek(70_000)
        file.write(b"rotten")
    assert download.finish() is Outcome.FAILED
    assert "the disk gives back other bytes" in download.reason
    assert fetch() == 1, "only what is rotten comes again"
    assert download.finish() is Outcome.STAGED


def test_the_same_bundle_in_other_chunks(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    """Forgotten and published anew: one zip, so one name, and a list of other pieces."""
    fleet.broker = make_broker(pki)
    first = fleet.publish(60_000, chunk_bytes=8192)
    fleet.upload()
    device = make_device(fleet.broker)
    device.wait(lambda: device.catalogs[-1:] and device.catalogs[-1].releases)
    fleet.publisher().forget("fall-waist", "1.1.0")
    second = fleet.publish(60_000, chunk_bytes=4096)
    assert first.sha256 == second.sha256 and first.chunks != second.chunks
    fleet.upload(again=True)
    device.fetcher.want(first)
    device.wait(lambda: device.failed)
    assert device.fetch(second).is_dir()


def test_a_full_disk_is_said_and_nothing_is_lost(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    fleet.broker = make_broker(pki)
    release = fleet.publish(60_000)
    fleet.upload()
    greedy = msgspec.structs.replace(RULES, reserve_mb=4096 * 1024)
    device = make_device(fleet.broker, fetch=greedy)
    device.wait(lambda: device.catalogs)
    device.fetcher.want(release)
    assert "free disk space" in device.refusal()
    assert device.failed[-1][0] is None
    assert not list(device.folder.glob("download/*.part")) or device.staged == []


def test_a_verified_catalog_counts_though_the_disk_does_not_take_it(tmp_path: Path) -> None:
    """It may say that the live model is withdrawn."""
    answer = Answer(catalog=Catalog())
    refreshing = Refreshing(tmp_path, FetchConfig(), lambda task: answer, lambda: 0.0)
    (tmp_path / "fetch.json.new").mkdir()  # no file can be written under this name
    assert refreshing.verify(2e9) == ([], answer.catalog, "")
    assert refreshing.verify(2e9) == ([], None, ""), "told once"
    assert Refreshing(tmp_path, FetchConfig(), lambda task: answer, lambda: 0.0).load() is None


def test_a_device_without_its_fleet_s_root_says_so(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice, tmp_path: Path
) -> None:
    fleet.broker = make_broker(pki)
    fleet.upload()
    device = make_device(fleet.broker, root=tmp_path / "nowhere.json")
    assert "nowhere.json: No such file" in device.refusal()


def test_a_broker_without_a_publisher_is_said_once_and_waited_for(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    fleet.broker = make_broker(pki)
    device = make_device(fleet.broker)
    assert "timestamp.json is not there" in device.refusal()
    fleet.upload()
    device.wait(lambda: device.catalogs)
    device.wait(lambda: device.fetcher.status()["error"] == "")


def test_a_rollout_grows_over_a_fleet(fleet: Fleet) -> None:
    release = fleet.publish(60_000, percent=10)
    publisher = fleet.publisher()
    names = [f"pi-{n}" for n in range(400)]
    before: set[str] = set()
    for percent in (10, 50, 100):
        publisher.roll_out(release.name, release.version, percent)
        taking = {n for n in names if choose(publisher.catalog, "fall", n, "0.1.0") is not None}
        assert before <= taking
        assert abs(len(taking) / 4 - percent) < 10  # 4 standard errors at 50 %
        before = taking
    assert before == set(names)
    publisher.pause(release.name, release.version)
    assert not [n for n in names if choose(publisher.catalog, "fall", n, "0.1.0")]


def test_stopping_is_quick_in_every_phase(
    make_broker: MakeBroker, pki: Pki, fleet: Fleet, make_device: MakeDevice
) -> None:
    fleet.broker = make_broker(pki)
    fleet.publish(60_000)
    fleet.upload()
    device = make_device(fleet.broker)
    wait_for(lambda: device.fetcher.status()["phase"] == "metadata")
    assert device.fetcher.stop(3)
