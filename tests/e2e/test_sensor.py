"""A sensor on a bus through the real daemon: lost and back by itself, a fall all the same."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from daemons import Running, daemon

pytestmark = pytest.mark.usefixtures("fall_model")


@pytest.fixture
def fall_model(factory_bundle: Any) -> None:
    factory_bundle("fall-waist")


def source(driver: str, **model: Any) -> dict[str, Any]:
    return {"falls": {"source": {"driver": driver, "model": model}}}


def seen(device: Running, kind: str) -> list[dict[str, Any]]:
    return [event for event in device.events() if event["type"] == f"edge_rt.{kind}"]


def when(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def test_a_sensor_pulled_out_is_told_of_and_comes_back_by_itself(tmp_path: Path) -> None:
    unplug = {"kind": "unplug", "at_s": 4.0, "seconds": 2.0}
    with daemon(tmp_path, source("mpu6050", faults=[unplug])) as device:
        device.wait(lambda: device.status()["falls"]["sensor"] == "ok", "the first samples")
        assert device.status()["problems"] == []
        device.wait(lambda: seen(device, "device.sensor_lost"), "its loss")
        if not seen(device, "device.sensor_back"):
            status = device.status()
            assert status["falls"]["sensor"] == "lost"
            assert any("no answer" in problem for problem in status["problems"])
        device.wait(lambda: seen(device, "device.sensor_back"), "its return")
        device.wait(lambda: device.status()["problems"] == [], "a clean status")
        (lost,), (back,) = seen(device, "device.sensor_lost"), seen(device, "device.sensor_back")
        assert "no answer from 0x" in lost["data"]["detail"]
        assert when(back) - when(lost) < 2.0 + 2.0 + 2.0  # the unplugging, back-off, first hops
        instrument = device.status()["falls"]["instrument"]
        assert instrument["opened"] == 2 and instrument["samples"] > 100
        assert device.stop() == 0


def test_a_fall_that_the_chip_feels_is_an_alarm(tmp_path: Path) -> None:
    """Nine seconds of walking, a fall, and nobody who gets up: through registers and FIFO."""
    config = source("adxl345", scene="fall-walking", repeat=False, clock_error=0.03)
    config["falls"]["alarm"] = {"cancel_window_s": 5.0, "escalated_window_s": 5.0}
    config["falls"]["source"]["axes"] = "y,-x,z"
    with daemon(tmp_path, config) as device:
        device.wait(lambda: seen(device, "fall.alarm"), "the alarm")
        (alarm,) = seen(device, "fall.alarm")
        assert alarm["data"]["incident"] == seen(device, "fall.prealarm")[0]["data"]["incident"]
        assert device.status()["falls"]["instrument"]["overflows"] <= 1
