"""From a section of the config to the accelerometer it names."""

from __future__ import annotations

from pathlib import Path

from edge_rt.adapters.accel_replay import ReplayAccelerometer
from edge_rt.core.config import (
    AccelerometerSource,
    FallConfig,
    ReplayedAccelerometer,
    SimulatedAccelerometer,
)
from edge_rt.core.timebase import Stamps
from edge_rt.core.types import Accelerometer, SampleBlock
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
