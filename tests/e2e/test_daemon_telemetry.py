"""Figures and the announcement to Home Assistant, through the daemon, the broker and its ACL."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from daemons import daemon

from edge_rt.adapters.mqtt import Connected, Mqtt, Received, Subscribed
from edge_rt.cli.face import read_images
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.telemetry_service import LOOK_S

BASE = Topics("home", "dev1").base
CONFIG = "homeassistant/device/dev1/config"


class Home:
    """What Home Assistant would see, by topic, newest last."""

    def __init__(self, broker: Broker) -> None:
        # An id of its own: a broker throws out the older of two clients with one id.
        name = f"ha-{uuid.uuid4().hex}"
        self.client = Mqtt(broker.settings("@homeassistant", client_id=name))
        self.client.open()
        self.seen: dict[str, list[bytes]] = {}
        self.retained: dict[str, bytes] = {}
        self.subscribed = False
        deadline = time.monotonic() + 10
        while not self.subscribed:
            assert time.monotonic() < deadline
            self.turn()

    def turn(self) -> None:
        for fact in self.client.poll(0.05):
            if isinstance(fact, Connected):
                told = [f"{BASE}/{name}" for name in ("status", "evt/+", "dt/+", "ha/+")]
                self.client.subscribe(["homeassistant/#", *told])
            elif isinstance(fact, Subscribed):
                self.subscribed = fact.refused == ()
            elif isinstance(fact, Received):
                self.seen.setdefault(fact.topic, []).append(fact.payload)
                if fact.retained:
                    self.retained[fact.topic] = fact.payload

    def newest(self, name: str) -> dict[str, Any]:
        payloads = self.seen.get(f"{BASE}/{name}") or [b"{}"]
        found: dict[str, Any] = msgspec.json.decode(payloads[-1])
        return found

    def has(self, condition: Callable[[], Any]) -> Callable[[], Any]:
        def look() -> Any:
            self.turn()
            return condition()

        return look


@pytest.fixture
def site(
    make_broker: Callable[..., Broker], pki: Pki, factory_bundle: Callable[[str], Path]
) -> Iterator[tuple[Broker, Home]]:
    for name in ("fall-waist", "face-detect", "face-embed"):
        factory_bundle(name)
    broker = make_broker(pki)
    home = Home(broker)
    yield broker, home
    home.client.close()


def config(
    broker: Broker, *, enabled: bool, faces: bool = False, telemetry_s: float = 0.5
) -> dict[str, Any]:
    source = {"driver": "simulated", "scene": "fall-walking", "seed": 3, "speed": 20.0}
    return {
        "device": {"fleet": "home", "name": "dev1"},
        "falls": {
            "source": {**source, "repeat": False},
            "alarm": {"cancel_window_s": 10.0, "escalated_window_s": 5.0},
        },
        "faces": {"enabled": faces, "camera": {"driver": "demo", "speed": 3.0}},
        "mqtt": {
            **broker.section("dev1"),
            "telemetry_s": telemetry_s,
            "home_assistant": {"enabled": enabled},
        },
    }


def test_a_fall_is_on_and_stays_on_over_restarts_until_it_is_turned_off(
    site: tuple[Broker, Home], tmp_path: Path
) -> None:
    broker, home = site
    with daemon(tmp_path, config(broker, enabled=True, telemetry_s=60.0)) as running:
        alarm = "edge_rt.fall.alarm"
        running.wait(home.has(lambda: home.newest("evt/fall").get("type") == alarm), "its event")
        begun_s = time.monotonic()
        running.wait(home.has(lambda: home.newest("ha/state").get("fall") == "ON"), "the fall")
        # Well before the daemon would look for changes that are no events.
        assert time.monotonic() - begun_s < LOOK_S / 2
        assert home.newest("ha/state")["incident"]
        payload = msgspec.json.decode(home.seen[CONFIG][-1])
        assert payload["components"]["fall"]["state_topic"] == f"{BASE}/ha/state"
        running.stop(9)
    late = Home(broker)  # Home Assistant was restarted too: what is retained must do
    root = tmp_path / "root.json"
    root.write_bytes(b"{}")  # nobody publishes here; what runs is shown all the same
    updates = {"updates": {"enabled": True, "fetch": {"root": str(root)}}}
    with daemon(tmp_path, config(broker, enabled=True) | updates) as running:
        running.wait(late.has(lambda: late.newest("ha/models")), "its models")
        shown = late.newest("ha/models")["fall"]
        assert shown["installed_version"] == shown["latest_version"] and not shown["in_progress"]
        running.wait(late.has(lambda: CONFIG in late.retained), "the announcement")
        running.wait(late.has(lambda: late.newest("ha/state").get("fall") == "ON"), "still on")
        assert running.stop() == 0
    late.client.close()
    with daemon(tmp_path, config(broker, enabled=False)) as running:
        running.wait(home.has(lambda: home.seen[CONFIG][-1] == b""), "the removal")
        running.wait(home.has(lambda: home.seen[f"{BASE}/ha/state"][-1] == b""), "its state's")
        running.wait(home.has(lambda: home.seen[f"{BASE}/ha/models"][-1] == b""), "its models'")
        assert running.status()["mqtt"]["refused"] == 0
    again = Home(broker)  # what is retained comes before or with the answer to a subscription
    again.turn()
    assert CONFIG not in again.seen, "nothing is left at the broker"
    again.client.close()


def test_figures_come_at_the_interval_and_hold_nothing_but_aggregates(
    site: tuple[Broker, Home], tmp_path: Path
) -> None:
    broker, home = site
    with daemon(tmp_path, config(broker, enabled=False, faces=True)) as running:

        def looked() -> Any:
            camera = home.newest("dt/input").get("camera")
            return camera and camera["frames"] and home.newest("dt/latency")["falls"] is not None

        running.wait(home.has(looked), "figures of both pipelines")
        owner = Path(str(files("edge_rt") / "demo_media")) / "owner_1.jpg"
        running.call("face_enrol", name="owner", images=read_images((owner,)))
        health = home.newest("dt/health")
        assert health["memory_free_mb"] > 0 and health["event_log"]["storage"] == "ok"
        status = running.status()["mqtt"]
        assert status["refused"] == 0 and CONFIG not in home.seen
        running.wait(home.has(lambda: len(home.seen[f"{BASE}/dt/health"]) >= 3), "three reports")
    periods = [msgspec.json.decode(raw)["period_s"] for raw in home.seen[f"{BASE}/dt/health"]]
    assert all(0.5 <= period_s < 5 for period_s in periods)
    assert not any(topic.startswith(f"{BASE}/dt/") for topic in home.retained)
    for topic, payloads in home.seen.items():
        if "/dt/" in topic:
            assert all(len(payload) < 4096 for payload in payloads), topic
            assert all(b"embedding" not in p and b"owner" not in p for p in payloads)
    seen = [msgspec.json.decode(raw) for raw in home.seen[f"{BASE}/dt/score"]]
    assert all(len(row["counts"]) == len(row["edges"]) + 1 for row in seen)
    assert sum(sum(row["counts"]) for row in seen) > 0
