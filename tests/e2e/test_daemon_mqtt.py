"""A fall, from the simulated sensor through the daemon and a real broker to the other side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from daemons import daemon

from edge_rt.adapters.mqtt import Connected, Mqtt, Received
from edge_rt.core.uplink_wire import Topics
from edge_rt.fleet.receiver import Receiver
from edge_rt.fleet.store import Store

pytestmark = pytest.mark.usefixtures("factory")


@pytest.fixture
def factory(factory_bundle: Callable[[str], Path]) -> None:
    """The daemon's default bundle is needed."""
    factory_bundle("fall-waist")


def config(broker: Broker, **more: Any) -> dict[str, Any]:
    source = {"driver": "simulated", "scene": "fall-walking", "seed": 3, "speed": 20.0}
    return {
        "device": {"fleet": "home", "name": "dev1"},
        "falls": {
            "source": {**source, "repeat": False},
            "alarm": {"cancel_window_s": 10.0, "escalated_window_s": 5.0},
        },
        "mqtt": {
            **broker.section("dev1"),
            **more,
        },
    }


def test_a_fall_reaches_the_other_side_and_is_receipted(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path
) -> None:
    broker = make_broker(pki)
    store = Store(tmp_path / "site")
    receiver = Receiver(broker.settings("@receiver"), "home", store)
    whats: list[str] = []
    receiver.listeners = receiver.listeners._replace(event=lambda a: whats.append(a.event.what))

    def heard(what: str) -> bool:
        receiver.turn(0.05)
        return what in whats

    while not receiver.subscribed:
        receiver.turn(1.0)
        assert not receiver.error
    with daemon(tmp_path, config(broker)) as running:
        running.wait(lambda: heard("alarm"), "the alarm at the other side")
        status = running.wait(receipted(running, receiver), "every receipt")
        assert status["state"] == "online"
        assert status["alarm_to_puback"]["count"] >= 3
        assert running.status()["problems"] == []
        found = running.wait(lambda: running.status()["mqtt"]["certificate"], "its end")
        assert found["ends"] > "2026"
        assert running.stop() == 0
    receiver.turn(0.5)
    assert receiver.devices["dev1"].status == "stopped"
    receiver.close()


def receipted(running: Any, receiver: Receiver) -> Callable[[], dict[str, Any] | None]:
    def look() -> dict[str, Any] | None:
        receiver.turn(0.05)
        mqtt: dict[str, Any] = running.status()["mqtt"]
        return None if any(mqtt["awaiting_receipt"].values()) else mqtt

    return look


def test_falls_are_watched_whatever_the_broker_does(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path
) -> None:
    broker = make_broker(pki, start=False)
    with daemon(tmp_path, config(broker, alarm_patience_s=1.0)) as running:
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")
        running.wait(lambda: "device.alarm_unheard" in running.kinds(), "the missing receipt")
        problems = " ".join(running.status()["problems"])
        assert "refuses TCP" in problems and "without a receipt" in problems
        assert running.log.count("siren: sounding (alarm)") == 2


def test_settings_from_afar_are_applied_live_and_survive_a_restart(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path
) -> None:
    broker = make_broker(pki)
    operator = Mqtt(broker.settings("@operator"))
    operator.open()
    topics = Topics("home", "dev1")
    reported: list[dict[str, Any]] = []

    def heard(**wanted: Any) -> bool:
        for fact in operator.poll(0.1):
            if isinstance(fact, Connected):
                operator.subscribe([f"{topics.base}/twin/reported"])
            elif isinstance(fact, Received):
                reported.append(msgspec.json.decode(fact.payload))
        return bool(reported) and wanted.items() <= reported[-1].items()

    def desire(version: int, threshold: float) -> None:
        wanted = {"version": version, "settings": {"falls": {"threshold": threshold}}}
        topic = f"{topics.base}/twin/desired"
        assert operator.publish(topic, msgspec.json.encode(wanted), retain=True) is not None

    idle = config(broker)
    idle["falls"]["source"] = {"driver": "simulated", "scene": "sitting"}
    with daemon(tmp_path, idle) as running:
        running.wait(lambda: heard(version=0), "the first report")
        desire(1, 0.65)
        running.wait(lambda: heard(version=1), "version 1 in force")
        assert reported[-1]["settings"]["falls.threshold"] == 0.65
        desire(2, 5.0)
        running.wait(lambda: "rejected" in reported[-1] or heard(x=1), "the rejection")
        assert "threshold" in reported[-1]["rejected"]["reason"]
        assert reported[-1]["version"] == 1
        running.stop(9)
    reported.clear()
    with daemon(tmp_path, idle) as running:
        running.wait(lambda: heard(version=1), "the report after the restart")
        assert reported[-1]["settings"]["falls.threshold"] == 0.65
    operator.close()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"key": "mqtt.key"}, "not started by systemd"),
        ({"ca": "/nowhere/ca.crt"}, "/nowhere/ca.crt"),
        ({"key": ""}, "cert and key belong together"),
        ({"hots": "x"}, "did you mean 'host'"),
        ({"insecure": True}, "insecure sends everything in the clear"),
        ({"signed_receipts": True}, "needs operations_key"),
        ({"home_assistant": {"ok_topic": "ok"}}, "needs operations_key"),
        ({"operations_key": "/nowhere/ops.pub"}, "/nowhere/ops.pub"),
        ({"operations_key": "/etc/passwd"}, "no Ed25519 public key"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    make_broker: Callable[..., Broker],
    pki: Pki,
    tmp_path: Path,
    change: dict[str, Any],
    complaint: str,
) -> None:
    broker = make_broker(pki, start=False)
    with (
        pytest.raises(AssertionError, match="(?s)edge-rt: "),
        daemon(tmp_path, config(broker, **change)),
    ):
        pass
    log = (tmp_path / "log").read_text()
    assert complaint in log.splitlines()[-1], log
    assert "Traceback" not in log
