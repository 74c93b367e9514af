"""The doctor's lines about the accelerometer, healthy and ill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from iio_tree import IioTree

from edge_rt.adapters.statedir import StateDir
from edge_rt.adapters.statefile import StateFile
from edge_rt.core.calibration import FACES, Calibration
from edge_rt.core.config import Config, FaceConfig, parse_config
from edge_rt.core.errors import SensorError
from edge_rt.runtime.check import Check
from edge_rt.runtime.doctor import check_camera
from edge_rt.runtime.doctor_sensors import (
    check_accelerometer,
    check_buses,
    check_calibration,
    device_paths,
)
from edge_rt.runtime.instruments import make_instrument
from edge_rt.runtime.places import CALIBRATION_NAME


def config_for(tmp_path: Path, **source: Any) -> Config:
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in source.items())
    pairs = pairs.replace('{"', "{").replace('":', " =")  # one level of JSON to TOML
    return parse_config(f'runtime.state_dir = "{tmp_path}"\nfalls.source = {{{pairs}}}', "test")


def only(checks: Any) -> Check:
    (check,) = checks
    assert check.state == "ok" or check.remedy
    return check


def test_a_bus_that_is_not_there_names_bus_and_remedy(tmp_path: Path) -> None:
    config = config_for(tmp_path, driver="mpu6050", bus=str(Path("/dev") / "i2c-no-such"))
    with pytest.raises(SensorError, match="/dev/i2c-no-such: no such bus; enable I2C"):
        list(check_accelerometer(config, None))
    check = only(check_buses(config, tmp_path))
    assert (check.state, check.found) == ("failed", "no bus") and "dtparam" in check.remedy
    (tmp_path / "i2c-1").touch()
    assert only(check_buses(config, tmp_path)).found == f"{tmp_path}/i2c-1"
    assert device_paths(config) == [Path("/dev/i2c-no-such")]


def test_devices_of_the_kernel_are_listed(tmp_path: Path) -> None:
    tree, config = IioTree(tmp_path), config_for(tmp_path, driver="iio")
    assert only(check_buses(config, sys_root=tree.sys_root)).state == "failed"
    tree.device()
    assert only(check_buses(config, sys_root=tree.sys_root)).found == "mpu6050 (iio:device0)"
    assert device_paths(config) == []


def test_a_model_of_a_chip_watches_nobody(tmp_path: Path) -> None:
    config = config_for(tmp_path, driver="adxl345", model={"seed": 2})
    check = only(check_accelerometer(config, None))
    assert check.state == "warning" and "a model of the adxl345" in check.found
    assert list(check_buses(config)) == [] and device_paths(config) == []


def test_what_a_running_daemon_says(tmp_path: Path) -> None:
    config = config_for(tmp_path, driver="mpu6050")
    falls: dict[str, Any] = {"sensor": "ok", "sensor_detail": "", "instrument": {}}
    falls["instrument"] = {"measured_hz": 98.76, "overflows": 2, "bus_errors": 0}
    check = only(check_accelerometer(config, {"falls": falls}))
    assert check.found == "mpu6050: the daemon says ok, 98.8 Hz, 2 overflows"
    falls |= {"sensor": "lost", "sensor_detail": "0x68: no answer; check power and wiring"}
    check = only(check_accelerometer(config, {"falls": falls}))
    assert check.state == "failed" and check.remedy == "check power and wiring"
    assert check.found == "mpu6050: the daemon says lost: 0x68: no answer"


def test_a_daemon_that_does_not_answer_keeps_its_sensor_to_itself(tmp_path: Path) -> None:
    """Two readers of one FIFO take each other's samples."""
    config = config_for(tmp_path, driver="mpu6050", bus=str(Path("/dev") / "i2c-no-such"))
    with StateDir(tmp_path):
        check = only(check_accelerometer(config, None))
        assert check.state == "warning" and f"process {os.getpid()} may be" in check.found
        faces = msgspec.structs.replace(config, faces=FaceConfig(enabled=True))
        camera = only(check_camera(faces, None))
        assert camera.state == "warning" and f"process {os.getpid()} may be" in camera.found
    with pytest.raises(SensorError, match="i2c-no-such"):
        list(check_accelerometer(config, None))


def test_the_calibration_is_shown_and_one_of_another_sensor_is_refused(tmp_path: Path) -> None:
    config = config_for(tmp_path, driver="mpu6050")
    assert "none" in only(check_calibration(config)).found
    identity = make_instrument(config.falls.source, "waist").identity()  # type: ignore[arg-type]
    file = StateFile(tmp_path / CALIBRATION_NAME, Calibration)
    numbers = {"offset_g": (0.01, -0.06, 0.0), "scale": (1.0, 0.97, 1.0), "left_g": 0.001}
    file.save(Calibration(sensor=identity, poses=6, sides=FACES, **numbers))
    check = only(check_calibration(config))
    assert check.found == "six positions: offsets up to 0.060 g, scales up to 3.0% off"
    other = config_for(tmp_path, driver="mpu6050", address=0x69)
    check = only(check_calibration(other))
    assert check.state == "failed" and "edge-rt calibrate" in check.remedy
    assert list(check_calibration(config_for(tmp_path, driver="simulated"))) == []


@pytest.mark.parametrize(("counts", "state"), [(256, "ok"), (0, "failed"), (512, "failed")])
def test_a_sensor_is_really_read(
    tmp_path: Path, factory_bundle: Any, counts: int, state: str
) -> None:
    """A recording through the same way as a device."""
    factory_bundle("fall-waist")
    import numpy as np

    one = {"subject": ["a"], "trial": ["t"], "activity": ["D01"], "is_fall": [False]}
    acc_delta = np.zeros((3, 200), np.int16)
    acc_delta[2, 0] = counts
    np.savez(
        tmp_path / "t.npz", **one, acc_delta=acc_delta, acc_scale_g=1 / 256, offset=[0, 200],
        placement="waist", rate_hz=50.0,
    )  # fmt: skip
    config = config_for(tmp_path, driver="replay", file=str(tmp_path / "t.npz"))
    check = only(check_accelerometer(config, None))
    assert check.state == state and f"it feels {counts / 256:.2f} g" in check.found
