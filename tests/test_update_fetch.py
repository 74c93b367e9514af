"""runtime.update_fetch: from a publisher that signs, over a real broker, to a staging folder."""

from __future__ import annotations

from collections.abc import Callable

from broker import Broker, Pki
from updates import Device, Fleet

from edge_rt.adapters.bundle_files import read_bundle


def test_from_bundle_to_staging_folder(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, make_device: Callable[..., Device]
) -> None:
    fleet.broker = make_broker(pki)
    release = fleet.publish()
    done = fleet.upload()
    assert done.complete
    device = make_device(fleet.broker)
    catalog = device.wait(lambda: device.catalogs)[0]
    assert catalog.releases == (release,)
    folder = device.fetch(release)
    assert read_bundle(folder).manifest.version == "1.1.0"
    status = device.fetcher.status()
    assert status["taken"] == status["asked"] == len(release.chunks)
    assert status["error"] == ""
