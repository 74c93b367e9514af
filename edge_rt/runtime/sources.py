"""From a section of the config to the sensor or camera it names."""

from __future__ import annotations

from pathlib import Path

from edge_rt.adapters.accel_replay import ReplayAccelerometer
from edge_rt.core.config import (
    AccelerometerSource,
    DemoCamera,
    FallConfig,
    OpenCVCamera,
    Picamera2Camera,
    ReplayedAccelerometer,
    ReplayedCamera,
    SimulatedAccelerometer,
)
from edge_rt.core.timebase import Stamps
from edge_rt.core.types import Accelerometer, Camera, SampleBlock
from edge_rt.runtime.grabber import GrabbingCamera
from edge_rt.runtime.instruments import make_instrument
from edge_rt.runtime.scenes import simulated_scene


def make_accelerometer(source: AccelerometerSource, placement: str) -> Accelerometer:
    """The accelerometer that the config names; nothing is opened yet.

    Raises ConfigError for an unknown scene or axes, InputError for an unusable recording.
    """
    if isinstance(source, SimulatedAccelerometer):
        return _simulated(source, placement)
    if isinstance(source, ReplayedAccelerometer):
        return _replayed(source)[0]
    return make_instrument(source, placement)


def stamps_of(falls: FallConfig) -> Stamps:
    """What the time stamps of the configured source mean.

    Devices of ours stamp each sample when it was taken; a recording with times has arrival times.
    Raises InputError for an unusable recording.
    """
    if falls.stamps != "auto":
        return falls.stamps
    if isinstance(falls.source, ReplayedAccelerometer):
        return _replayed(falls.source)[1]
    return "even"


def _simulated(source: SimulatedAccelerometer, placement: str) -> Accelerometer:
    played = simulated_scene(source.scene, source.seed, source.rate_hz, placement)
    return ReplayAccelerometer(
        played.block,
        rate_hz=played.rate_hz,
        range_g=played.range_g,
        speed=source.speed,
        repeat=source.repeat,
    )


def _replayed(source: ReplayedAccelerometer) -> tuple[Accelerometer, Stamps]:
    from edge_rt.adapters.trials import find_trial

    trial = find_trial(Path(source.file), source.trial)
    played = ReplayAccelerometer(
        SampleBlock(trial.times_s(), trial.acc_g),
        rate_hz=trial.rate_hz,
        speed=source.speed,
        repeat=source.repeat,
    )
    return played, "even" if trial.t_s is None else "arrival"


AnyCamera = OpenCVCamera | Picamera2Camera | ReplayedCamera | DemoCamera


def make_camera(source: AnyCamera) -> Camera:
    """The camera that the config names. OpenCV is imported here at the earliest.

    Raises InputError for an unusable video; a camera that is absent shows when it is opened.
    """
    if isinstance(source, OpenCVCamera):
        from edge_rt.adapters.camera_opencv import OpenCVCapture, device_path

        return GrabbingCamera(device_path(source.device), lambda: OpenCVCapture(source))
    if isinstance(source, Picamera2Camera):
        from edge_rt.adapters.camera_picamera2 import Picamera2Capture
        from edge_rt.adapters.imaging import from_yuv420

        name = f"Pi camera {source.index}"
        return GrabbingCamera(name, lambda: Picamera2Capture(source, from_yuv420))
    if isinstance(source, ReplayedCamera):
        from edge_rt.adapters.camera_replay import ReplayCamera

        return ReplayCamera(Path(source.file), speed=source.speed, repeat=source.repeat)
    from edge_rt.faces.clip import demo_clip

    return demo_clip(source.seed, source.speed)
