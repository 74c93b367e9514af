"""The V4L2 camera where there is none; real devices are tested in the virtual machine bed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_rt.adapters.camera_opencv import OpenCVCamera
from edge_rt.core.config import OpenCVCamera as Settings
from edge_rt.core.errors import CameraError


def test_an_absent_camera_is_named_with_the_remedy() -> None:
    with pytest.raises(CameraError, match=r"/dev/video97: no such camera; plug it in"):
        OpenCVCamera(Settings(device="97")).open()


def test_a_device_that_is_no_camera_is_refused() -> None:
    with pytest.raises(CameraError, match="/dev/null: does not open"):
        OpenCVCamera(Settings(device="/dev/null")).open()


def test_a_file_that_is_no_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.write_bytes(b"no camera")
    with pytest.raises(CameraError, match="does not open"):
        OpenCVCamera(Settings(device=str(path))).open()


def test_reading_and_closing_without_opening() -> None:
    camera = OpenCVCamera(Settings())
    camera.close()
    with pytest.raises(CameraError, match="not open"):
        camera.read(0.0)
