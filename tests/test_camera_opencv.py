"""The OpenCV capture without a camera: what cannot be opened, and files through other backends.

EDGE_RT_CAMERA names a V4L2 device (a path) to try it on as well.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_rt.adapters.camera_opencv import SELECT_S, OpenCVCapture, device_path
from edge_rt.core.config import OpenCVCamera as Settings
from edge_rt.core.errors import CameraError
from edge_rt.runtime.grabber import GrabbingCamera


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


def test_a_real_camera_delivers() -> None:
    device = os.environ.get("EDGE_RT_CAMERA")
    if not device:
        pytest.skip("no camera named: set EDGE_RT_CAMERA, such as /dev/video0")
    camera = GrabbingCamera(device, lambda: OpenCVCapture(Settings(device=device)))
    camera.open()
    try:
        frames = [camera.read(5.0) for _ in range(5)]
        assert all(frame is not None and frame.image.ndim == 3 for frame in frames)
        assert camera.found
    finally:
        camera.close()
