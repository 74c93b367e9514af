"""A sensor on a bus through the real daemon: lost and back by itself, a fall all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from daemons import Running, daemon

from edge_rt.core.toml import write_toml

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


OFFSET, SCALE = np.array([0.06, -0.04, 0.09]), np.array([1.03, 0.98, 1.01])


def turned_over(path: Path) -> None:
    """A recording of a sensor that is off, on each of its sides in turn; over and over."""
    rng = np.random.default_rng(2)
    parts = []
    for side in np.vstack((np.eye(3), -np.eye(3))):
        parts += [side + rng.normal(0, 0.2, (20, 3)), side + rng.normal(0, 0.003, (240, 3))]
    counts = np.rint((np.concatenate(parts) / SCALE + OFFSET) * 2048).astype(np.int64)
    delta = np.diff(counts, axis=0, prepend=np.zeros((1, 3), np.int64))
    one = {"subject": ["a"], "trial": ["six"], "activity": ["D00"], "is_fall": [False]}
    np.savez(
        path, **one, acc_delta=delta.T.astype(np.int16), acc_scale_g=1 / 2048,
        offset=[0, len(counts)], placement="waist", rate_hz=100.0,
    )  # fmt: skip


def calibrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_rt", "calibrate", "accelerometer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_six_sides_calibrate_the_running_sensor_and_outlive_it(tmp_path: Path) -> None:
    turned_over(tmp_path / "six.npz")
    config = source("mpu6050", file=str(tmp_path / "six.npz"))
    with daemon(tmp_path, config) as device:
        done = calibrate("--run-dir", str(tmp_path), "--wait-s", "60", "--json")
        assert done.returncode == 0, done.stderr
        assert "6 of 6" in done.stderr
        found = json.loads(done.stdout)
        assert found["offset_g"] == pytest.approx(OFFSET, abs=5e-3)
        assert found["scale"] == pytest.approx(SCALE, abs=5e-3)
        assert device.status()["falls"]["instrument"]["calibrated"] == "six positions"
    with daemon(tmp_path, config) as device:
        assert device.status()["falls"]["instrument"]["calibrated"] == "six positions"
        assert device.status()["problems"] == []


@pytest.mark.release
def test_without_a_daemon_the_sensor_is_read_directly(tmp_path: Path) -> None:
    turned_over(tmp_path / "six.npz")
    model = source("mpu6050", file=str(tmp_path / "six.npz"))
    runtime = {"state_dir": str(tmp_path / "state"), "run_dir": str(tmp_path)}
    (tmp_path / "config.toml").write_text(write_toml({**model, "runtime": runtime}))
    done = calibrate("--config", str(tmp_path / "config.toml"), "--wait-s", "60")
    assert done.returncode == 0 and "stored and applied" in done.stdout, done.stderr
    late = calibrate("--config", str(tmp_path / "config.toml"), "--wait-s", "5")
    assert late.returncode == 2 and "-z up" in late.stderr


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
