"""From a section of the config to the sensor or camera it names."""

from __future__ import annotations

from pathlib import Path

from edge_rt.adapters.accel_replay import ReplayAccelerometer
from edge_rt.core.config import (
    DemoCamera,
    OpenCVCamera,
    ReplayedAccelerometer,
    ReplayedCamera,
    SimulatedAccelerometer,
)
from edge_rt.core.errors import ConfigError, InputError
from edge_rt.core.types import Accelerometer, Camera, SampleBlock
from edge_rt.falls.simulate import ACTIVITIES, DEMO_SCRIPT, FALLS, Script, simulate

# "demo", "walking", ..., "fall-seated", ...
SCENES: dict[str, Script] = {
    "demo": DEMO_SCRIPT,
    **ACTIVITIES,
    **{f"fall-{name}": script for name, script in FALLS.items()},
}


def make_accelerometer(
    source: SimulatedAccelerometer | ReplayedAccelerometer, placement: str
) -> Accelerometer:
    """The accelerometer that the config names.

    Raises ConfigError for an unknown scene, InputError for an unusable recording.
    """
    if isinstance(source, SimulatedAccelerometer):
        return _simulated(source, placement)
    return _replayed(source)


def _simulated(source: SimulatedAccelerometer, placement: str) -> Accelerometer:
    if source.scene not in SCENES:
        raise ConfigError(
            f"falls.source: no scene {source.scene!r}; choose from {', '.join(SCENES)}"
        )
    played = simulate(
        SCENES[source.scene], source.seed, rate_hz=source.rate_hz, placement=placement
    )
    return ReplayAccelerometer(
        played.block,
        rate_hz=played.rate_hz,
        range_g=played.range_g,
        speed=source.speed,
        repeat=source.repeat,
    )


def _replayed(source: ReplayedAccelerometer) -> Accelerometer:
    from edge_rt.adapters.trials import read_trials

    for trial in read_trials(Path(source.file)):
        if source.trial in ("", trial.trial):
            return ReplayAccelerometer(
                SampleBlock(trial.times_s(), trial.acc_g),
                rate_hz=trial.rate_hz,
                speed=source.speed,
                repeat=source.repeat,
            )
    raise InputError(f"{source.file}: no trial {source.trial!r} in it; see its `trial` array")


def make_camera(source: OpenCVCamera | ReplayedCamera | DemoCamera) -> Camera:
    """The camera that the config names. OpenCV is imported here at the earliest.

    Raises InputError for an unusable video; a camera that is absent shows when it is opened.
    """
    if isinstance(source, OpenCVCamera):
        from edge_rt.adapters.camera_opencv import OpenCVCamera as Device

        return Device(source)
    if isinstance(source, ReplayedCamera):
        from edge_rt.adapters.camera_replay import ReplayCamera

        return ReplayCamera(Path(source.file), speed=source.speed, repeat=source.repeat)
    from edge_rt.faces.clip import demo_clip

    return demo_clip(source.seed, source.speed)
