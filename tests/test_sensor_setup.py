"""What root does for an IIO device before the daemon starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from iio_tree import IioTree

from edge_rt.adapters.accel_iio import IioAccelerometer
from edge_rt.core.config import IioSource, Mpu6050Source
from edge_rt.core.errors import ConfigError, SensorError
from edge_rt.runtime.sensor_setup import set_up_sensor


@pytest.fixture
def tree(tmp_path: Path) -> IioTree:
    return IioTree(tmp_path)


def set_up(tree: IioTree, group: str = "", **source: Any) -> list[str]:
    return set_up_sensor(
        IioSource(**source),
        group,
        sys_root=tree.sys_root,
        dev_root=tree.dev_root,
        timers=tree.sys_root / "no-configfs",
    )


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


def test_a_chip_on_i2c_needs_nothing() -> None:
    assert set_up_sensor(Mpu6050Source()) == ["this driver needs nothing of root"]


def test_without_a_trigger_range_and_rate_are_set_and_it_is_polled(tree: IioTree) -> None:
    folder = tree.device(buffer__enable=1)
    said = set_up(tree)
    assert said == ["mpu6050 (iio:device0): +-16.0 g, 200 Hz", "polled"]
    assert read(folder, "buffer/enable") == "0"


@pytest.mark.parametrize("rate_hz", [30.0, 90.0, 100.0, 400.0])
def test_the_daemon_finds_nothing_left_to_write(tree: IioTree, rate_hz: float) -> None:
    """It may not: what root has set must be what it would set itself."""
    folder = tree.device()
    set_up(tree, rate_hz=rate_hz)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    sensor = IioAccelerometer(
        IioSource(rate_hz=rate_hz), sys_root=tree.sys_root, dev_root=tree.dev_root
    )
    sensor.open()
    sensor.close()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps


@pytest.mark.parametrize(
    ("name", "trigger"), [("mpu6050", "mpu6050-dev2"), ("lis3dh", "lis3dh-trigger")]
)
def test_its_own_trigger_starts_its_buffer(tree: IioTree, name: str, trigger: str) -> None:
    folder = tree.device(2, name=name)
    tree.trigger("sysfstrig0")
    tree.trigger(trigger, 1)
    handle = tree.pipe(2)
    os.write(handle, b"\0" * 16)  # its first scan
    said = set_up(tree)
    os.close(handle)
    assert said[-1].startswith(f"buffered at trigger {trigger}")
    assert read(folder, "trigger/current_trigger") == trigger
    assert read(folder, "current_timestamp_clock") == "monotonic"
    assert (read(folder, "buffer/length"), read(folder, "buffer/enable")) == ("200", "1")
    enabled = [p.name for p in (folder / "scan_elements").glob("*_en") if p.read_text() == "1"]
    wanted = ["in_accel_x_en", "in_accel_y_en", "in_accel_z_en", "in_timestamp_en"]
    assert sorted(enabled) == wanted


@pytest.mark.parametrize("mode", ["auto", "buffer"])
def test_a_trigger_that_never_fires_is_found_out(tree: IioTree, mode: str) -> None:
    folder = tree.device()
    tree.trigger("mpu6050-dev0")
    handle = tree.pipe()
    if mode == "buffer":
        with pytest.raises(SensorError, match="no scan in 2 s; is its interrupt wired"):
            set_up(tree, mode=mode)
    else:
        assert "polled: " in set_up(tree, mode=mode)[-1]
    os.close(handle)
    assert read(folder, "buffer/enable") == "0"


def test_triggers_that_are_not_there(tree: IioTree) -> None:
    tree.device()
    with pytest.raises(SensorError, match="has no trigger; set mode"):
        set_up(tree, mode="buffer")
    with pytest.raises(SensorError, match="no trigger 'x'; there is none"):
        set_up(tree, trigger="x")
    with pytest.raises(SensorError, match="modprobe iio-trig-hrtimer"):
        set_up(tree, trigger="timer")


def test_a_trigger_whose_owner_is_not_certain_is_left_alone(tree: IioTree) -> None:
    tree.device(0, name="lis3dh")
    tree.device(1, name="lis3dh")
    tree.trigger("lis3dh-trigger")
    assert set_up(tree, device="iio:device1")[-1] == "polled"


def test_at_a_timer_the_device_samples_faster_as_at_polls(tree: IioTree) -> None:
    folder = tree.device()
    timer = tree.trigger("edge-rt")
    handle = tree.pipe()
    os.write(handle, b"\0" * 16)
    assert "buffered at trigger edge-rt" in set_up(tree, trigger="timer", rate_hz=100.0)[-1]
    os.close(handle)
    assert read(timer, "sampling_frequency") == "100"
    assert read(folder, "sampling_frequency") == "200"


def test_a_group_that_is_not_there(tree: IioTree) -> None:
    tree.device()
    tree.trigger("mpu6050-dev0")
    handle = tree.pipe()
    os.write(handle, b"\0" * 16)
    with pytest.raises(ConfigError, match="no group 'nobody-at-all'"):
        set_up(tree, group="nobody-at-all")
    os.close(handle)
