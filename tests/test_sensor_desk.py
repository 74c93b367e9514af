"""A mounted sensor and its desk: axes, calibration kept and applied, raw samples to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_rt.adapters.accel_replay import ReplayAccelerometer
from edge_rt.core.calibration import Calibration
from edge_rt.core.errors import ConfigError, SensorError
from edge_rt.core.orientation import parse_axes
from edge_rt.core.types import SampleBlock
from edge_rt.runtime.mounted import MountedAccelerometer
from edge_rt.runtime.places import CALIBRATION_NAME
from edge_rt.runtime.sensor_desk import SensorDesk, sensor_commands

OFFSET, SCALE = np.array([0.05, -0.03, 0.08]), np.array([1.02, 0.98, 1.01])
SIX = np.vstack((np.eye(3), -np.eye(3))) / SCALE + OFFSET


class Device:
    """An instrument by its name."""

    rate_hz, range_g = 100.0, 16.0

    def __init__(self, name: str = "mpu6050 /dev/i2c-1 0x68") -> None:
        self.name = name

    def identity(self) -> str:
        return self.name

    def status(self) -> dict[str, Any]:
        return {"samples": 3}


def samples(seed: int = 1) -> SampleBlock:
    acc_g = np.random.default_rng(seed).uniform(-16, 16, (500, 3)).astype(np.float32)
    return SampleBlock(np.arange(500) / 100, acc_g)


def mounted(axes: str = "x,y,z") -> MountedAccelerometer:
    source = ReplayAccelerometer(samples(), rate_hz=100.0, speed=None)
    return MountedAccelerometer(source, parse_axes(axes))


def read(sensor: MountedAccelerometer) -> np.ndarray:
    sensor.open()
    block = sensor.read(1.0)
    assert block is not None
    return block.acc_g


def test_as_it_sits_by_default_nothing_changes_to_the_last_bit() -> None:
    found = read(mounted())
    assert found.tobytes() == samples().acc_g[: len(found)].tobytes()


def test_axes_turn_and_a_calibration_comes_before_them() -> None:
    sensor = mounted("-y,x,z")
    plain = samples().acc_g
    found = read(sensor)
    assert np.array_equal(found, plain[: len(found), [1, 0, 2]] * np.float32([-1, 1, 1]))
    calibration = Calibration(
        sensor="x", offset_g=tuple(OFFSET), scale=tuple(SCALE), poses=6, sides=(), left_g=0.0
    )
    sensor = mounted("-y,x,z")
    sensor.calibrate(calibration)
    found = read(sensor)
    true = (plain[: len(found)] - OFFSET) * SCALE
    assert found == pytest.approx(true[:, [1, 0, 2]] * [-1, 1, 1], abs=1e-5)
    assert found.dtype == np.float32
    assert sensor.range_g == pytest.approx(16 * 0.98 - 0.08)


def test_a_calibration_is_kept_applied_and_found_again(tmp_path: Path) -> None:
    sensor = mounted()
    desk = SensorDesk(Device(), sensor, tmp_path)
    assert desk.status() == {"sensor": Device().name, "calibrated": None, "samples": 3}
    said = desk.calibrate([tuple(pose) for pose in SIX])
    assert said["offset_g"] == pytest.approx(OFFSET, abs=1e-3)
    assert said["scale"] == pytest.approx(SCALE, abs=1e-3)
    found = read(sensor)
    true = (samples().acc_g[: len(found)] - OFFSET) * SCALE
    assert found == pytest.approx(true, abs=0.02)
    later = mounted()
    again = SensorDesk(Device(), later, tmp_path)
    assert again.problem == "" and again.status()["calibrated"] == "six positions"
    assert np.array_equal(read(later), found)


def test_another_sensors_calibration_is_not_applied(tmp_path: Path) -> None:
    SensorDesk(Device(), mounted(), tmp_path).calibrate([tuple(pose) for pose in SIX])
    other = mounted()
    desk = SensorDesk(Device("adxl345 /dev/i2c-1 0x53"), other, tmp_path)
    assert "is of 'mpu6050" in desk.problem and desk.status()["calibrated"] is None
    found = read(other)
    assert found.tobytes() == samples().acc_g[: len(found)].tobytes()
    desk.calibrate([tuple(pose) for pose in SIX])
    assert desk.problem == ""


@pytest.mark.parametrize("damage", [b"", b"{}", b"junk"])
def test_a_damaged_calibration_is_a_problem_and_no_end(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / CALIBRATION_NAME).write_bytes(damage)
    sensor = mounted()
    desk = SensorDesk(Device(), sensor, tmp_path)
    assert CALIBRATION_NAME in desk.problem
    assert len(read(sensor)) > 0


def test_a_refused_calibration_changes_nothing(tmp_path: Path) -> None:
    desk = SensorDesk(Device(), mounted(), tmp_path)
    with pytest.raises(SensorError, match="not about 1 g"):
        desk.calibrate([(0.0, 0.0, 0.1)])
    assert not (tmp_path / CALIBRATION_NAME).exists() and desk.status()["calibrated"] is None


def test_a_listener_gets_what_was_measured_and_can_leave() -> None:
    sensor, heard = mounted("-y,x,z"), []
    forget = sensor.listen(heard.append)
    read(sensor)
    forget()
    sensor.read(1.0)
    assert len(heard) == 1
    assert np.array_equal(heard[0].acc_g, samples().acc_g[: len(heard[0].acc_g)])


def test_without_a_device_the_commands_say_so() -> None:
    table = sensor_commands(None)
    for name, args in (("accel_watch", {}), ("accel_calibrate", {"poses": [(0, 0, 1)]})):
        row = table[name]
        with pytest.raises(ConfigError, match="none that can be calibrated"):
            row.handler(row.arguments(**args))
