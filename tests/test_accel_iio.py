"""IIO accelerometers: sysfs attributes and buffered scans, on real files and pipes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driven import DrivenTime
from iio_tree import MPU6050, IioTree

from edge_rt.adapters.accel_iio import IioAccelerometer, find_device
from edge_rt.core.config import IioSource
from edge_rt.core.errors import SensorError
from edge_rt.core.iio import STANDARD_GRAVITY

G16 = 0.004785  # of the kernel's driver; 16 g of 16 bits


@pytest.fixture
def tree(tmp_path: Path) -> IioTree:
    return IioTree(tmp_path)


def accel(tree: IioTree, clock: DrivenTime | None = None, **source: Any) -> IioAccelerometer:
    time = clock or DrivenTime()
    return IioAccelerometer(
        IioSource(**source),
        sys_root=tree.sys_root,
        dev_root=tree.dev_root,
        clock=time,
        sleep=time.sleep,
    )


# ---- polling ----


def test_raw_scale_offset_and_mount_matrix(tree: IioTree) -> None:
    tree.device(
        in_accel_x_raw=100,
        in_accel_y_raw=-200,
        in_accel_z_raw=2048,
        in_accel_offset=10,
        in_accel_mount_matrix="0, 1, 0; -1, 0, 0; 0, 0, 1",
    )
    sensor = accel(tree, mode="poll")
    sensor.open()
    block = sensor.read(0.5)
    assert block is not None and block.acc_g.dtype == np.float32
    expected = np.array([-190, -110, 2058]) * G16 / STANDARD_GRAVITY
    assert block.acc_g == pytest.approx(np.tile(expected, (10, 1)), rel=1e-6)
    assert np.diff(block.t_s) == pytest.approx(np.full(9, 0.01))
    sensor.close()


def test_scale_and_offset_of_single_axes_go_before_the_common_ones(tree: IioTree) -> None:
    one = STANDARD_GRAVITY / 1000
    tree.device(
        in_accel_scale=None, in_accel_scale_available=None, in_accel_mount_matrix=None,
        in_accel_x_raw=1000, in_accel_y_raw=1000, in_accel_z_raw=1000,
        in_accel_x_scale=one, in_accel_y_scale=2 * one, in_accel_z_scale=3 * one,
        in_accel_y_offset=500,
    )  # fmt: skip
    sensor = accel(tree, mode="poll")
    sensor.open()
    block = sensor.read(0.5)
    assert block is not None and block.acc_g[0] == pytest.approx([1.0, 3.0, 3.0])
    sensor.close()


def test_range_and_rate_are_set_where_they_can_be(tree: IioTree) -> None:
    folder = tree.device()
    sensor = accel(tree, mode="poll", range_g=8, rate_hz=90)
    sensor.open()
    assert float((folder / "in_accel_scale").read_text()) == 0.002392
    assert float((folder / "sampling_frequency").read_text()) == 200
    sensor.close()


def test_a_scale_is_written_as_it_is_offered(tree: IioTree) -> None:
    """Drivers of the ICM-426xx and LSM6DSx take nothing else."""
    offered = "0.000598205 0.001196411 0.002392822 0.004785645"
    folder = tree.device(in_accel_scale="0.000598205", in_accel_scale_available=offered)
    sensor = accel(tree, mode="poll", range_g=16)
    sensor.open()
    assert (folder / "in_accel_scale").read_text() == "0.004785645"
    sensor.close()


def test_without_bits_the_largest_scale_is_taken(tree: IioTree) -> None:
    """A device without an interrupt has no buffer and no scan_elements: 2 g must not stay."""
    bare = {name: None for name in MPU6050 if name.startswith(("scan_elements", "buffer"))}
    folder = tree.device(**bare)
    sensor = accel(tree, mode="auto", range_g=8)
    sensor.open()
    assert float((folder / "in_accel_scale").read_text()) == G16
    block = sensor.read(0.5)
    assert block is not None and block.acc_g[0, 2] == pytest.approx(1.0, rel=1e-3)
    sensor.close()


def test_a_nul_at_the_end_of_an_attribute(tree: IioTree) -> None:
    tree.device(current_timestamp_clock="monotonic\n\0")
    assert find_device("", tree.sys_root).text("current_timestamp_clock") == "monotonic"


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"in_accel_scale_available": None}, "set to 2.0 g and falls.source.range_g is 16"),
        ({"sampling_frequency_available": "10 20 50"}, "samples at 50 Hz and .*rate_hz is 100"),
        ({"in_accel_scale": "high"}, "no number"),
        ({"in_accel_mount_matrix": "1, 0, 0"}, "mount matrix"),
    ],
)
def test_what_the_device_does_not_do_is_told(
    tree: IioTree, attributes: dict[str, Any], complaint: str
) -> None:
    tree.device(**attributes)
    with pytest.raises(SensorError, match=complaint):
        accel(tree, mode="poll").open()


def test_a_device_that_goes_while_it_is_polled(tree: IioTree) -> None:
    folder = tree.device()
    sensor = accel(tree, mode="poll")
    sensor.open()
    assert sensor.read(0.5) is not None
    (folder / "in_accel_y_raw").write_text("")  # what an unbound driver's file holds is no number
    with pytest.raises(SensorError, match="in_accel_y_raw"):
        for _ in range(7):
            assert sensor.read(0.5) is None
    sensor.close()


def test_a_poll_that_fails_is_left_out(tree: IioTree) -> None:
    folder, time = tree.device(), DrivenTime()
    sensor = accel(tree, time, mode="poll")
    sensor.open()
    assert sensor.read(0.5) is not None
    (folder / "in_accel_y_raw").write_text("")
    for _ in range(3):
        assert sensor.read(0.5) is None
    (folder / "in_accel_y_raw").write_text("5")
    block = sensor.read(0.5)
    assert block is not None and len(block.t_s) == 10
    assert block.t_s[0] == pytest.approx(time.now_s - 0.09)  # the gap is one
    assert sensor.status()["failed_polls"] == 30
    sensor.close()


def test_devices_are_found_by_name_number_and_alone(tree: IioTree) -> None:
    with pytest.raises(SensorError, match="no accelerometer; there is none"):
        find_device("", tree.sys_root)
    tree.device(3)
    assert find_device("", tree.sys_root).path.name == "iio:device3"
    tree.device(4, name="lis3dh")
    tree.device(5, name="bmp280", in_accel_x_raw=None)
    for device in ("lis3dh", "4", "iio:device4"):
        assert find_device(device, tree.sys_root).name == "lis3dh"
    with pytest.raises(SensorError, match=r"several fit; .*mpu6050 \(iio:device3\), lis3dh"):
        find_device("", tree.sys_root)
    with pytest.raises(SensorError, match="no accelerometer 'bmp280'; there is mpu6050"):
        find_device("bmp280", tree.sys_root)


# ---- buffered ----

ON = {f"scan_elements/in_{name}_en": 1 for name in ("accel_x", "accel_y", "accel_z", "timestamp")}


@pytest.fixture
def buffered(tree: IioTree) -> Iterator[tuple[IioTree, int]]:
    tree.device(
        **ON,
        buffer__enable=1,
        in_accel_scale=G16,
        sampling_frequency=100,
        current_timestamp_clock="monotonic",
    )
    handle = tree.pipe()
    yield tree, handle
    os.close(handle)


def scans(begin: int, n: int) -> bytes:
    rows = [
        struct.pack(">3hxx", k, -k, 2048) + struct.pack("<q", 5_000_000_000 + k * 10_000_000)
        for k in range(begin, begin + n)
    ]
    return b"".join(rows)


def test_scans_carry_the_kernels_time_stamps(buffered: tuple[IioTree, int]) -> None:
    tree, handle = buffered
    os.write(handle, scans(900, 50))  # from before anybody read: stale
    sensor = accel(tree)
    sensor.open()
    assert sensor.status()["mode"] == "buffer"
    whole, found = scans(0, 40), []
    for part in (whole[:163], whole[163:170], whole[170:]):  # scans cut anywhere
        os.write(handle, part)
        block = sensor.read(0.5)
        if block is not None:
            found.append(block)
    acc_g = np.concatenate([block.acc_g for block in found])
    t_s = np.concatenate([block.t_s for block in found])
    counts = np.column_stack((np.arange(40), -np.arange(40), np.full(40, 2048)))
    assert acc_g == pytest.approx(counts * G16 / STANDARD_GRAVITY, rel=1e-6)
    assert t_s == pytest.approx(5.0 + np.arange(40) / 100, abs=1e-9)
    sensor.close()


@pytest.mark.parametrize("stamps", ["none", "realtime"])
def test_scans_without_stamps_are_stamped_by_their_number(tree: IioTree, stamps: str) -> None:
    """The wall clock jumps: its stamps are none."""
    on = {**ON, "scan_elements/in_timestamp_en": int(stamps != "none")}
    tree.device(**on, buffer__enable=1, in_accel_scale=G16, sampling_frequency=100)
    scan = struct.pack(">3h", 0, 0, 2048) + (b"\0\0" + bytes(8) if stamps != "none" else b"")
    handle, time = tree.pipe(), DrivenTime()
    sensor = accel(tree, time)
    sensor.open()
    found = []
    for _ in range(30):
        os.write(handle, scan * 10)
        block = sensor.read(0.1)
        assert block is not None
        found.append(block.t_s)
    assert np.diff(np.concatenate(found)) == pytest.approx(np.full(299, 0.01), rel=0.1)
    sensor.close()
    os.close(handle)


def test_a_buffer_that_stays_empty_is_lost_and_so_is_one_that_ends(
    buffered: tuple[IioTree, int],
) -> None:
    tree, handle = buffered
    time = DrivenTime()
    sensor = accel(tree, time)
    sensor.open()
    begun_s = time.now_s
    with pytest.raises(SensorError, match="delivers nothing"):
        while time.now_s < begun_s + 9:
            assert sensor.read(0.1) is None
    assert time.now_s - begun_s < 1.5
    os.close(handle)
    with pytest.raises(SensorError, match="is gone"):
        sensor.read(0.1)
    sensor.close()
    os.mkfifo(tree.dev_root / "spare")
    os.dup2(os.open(tree.dev_root / "spare", os.O_RDWR), handle)  # for the fixture to close


def test_a_buffer_that_is_off_names_the_remedy(tree: IioTree) -> None:
    tree.device(in_accel_scale=G16, sampling_frequency=100)
    with pytest.raises(SensorError, match="is off; run as root: edge-rt sensor-setup"):
        accel(tree, mode="buffer").open()


def test_axes_that_are_not_gathered_are_named(tree: IioTree) -> None:
    on = {**ON, "scan_elements/in_accel_y_en": 0}
    tree.device(**on, buffer__enable=1, in_accel_scale=G16, sampling_frequency=100)
    with pytest.raises(SensorError, match="in_accel_y of mpu6050 not enabled"):
        accel(tree, mode="buffer").open()
