"""The OpenCV capture without a camera: what cannot be opened, and files through other backends.

EDGE_RT_CAMERA names a V4L2 device (a path) to try it on as well.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_rt.adapters.camera_opencv import SELECT_S, OpenCVCapture, device_path, in_colour
from edge_rt.core.config import OpenCVCamera as Settings
from edge_rt.core.errors import CameraError
from edge_rt.runtime.grabber import FIRST_S, STALL_S, GrabbingCamera


def test_an_absent_camera_is_named_with_the_remedy() -> None:
    with pytest.raises(CameraError, match=r"/dev/video97: no such camera; plug it in"):
        OpenCVCapture(Settings(device="97")).open()


def test_a_device_that_is_no_camera_is_refused() -> None:
    with pytest.raises(CameraError, match="/dev/null: does not open"):
        OpenCVCapture(Settings(device="/dev/null")).open()


def test_a_file_that_is_no_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.write_bytes(b"no camera")
    with pytest.raises(CameraError, match="does not open"):
        OpenCVCapture(Settings(device=str(path))).open()


def test_numbers_and_paths_name_a_device() -> None:
    assert device_path("2") == "/dev/video2"
    assert device_path("/dev/v4l/by-id/usb-Cam-video-index0") == (
        "/dev/v4l/by-id/usb-Cam-video-index0"
    )


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Ten frames of 64 x 48 pixels at 20 Hz, under a link as udev makes one."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for k in range(10):
        writer.write(np.full((48, 64, 3), 20 * k, np.uint8))
    writer.release()
    link = tmp_path / "usb-Film-video-index0"
    link.symlink_to(path)
    return link


def test_what_is_given_is_read_back_and_differences_are_told(film: Path) -> None:
    wanted = Settings(
        device=str(film),
        width=640,
        height=48,
        rate_hz=15.0,
        format="YUYV",
        exposure_ms=10.0,
        gain=4,
    )
    capture = OpenCVCapture(wanted, cv2.CAP_FFMPEG)
    capture.open()
    assert capture.found == "64 x 48 MJPG at 20 Hz"
    assert capture.differences == [
        "format: YUYV wanted, MJPG given",
        "width: 640 wanted, 64 given",
        "rate_hz: 15 wanted, 20 given",
        "exposure_ms: 10 wanted, the camera does not take it",
        "gain: 4 wanted, the camera does not take it",
    ]
    capture.close()


def test_what_fits_is_not_told(film: Path) -> None:
    wanted = Settings(device=str(film), width=64, height=48, rate_hz=20.0)
    capture = OpenCVCapture(wanted, cv2.CAP_FFMPEG)
    capture.open()
    assert capture.differences == []
    capture.close()


def test_frames_come_through_the_grabber_until_there_are_no_more(film: Path) -> None:
    wanted = Settings(device=str(film), width=64, height=48, rate_hz=20.0)
    now_s = [0.0]
    camera = GrabbingCamera(
        str(film), lambda: OpenCVCapture(wanted, cv2.CAP_FFMPEG), lambda: now_s[0]
    )
    camera.open()
    frame = camera.read(30.0)
    assert frame is not None and frame.image.shape == (48, 64, 3)
    with pytest.raises(CameraError, match="delivers no picture"):
        for _ in range(60):
            now_s[0] += 1.0  # it has ten frames, then it is silent
            camera.read(0.1)
    camera.close()
    camera.open()
    assert camera.read(30.0) is not None
    camera.close()


def test_opencv_gives_a_silent_camera_back_soon() -> None:
    assert os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] == str(SELECT_S)


def test_a_grey_picture_gets_three_channels() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (in_colour(grey) == grey[:, :, np.newaxis]).all()
    assert in_colour(grey).shape == (3, 4, 3)
    colours = np.zeros((3, 4, 3), np.uint8)
    assert in_colour(colours) is colours


# ---- on a device ----


@pytest.fixture
def device() -> str:
    """A camera that may be used."""
    named = os.environ.get("EDGE_RT_CAMERA")
    if not named:
        pytest.skip("no camera named: set EDGE_RT_CAMERA, such as /dev/video0")
    return named


@pytest.fixture
def real(device: str) -> Iterator[GrabbingCamera]:
    """It, opened."""
    # Whatever it prefers of formats: a virtual one has no MJPG.
    camera = GrabbingCamera(device, lambda: OpenCVCapture(Settings(device=device, format="")))
    camera.open()
    yield camera
    camera.close()


@pytest.fixture
def vivid(device: str) -> Path:
    """The driver's folder of a virtual camera, which can be unplugged (Linux: vivid)."""
    folder = Path("/sys/bus/platform/drivers/vivid")
    if "vivid" not in device or not os.access(folder / "unbind", os.W_OK):
        pytest.skip("needs root and a vivid camera by its path: /dev/v4l/by-path/platform-vivid...")
    return folder


def lost_after_s(camera: GrabbingCamera) -> float:
    begun_s = time.monotonic()
    with pytest.raises(CameraError, match="delivers no picture"):
        while time.monotonic() - begun_s < 30.0:
            camera.read(0.3)
    return time.monotonic() - begun_s


def opened_again(camera: GrabbingCamera) -> bool:
    end_s = time.monotonic() + 30.0
    while time.monotonic() < end_s:
        try:
            camera.open()
            return camera.read(FIRST_S) is not None
        except CameraError:
            time.sleep(0.2)
    return False


def held(device: str) -> bool:
    """Whether this process has the device open, by the kernel's word."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            links.append(os.readlink(entry))
    return os.path.realpath(device) in links


def test_a_real_camera_delivers_and_is_given_back(real: GrabbingCamera, device: str) -> None:
    for _ in range(5):
        frame = real.read(FIRST_S)
        assert frame is not None and frame.image.ndim == 3
    assert real.found and held(device)
    real.close()
    assert not held(device)


def test_after_a_rest_a_real_camera_shows_what_is_there_now(real: GrabbingCamera) -> None:
    assert real.read(FIRST_S) is not None
    real.rest()
    time.sleep(1.0)  # its driver has only so many buffers: an old frame would show
    asked_s = time.monotonic()
    frame = real.read(FIRST_S)
    assert frame is not None and frame.t_s >= asked_s


def test_an_unplugged_camera_is_lost_and_comes_back(real: GrabbingCamera, vivid: Path) -> None:
    assert real.read(FIRST_S) is not None
    (vivid / "unbind").write_text("vivid.0")
    try:
        assert lost_after_s(real) < STALL_S
        with pytest.raises(CameraError, match="no such camera"):
            real.open()
    finally:
        (vivid / "bind").write_text("vivid.0")
    assert opened_again(real)


def test_a_silent_camera_is_lost_and_comes_back(
    real: GrabbingCamera, vivid: Path, device: str
) -> None:
    def drop(percentage: int) -> None:
        control = f"percentage_of_dropped_buffers={percentage}"
        subprocess.run(["v4l2-ctl", "-d", device, "-c", control], check=True, timeout=10)

    assert real.read(FIRST_S) is not None
    drop(100)
    try:
        assert STALL_S <= lost_after_s(real) < STALL_S + 2 * SELECT_S
        real.close()
        assert not held(device)  # OpenCV has let go of it in time
    finally:
        drop(0)
    assert opened_again(real)
