"""A rollout over a fleet of simulated devices: a publisher that signs, one broker with its ACL, the
receiver; shares follow the signed percentage, and the report halts a bad version."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from math import sqrt
from pathlib import Path

import msgspec
import pytest
from broker import Broker, Pki
from sim_fleet import SimDevice, SimFleet
from updates import PASSPHRASE, Fleet, plain_bundle

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.unpack import pack
from edge_rt.cli import main
from edge_rt.core.catalog import CHUNK_BYTES, Rollout
from edge_rt.fleet.publisher import describe
from edge_rt.fleet.running import running, share

SIZES = [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.release)]
STEPS = (10, 50, 100)


class Site:
    """All parts of one rollout."""

    def __init__(self, broker: Broker, fleet: Fleet, size: int, folder: Path) -> None:
        self.broker, self.publisher, self.folder = broker, fleet, folder
        fleet.broker = broker
        fleet.upload()
        root = (fleet.folder / "root.json").read_bytes()
        self.sims = SimFleet(broker, size, root, folder)
        self.secret = folder / "passphrase"
        self.secret.write_bytes(PASSPHRASE)
        self.secret.chmod(0o600)

    def publish(self, version: str, percent: float) -> None:
        """With a seed of its own, so that the same devices go first in every run."""
        folder = plain_bundle(self.folder / f"bundle-{version}", 100_000, version=version)
        manifest = read_bundle(folder).manifest
        blob = pack(folder, manifest)
        release = describe(manifest, blob, percent, CHUNK_BYTES)
        release = msgspec.structs.replace(release, rollout=Rollout(percent, f"seed-{version[2]}"))
        self.publisher.publisher().offer(release, blob)
        self.send()

    def send(self) -> None:
        """Upload, and see every device act on it."""
        self.publisher.upload()
        self.sims.settle(self.publisher.publisher().repository.versions["timestamp"])

    def sign(self, command: str) -> None:
        """What the report tells a person to type."""
        words = shlex.split(command)
        assert words.pop(0) == "edge-rt"
        words += ["--in", str(self.publisher.folder), "--offline"]
        assert main([*words, "--passphrase-file", str(self.secret)]) == 0
        self.send()


@pytest.fixture
def make_site(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, tmp_path: Path
) -> Iterator[Callable[[int], Site]]:
    made: list[Site] = []

    def make(size: int) -> Site:
        made.append(Site(make_broker(pki), fleet, size, tmp_path / "site"))
        return made[-1]

    yield make
    for site in made:
        site.sims.close()


def usual(device: SimDevice, number: int, day: int) -> None:
    """An alarm in ten days and a pre-alarm that is cancelled in five; trials end well."""
    if device.record.candidate is not None:
        device.end_trial()
    if (number + day) % 10 == 0:
        device.diary.alarm()
    if (number + day) % 5 == 0:
        device.diary.alarm("cancelled")


@pytest.mark.parametrize("size", SIZES)
def test_a_rollout_follows_its_percentage_and_a_bad_version_is_halted(
    size: int, make_site: Callable[[int], Site], capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(size)
    sims = site.sims

    def report(version: str) -> dict[str, object]:
        capsys.readouterr()
        words = ["--store", str(sims.store.folder), "--in", str(site.publisher.folder), "--json"]
        assert main(["fleet", "report", version, *words]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    sims.pass_days(14, usual)
    site.publish("1.1.0", STEPS[0])
    before: set[str] = set()
    for percent, following in zip(STEPS, (*STEPS[1:], None), strict=True):
        if percent != STEPS[0]:
            site.sign(f"edge-rt fleet rollout set fall-waist 1.1.0 {percent}")
        took = sims.ran("1.1.0")
        p = percent / 100
        # Five standard errors of a binomial share, as tests/test_rollout.py; none at 100 %.
        assert abs(len(took) / size - p) <= 5 * sqrt(p * (1 - p) / size)
        assert before <= took, "who had it keeps it"
        before = took
        sims.pass_days(7, usual)
        found = report("1.1.0")
        assert found["states"] == {"confirmed": len(took)}
        # At the start of a fleet of 20 two devices say nothing; of 200, twenty do.
        if len(took) >= 13:
            assert found["recommendation"] == "advance", found["reasons"]
            wanted = f"edge-rt fleet rollout set fall-waist 1.1.0 {following}"
            assert found["command"] == (wanted if following else None)
        else:
            assert found["recommendation"] == "hold", found["reasons"]
    assert before == {device.name for device in sims.devices}
    twins = running(site.broker.settings("@operator"), "home")
    assert share(twins, "fall-waist", "1.1.0") == {"devices": size, "idle": size}

    def failing(device: SimDevice, number: int, day: int) -> None:
        usual_trial = device.record.candidate is not None
        if usual_trial and len(kept) < 1:
            kept.append(device)  # one is still on trial when it is halted
        elif usual_trial and device not in kept:
            device.end_trial("9 alarms in 20.0 h against 2 in 300.0 h before")

    kept: list[SimDevice] = []
    site.publish("1.2.0", 50 if size < 100 else 10)
    took = sims.ran("1.2.0")
    assert 0 < len(took) < size
    sims.pass_days(1, failing)
    found = report("1.2.0")
    assert found["recommendation"] == "abort", found
    assert found["states"] == {"rolled back": len(took) - 1, "on trial": 1}
    assert f"it failed on {len(took) - 1} of {len(took) - 1} devices" in str(found["reasons"])
    assert [device.name for device in sims.on_trial()] == [kept[0].name]
    site.sign(str(found["command"]))
    assert sims.on_trial() == []
    assert {device.version for device in sims.devices} == {"1.1.0"}
    assert report("1.2.0")["states"] == {"rolled back": len(took) - 1, "called back": 1}
    sims.pass_days(1, usual)
    assert sims.ran("1.2.0") == took, "nobody else took it"
    assert all(sims.store.log(*key).gaps() == [] for key in sims.store.known())
    assert sims.receiver.counts["bad_input"] == 0
