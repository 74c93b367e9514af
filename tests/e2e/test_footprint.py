"""Memory of all processes and time to the first decision of fresh daemons: measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from broker import Broker, Pki
from daemons import daemon
from updates import Fleet

from edge_rt.runtime.footprint import measure, memory

pytestmark = pytest.mark.release

RUNS = 3
SETTLE_S = 10.0  # what stays, not what starting needs: past the first telemetry and fetch


@pytest.fixture(autouse=True)
def factory(factory_bundle: Callable[[str], Path]) -> None:
    for name in ("fall-waist", "face-detect", "face-embed"):
        factory_bundle(name)


def test_both_pipelines(figure: Callable[..., None]) -> None:
    seen = [measure("litert") for _ in range(RUNS)]
    pss_mb = median(run.pss_mb["total"] for run in seen)
    falls_s = min(run.falls_s for run in seen)  # the least disturbed one
    figure("PSS of all processes, both pipelines", pss_mb, at_most=130.0, unit="MB")
    figure("start to first fall decision, best of 3", falls_s, at_most=0.8, unit="s")


def test_both_pipelines_with_mqtt_and_updates(
    make_broker: Callable[..., Broker],
    pki: Pki,
    fleet: Fleet,
    tmp_path: Path,
    figure: Callable[..., None],
) -> None:
    broker = fleet.broker = make_broker(pki)
    fleet.upload()
    with daemon(tmp_path, config(broker, fleet.folder / "root.json")) as running:
        running.wait(lambda: running.status()["faces"]["frames"] > 10, "pictures")
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the uplink")
        ends_s = time.monotonic() + SETTLE_S
        running.wait(lambda: time.monotonic() > ends_s, "time to pass")
        pss_mb = memory(running.process.pid)
    total_mb = pss_mb["total"]
    # More than the 130 MB that both pipelines alone are held to: TLS, and the fork server, whose
    # pages part from the daemon's as both live on. It shall not grow.
    figure("PSS of all processes, with MQTT and updates", total_mb, at_most=145.0, unit="MB")
    figure("processes then", len(pss_mb) - 1)


def config(broker: Broker, root: Path) -> dict[str, Any]:
    return {
        "device": {"fleet": "home", "name": "dev1"},
        "runtime": {"engine": "litert"},
        "falls": {"source": {"driver": "simulated", "scene": "walking", "repeat": True}},
        "faces": {"enabled": True, "camera": {"driver": "demo"}},
        "mqtt": {
            **broker.section("dev1"),
        },
        "updates": {"enabled": True, "fetch": {"root": str(root)}},
    }
