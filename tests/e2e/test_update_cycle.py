"""From a publisher that signs, through a real broker, to a confirmed model on a running daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Pki
from candidates import ALWAYS, NEVER, Edit, input_scaled, same, shifted, write_candidate
from daemons import Running, daemon
from updates import Fleet

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.core.manifest import FallManifest

SPEED = 60.0
FETCH = {
    "missing_s": 0.4,
    "patience_s": 5.0,
    "retry_s": 0.5,
    "interval_s": 0.1,
    "clock_grace_s": 0.1,
}
QUICK = {
    **{"enabled": True, "shadow_h": 0.28, "shadow_block_s": 5.0, "trial_h": 0.001},
    **{"alarms_per_day": 1e6, "settle_s": 1.0, "retry_h": 0.0005},
}


# What is wrong with it, what its manifest says besides, and who finds out.
WORSE: dict[str, tuple[Edit, dict[str, Any], str]] = {
    "always fires": (ALWAYS, {}, "challenging"),
    "never fires": (NEVER, {}, "challenging"),
    "too slow": (same, {"latency_budget_ms": 0.001}, "testing"),
    "made for another sensor": (input_scaled(0.1), {}, "challenging"),
    "subtly less sensitive": (shifted(-2.0), {}, "shadowing"),
}


@pytest.fixture
def waist(factory_bundle: Callable[[str], Path]) -> Path:
    return factory_bundle("fall-waist")


def config(broker: Broker, root: Path, scene: str = "walking", **updates: Any) -> dict[str, Any]:
    assert broker.pki is not None
    cert, key = broker.pki.client("dev1")
    return {
        "device": {"fleet": "home", "name": "dev1"},
        "falls": {
            "source": {"driver": "simulated", "scene": scene, "seed": 3, "speed": SPEED},
            "alarm": {"cancel_window_s": 10.0, "escalated_window_s": 5.0},
        },
        "mqtt": {
            "enabled": True,
            "host": broker.host,
            "port": broker.port,
            "ca": str(broker.pki.authority.folder / "ca.crt"),
            "cert": str(cert),
            "key": str(key),
        },
        "updates": {**QUICK, **updates, "fetch": {**FETCH, "root": str(root)}},
    }


def model_events(running: Running) -> list[str]:
    """`<what> <version>` of each model event so far."""
    return [
        f"{e['type'].split('.')[2]} {e['data']['version']}"
        for e in running.events()
        if e["type"].startswith("edge_rt.model.")
    ]


def windows(running: Running) -> tuple[int, float]:
    falls = running.status()["falls"]
    return falls["hops"], falls["t_s"]


def hop_s(folder: Path) -> float:
    manifest = read_bundle(folder).manifest
    assert isinstance(manifest, FallManifest)
    return manifest.input.hop / manifest.input.rate_hz


def goes_through(running: Running, *events: str) -> None:
    """Until these model events have come, one after the other."""
    for event in events:
        running.wait(lambda event=event: event in model_events(running), event)


def offer(fleet: Fleet, folder: Path, waist: Path, edit: Edit, version: str, **more: Any) -> None:
    """Sign a candidate made of the factory model, and bring it to the broker."""
    bundle = write_candidate(folder / version, waist, edit, version=version, **more)
    fleet.publisher().publish(bundle, 100)
    fleet.upload()


def test_from_publish_to_confirmed_and_back_by_hand(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, waist: Path, tmp_path: Path
) -> None:
    broker = fleet.broker = make_broker(pki)
    offer(fleet, tmp_path, waist, NEVER, "9.0.0")
    with daemon(tmp_path, config(broker, fleet.folder / "root.json")) as running:
        running.wait(lambda: running.status()["falls"]["hops"] > 10, "the first windows")
        hops, t_s = windows(running)
        goes_through(running, "staged 9.0.0", "rejected 9.0.0")
        offer(fleet, tmp_path, waist, same, "9.1.0")
        said = ["staged 9.1.0", "shadow 9.1.0", "activated 9.1.0", "confirmed 9.1.0"]
        goes_through(running, *said)
        assert model_events(running) == ["staged 9.0.0", "rejected 9.0.0", *said]
        # Not a window lost or doubled since: the grid is even, so the count tells.
        more, later_s = windows(running)
        assert (more - hops) * hop_s(waist) == pytest.approx(later_s - t_s, abs=2e-3)
        status = running.status()
        assert status["falls"]["blocks_dropped"] == 0 and status["problems"] == []
        assert status["falls"]["detector_failures"] == 0
        task = running.call("model_status")["tasks"]["fall"]
        assert (task["version"], task["slot"], task["state"]) == ("9.1.0", "a", "idle")
        running.stop()
    with daemon(tmp_path, config(broker, fleet.folder / "root.json")) as running:
        assert running.call("model_status")["tasks"]["fall"]["version"] == "9.1.0"
        answer = running.call("model_rollback", task="fall")
        assert answer["slot"] == "factory"
        goes_through(running, "rolled_back 9.1.0")
        assert running.status()["problems"] == []


def reason(running: Running, event: str) -> str:
    """Why, as the last event of this kind and version says it."""
    what, version = event.split()
    found = [
        e["data"]
        for e in running.events()
        if e["type"] == f"edge_rt.model.{what}" and e["data"]["version"] == version
    ]
    return f"{found[-1]['stage']}: {found[-1].get('reason', '')}"


@pytest.mark.release
def test_worse_models_are_stopped_without_a_person(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, waist: Path, tmp_path: Path
) -> None:
    """On a stream without a fall; the good model stays live throughout."""
    broker = fleet.broker = make_broker(pki)
    with daemon(tmp_path, config(broker, fleet.folder / "root.json")) as running:
        for number, (edit, more, stage) in enumerate(WORSE.values()):
            version = f"9.{number}.0"
            offer(fleet, tmp_path, waist, edit, version, **more)
            goes_through(running, f"rejected {version}")
            assert reason(running, f"rejected {version}").startswith(stage)
        task = running.call("model_status")["tasks"]["fall"]
        assert (task["version"], task["slot"]) == ("1.0.0", "factory")


@pytest.mark.release
def test_a_model_that_misbehaves_on_trial_is_left_without_a_person(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, waist: Path, tmp_path: Path
) -> None:
    """Every alarm is one too many here, and the wearer falls again and again."""
    broker = fleet.broker = make_broker(pki)
    offer(fleet, tmp_path, waist, same, "9.1.0")
    strict = {"alarms_per_day": 1e-6, "trial_h": 1.0, "shadow_h": 0.28}
    conf = config(broker, fleet.folder / "root.json", scene="fall-walking", **strict)
    with daemon(tmp_path, conf) as running:

        def resolved_until(event: str) -> bool:
            if running.status()["falls"]["state"] == "alarm":
                running.call("resolve")
            return event in model_events(running)

        for event in ("shadow 9.1.0", "activated 9.1.0", "rolled_back 9.1.0"):
            running.wait(lambda event=event: resolved_until(event), event)
        assert reason(running, "rolled_back 9.1.0").startswith("trial: ")
        running.wait(lambda: resolved_until("rolled_back 9.1.0"), "the live model")
        assert running.call("model_status")["tasks"]["fall"]["slot"] == "factory"
        incidents = [e["data"]["incident"] for e in running.events() if "fall.alarm" in e["type"]]
        assert len(set(incidents)) == len(incidents) > 5
