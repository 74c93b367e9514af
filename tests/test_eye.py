"""The worker's camera: loss and return told once, back-off, drops while busy, and hangs."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_rt.core.errors import CameraError
from edge_rt.core.types import Frame
from edge_rt.runtime.eye import BACKOFF_S, HUNG_S, Eye
from edge_rt.runtime.face_messages import CameraOpening, CameraState
from edge_rt.runtime.grabber import CameraHung


class Driven:
    """A camera that does what the test says."""

    def __init__(self) -> None:
        self.dropped = 0
        self.opens: list[CameraError | None] = []
        self.reads: list[CameraError | EOFError | int | None] = []
        self.is_open = False

    def open(self) -> None:
        error = self.opens.pop(0) if self.opens else None
        if error is not None:
            raise error
        self.is_open = True

    def read(self, timeout_s: float) -> Frame | None:
        assert self.is_open
        what = self.reads.pop(0)
        if isinstance(what, Exception):
            raise what
        if what is None:
            return None
        self.dropped += what
        return Frame(0.0, np.zeros((2, 2, 3), np.uint8))

    def close(self) -> None:
        self.is_open = False


class Watch:
    def __init__(self) -> None:
        self.camera = Driven()
        self.told: list[msgspec.Struct] = []
        self.now_s = 0.0
        self.opening = 0
        self.eye = Eye(lambda: self.camera, self._tell, lambda: self.now_s)

    def _tell(self, message: msgspec.Struct) -> None:
        if isinstance(message, CameraOpening):  # before each try, lest it look like a hang
            assert not self.camera.is_open
            self.opening += 1
        else:
            self.told.append(message)


def test_nothing_is_opened_before_a_frame_is_wanted_nor_left_open() -> None:
    watch = Watch()
    assert not watch.camera.is_open
    watch.camera.reads = [0]
    assert watch.eye.next_frame() is not None
    assert watch.camera.is_open and watch.eye.state == "on" and watch.opening == 1
    watch.eye.close()
    assert not watch.camera.is_open and watch.eye.state == "off"


def test_loss_and_return_are_told_once_each_with_back_off_between() -> None:
    watch = Watch()
    gone = CameraError("unplugged")
    watch.camera.reads = [0, gone, 0]
    watch.camera.opens = [None, *[CameraError("no such camera")] * 5]
    assert watch.eye.next_frame() is not None
    assert watch.eye.next_frame() is None
    assert watch.told == [CameraState(True, "unplugged")] and watch.eye.state == "lost"
    for backoff_s in (*BACKOFF_S, BACKOFF_S[-1]):
        left = len(watch.camera.opens)
        watch.now_s += backoff_s * 0.99
        assert watch.eye.next_frame() is None
        assert len(watch.camera.opens) == left  # not yet
        watch.now_s += backoff_s * 0.02
        assert watch.eye.next_frame() is None
        assert len(watch.camera.opens) == left - 1
    assert watch.eye.reason == "no such camera" and len(watch.told) == 1
    watch.now_s += BACKOFF_S[-1]
    assert watch.eye.next_frame() is not None
    assert watch.told[1:] == [CameraState(False)] and watch.eye.reason == ""


def test_a_lost_camera_that_is_given_back_is_off_and_looked_for_at_once() -> None:
    watch = Watch()
    watch.camera.opens = [CameraError("no such camera")] * 3
    for _ in range(3):
        assert watch.eye.next_frame() is None
        watch.now_s += BACKOFF_S[-1]
    watch.camera.opens = [CameraError("no such camera")]
    assert watch.eye.next_frame() is None and watch.eye.state == "lost"
    watch.eye.close()
    assert (watch.eye.state, watch.eye.reason) == ("off", "")
    watch.camera.reads = [0]
    assert watch.eye.next_frame() is not None and watch.eye.state == "on"


def test_frames_passed_over_while_busy_count_and_those_at_rest_do_not() -> None:
    watch = Watch()
    watch.camera.reads = [0, 3, 20, 2]
    for _ in range(2):
        watch.eye.next_frame()
    watch.eye.rest()
    for _ in range(2):
        watch.eye.next_frame()
    assert (watch.eye.frames, watch.eye.dropped) == (4, 5)
    watch.eye.close()
    watch.camera.dropped, watch.camera.reads = 0, [1]  # opened anew it counts from zero
    watch.eye.next_frame()
    assert watch.eye.dropped == 6


def test_the_end_of_a_recording_is_no_loss() -> None:
    watch = Watch()
    watch.camera.reads = [EOFError()]
    assert watch.eye.next_frame() is None
    assert watch.eye.state == "ended" and watch.told == [] and not watch.camera.is_open


def test_a_driver_that_never_lets_go_ends_the_worker() -> None:
    watch = Watch()
    watch.camera.opens = [CameraHung("hangs")] * 20
    with pytest.raises(CameraHung):
        for _ in range(20):
            watch.eye.next_frame()
            watch.now_s += 6.0
    assert watch.now_s > HUNG_S
