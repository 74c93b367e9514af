"""The picamera2 capture: without the package, and against a module of its documented shape."""

from __future__ import annotations

import sys
import types
from typing import Any

import cv2
import numpy as np
import pytest

from edge_rt.adapters.camera_picamera2 import Picamera2Capture
from edge_rt.adapters.imaging import from_yuv420
from edge_rt.core.config import Picamera2Camera, parse_config
from edge_rt.core.errors import CameraError
from edge_rt.runtime.cameras import make_camera

STRIDE = 64  # the image processor pads rows


class Picamera2:
    """As the library's manual describes it; delivers one green picture over and over."""

    last: Picamera2

    def __init__(self, index: int) -> None:
        if index > 0:
            raise IndexError("list index out of range")
        Picamera2.last = self
        self.calls: list[str] = []
        self.asked: dict[str, Any] = {}

    def create_video_configuration(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        return asked

    def configure(self, configuration: dict[str, Any]) -> None:
        self.calls.append("configure")

    def camera_configuration(self) -> dict[str, Any]:
        return {"lores": {"size": (48, 32)}}  # it aligns sizes as it has to

    def start(self) -> None:
        self.calls.append("start")

    def capture_array(self, name: str) -> np.ndarray:
        assert name == "lores"
        green = np.zeros((32, 48, 3), np.uint8)
        green[:, :, 1] = 200
        yuv = cv2.cvtColor(green, cv2.COLOR_BGR2YUV_I420)
        planes = np.zeros((48, STRIDE), np.uint8)
        planes[:32, :48] = yuv[:32]
        chroma = yuv[32:].reshape(2, 16, 24)
        planes[32:, :].reshape(2, 16, 32)[:, :, :24] = chroma
        return planes

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("picamera2")
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)


def test_without_the_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    camera = make_camera(Picamera2Camera())
    with pytest.raises(CameraError, match=r"apt-get install python3-picamera2, .*system-site-pack"):
        camera.open()


def test_it_is_chosen_by_name() -> None:
    config = parse_config('faces.camera = {driver = "picamera2", width = 320}', "test")
    assert config.faces.camera == Picamera2Camera(width=320)


def test_the_small_stream_becomes_a_picture(library: None) -> None:
    capture = Picamera2Capture(
        Picamera2Camera(width=50, height=32, rate_hz=10.0, exposure_ms=20.0), from_yuv420
    )
    capture.open()
    assert Picamera2.last.asked["controls"] == {
        "FrameDurationLimits": (100000, 100000),
        "ExposureTime": 20000,
    }
    assert capture.differences == ["size: 50 x 32 wanted, 48 x 32 given"]
    assert capture.grab()
    picture = capture.picture()
    assert picture is not None and picture.shape == (32, 48, 3)
    assert np.abs(picture.astype(int) - [0, 200, 0]).max() <= 4
    assert capture.picture() is None  # a frame is handed out once
    capture.close()
    capture.close()
    assert Picamera2.last.calls == ["configure", "start", "stop", "close"]


def test_an_absent_camera_is_named(library: None) -> None:
    with pytest.raises(CameraError, match="Pi camera 1: .*check its ribbon"):
        Picamera2Capture(Picamera2Camera(index=1), from_yuv420).open()
