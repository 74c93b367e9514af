"""A device that can only be waited for: the newest frame wins, losses, hangs, and opening again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge_rt.core.errors import CameraError
from edge_rt.core.types import ImageArray
from edge_rt.runtime.grabber import FIRST_S, STALL_S, CameraHung, GrabbingCamera

PATIENCE_S = 30.0


class Device:
    """A capture device whose frames the test releases one by one; every opening is counted."""

    def __init__(self) -> None:
        self.frames = threading.Semaphore(0)
        self.found, self.differences = "2 x 2", ["gain: 3 wanted, 2 given"]
        self.here = True
        self.hanging: threading.Event | None = None
        self.grabbed = self.decoded = self.opened = self.closed = 0
        self.broken = self.damaged = False
        self.scene: ImageArray | None = None

    def make(self) -> Device:
        return self

    def open(self) -> None:
        if not self.here:
            raise CameraError("/dev/video0: no such camera; plug it in")
        self.opened += 1

    def grab(self) -> bool:
        if self.hanging is not None:
            self.hanging.wait(PATIENCE_S)
        if self.broken:
            raise RuntimeError("VIDIOC_DQBUF: no such device")
        if not self.frames.acquire(timeout=0.02):
            return False
        self.grabbed += 1
        return True

    def picture(self) -> ImageArray | None:
        self.decoded += 1
        if self.damaged:
            return None
        if self.scene is not None:
            return self.scene.copy()
        return np.full((2, 2, 3), self.grabbed, np.uint8)

    def present(self) -> bool:
        return self.here

    def close(self) -> None:
        self.closed += 1

    def deliver(self, count: int = 1) -> None:
        """Frames, each taken before the next comes."""
        for _ in range(count):
            expected = self.grabbed + 1
            self.frames.release()
            wait(lambda expected=expected: self.grabbed >= expected)


def wait(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.002)


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def camera(device: Device, clock: Clock) -> Iterator[GrabbingCamera]:
    made = GrabbingCamera("/dev/video0", device.make, clock)
    made.open()
    yield made
    made.close()


def level(camera: GrabbingCamera) -> int:
    frame = camera.read(PATIENCE_S)
    assert frame is not None
    return int(frame.image[0, 0, 0])


def test_the_newest_frame_wins_and_the_rest_are_counted(
    camera: GrabbingCamera, device: Device
) -> None:
    device.deliver(4)
    wait(lambda: device.decoded == 4)
    assert level(camera) == 4
    assert camera.dropped == 3
    assert camera.read(0.0) is None
    assert camera.found == "2 x 2" and camera.differences


def test_at_rest_nothing_is_decoded_and_the_next_frame_is_new(
    camera: GrabbingCamera, device: Device
) -> None:
    device.deliver(1)
    wait(lambda: device.decoded == 1)
    camera.rest()
    device.deliver(10)
    assert device.decoded == 1 and camera.dropped == 0
    threading.Timer(0.05, device.frames.release).start()
    assert level(camera) == 12  # neither the one before the rest nor one of the ten


def test_frames_are_stamped_when_they_come(
    camera: GrabbingCamera, device: Device, clock: Clock
) -> None:
    clock.now_s = 60.0
    device.frames.release()
    frame = camera.read(PATIENCE_S)
    assert frame is not None and frame.t_s == 60.0


def test_a_camera_that_is_unplugged_is_lost_at_once_and_opens_again(
    camera: GrabbingCamera, device: Device
) -> None:
    device.here = False
    with pytest.raises(CameraError, match="/dev/video0: delivers no picture;"):
        camera.read(PATIENCE_S)
    with pytest.raises(CameraError, match="no such camera"):
        camera.open()
    device.here = True
    camera.open()
    device.frames.release()
    assert level(camera) == 1
    assert (device.opened, device.closed) == (2, 1)


def test_a_camera_that_stalls_is_lost(camera: GrabbingCamera, device: Device, clock: Clock) -> None:
    device.frames.release()
    level(camera)
    clock.now_s += STALL_S
    assert camera.read(0.1) is None
    clock.now_s += 0.1
    with pytest.raises(CameraError, match="check its cable"):
        camera.read(PATIENCE_S)


def lose(camera: GrabbingCamera, device: Device, clock: Clock, complaint: str) -> None:
    """By three pictures that are no good, after a good one."""
    for _ in range(3):
        clock.now_s += 0.4 * STALL_S
        device.deliver()
    wait(lambda: device.decoded == 4)
    with pytest.raises(CameraError, match=complaint):
        camera.read(0.1)


def test_a_camera_of_damaged_pictures_is_lost(
    camera: GrabbingCamera, device: Device, clock: Clock
) -> None:
    device.frames.release()
    level(camera)
    device.damaged = True
    lose(camera, device, clock, "only damaged pictures; check its cable")
    camera.close()
    device.damaged = False
    camera.open()
    clock.now_s += FIRST_S + 0.1
    with pytest.raises(CameraError, match="delivers no picture; check its cable"):
        camera.read(0.1)


def test_a_frozen_picture_is_seen_once_and_the_camera_is_lost(
    camera: GrabbingCamera, device: Device, clock: Clock
) -> None:
    random = np.random.default_rng(1)
    device.scene = random.integers(0, 256, (480, 640, 3), np.uint8)
    device.deliver()
    assert camera.read(PATIENCE_S) is not None
    lose(camera, device, clock, "the same picture again and again; unplug it")
    camera.close()
    camera.open()  # and still frozen
    device.deliver()
    wait(lambda: device.decoded == 5)
    assert camera.read(0.05) is None
    device.scene[240, 320] ^= 1  # noise: another picture
    device.deliver()
    assert camera.read(PATIENCE_S) is not None


def test_a_dark_camera_is_not_frozen(camera: GrabbingCamera, device: Device, clock: Clock) -> None:
    device.scene = np.full((480, 640, 3), 16, np.uint8)
    device.scene[300:310, 300:310] = 255  # the lamp of a television
    for _ in range(4):
        clock.now_s += 0.9 * STALL_S
        device.deliver()
        assert camera.read(PATIENCE_S) is not None


def test_the_first_frame_may_take_longer(
    camera: GrabbingCamera, device: Device, clock: Clock
) -> None:
    clock.now_s += FIRST_S
    assert camera.read(0.1) is None


def test_a_driver_that_raises_is_a_lost_camera(camera: GrabbingCamera, device: Device) -> None:
    device.broken = True
    with pytest.raises(CameraError, match="VIDIOC_DQBUF"):
        camera.read(PATIENCE_S)
    wait(lambda: device.closed == 1)


def test_a_driver_that_hangs_is_told_from_one_that_is_busy(
    camera: GrabbingCamera, device: Device, clock: Clock
) -> None:
    device.hanging = threading.Event()
    device.frames.release()
    assert level(camera) == 1
    clock.now_s += STALL_S + 1.0
    with pytest.raises(CameraError, match="check its cable"):
        camera.read(0.1)
    camera.close()
    assert device.closed == 0  # not under the thread that hangs in it
    with pytest.raises(CameraHung, match="hangs in its driver"):
        camera.open()
    device.hanging.set()
    wait(lambda: device.closed == 1)
    device.hanging = None
    camera.open()


def test_reading_and_closing_without_opening(device: Device) -> None:
    camera = GrabbingCamera("/dev/video0", device.make)
    camera.close()
    with pytest.raises(CameraError, match="not open"):
        camera.read(0.0)
