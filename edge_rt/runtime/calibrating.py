"""Calibration of the accelerometer, through the daemon that has it or, without one, directly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_rt.adapters.statedir import StateDir
from edge_rt.core.calibration import Axis3, Positions, Rest
from edge_rt.core.config import Config
from edge_rt.core.errors import ConfigError, DaemonError, InputError
from edge_rt.core.orientation import parse_axes
from edge_rt.core.types import SampleBlock
from edge_rt.runtime.client import Client
from edge_rt.runtime.instruments import InstrumentSource, make_instrument
from edge_rt.runtime.mounted import MountedAccelerometer
from edge_rt.runtime.protocol import socket_path
from edge_rt.runtime.sensor_desk import SensorDesk

READ_S = 0.5
NOTHING = SampleBlock(np.zeros(0), np.zeros((0, 3), np.float32))
Progress = Callable[[Rest, Positions], None]


def calibrate(
    config: Config | None, run_dir: Path, six: bool, wait_s: float, progress: Progress
) -> dict[str, Any]:
    """The calibration as it is stored and applied now.

    config    of a device whose daemon does not run; None: the daemon of `run_dir` must
    six       six sides; else one position held for a minute
    progress  called at each position that was held

    Raises InputError when `wait_s` is over before all positions were seen, DaemonError, ConfigError
    for a source that is no device, SensorError, StorageError.
    """
    place = run_dir if config is None else Path(config.runtime.run_dir)
    positions = Positions(six)
    if config is None or socket_path(place).exists():
        with contextlib.suppress(_Absent), _daemon(place, must=config is None) as client:
            _gather(positions, _from_daemon(client, wait_s), wait_s, progress)
            with Client(place) as other:  # that one ends with its stream
                return other.call("accel_calibrate", poses=positions.poses())
    assert config is not None
    with _directly(config) as (blocks, keep):
        _gather(positions, blocks, wait_s, progress)
        return keep(positions.poses())


class _Absent(Exception):
    """A socket without a daemon behind it."""


@contextlib.contextmanager
def _daemon(run_dir: Path, must: bool) -> Iterator[Client]:
    try:
        client = Client(run_dir)
    except DaemonError:
        if must:
            raise
        raise _Absent from None  # the state folder's lock will tell if it is there all the same
    with client:
        yield client


def _from_daemon(client: Client, seconds: float) -> Iterator[SampleBlock]:
    for item in client.stream("accel_watch", seconds=seconds):
        if item:
            acc_g = np.array(item["acc_g"], np.float32).reshape(-1, 3)
            yield SampleBlock(np.array(item["t_s"], np.float64), acc_g)


@contextlib.contextmanager
def _directly(
    config: Config,
) -> Iterator[tuple[Iterator[SampleBlock], Callable[[list[Axis3]], dict[str, Any]]]]:
    """What the sensor delivers, and how to keep what came of it; nobody else has the state."""
    source = config.falls.source
    if not isinstance(source, InstrumentSource):
        raise ConfigError(
            "the accelerometer is none that can be calibrated; set [falls.source] to a sensor"
        )
    with StateDir(Path(config.runtime.state_dir)) as state:
        device = make_instrument(source, "waist")
        desk = SensorDesk(device, MountedAccelerometer(device, parse_axes(source.axes)), state.path)

        def blocks() -> Iterator[SampleBlock]:
            while True:
                block = device.read(READ_S)
                yield block if block is not None else NOTHING

        try:
            device.open()
            yield blocks(), desk.calibrate
        finally:
            device.close()


def _gather(
    positions: Positions, blocks: Iterator[SampleBlock], wait_s: float, progress: Progress
) -> None:
    end_s = time.monotonic() + wait_s
    for block in blocks:
        rest = positions.feed(block)
        if rest is not None:
            progress(rest, positions)
        if positions.done:
            return
        if time.monotonic() > end_s:
            break
    missing = ", ".join(positions.missing)
    raise InputError(
        f"only {len(positions.found)} positions in {wait_s:g} s, without {missing} up; "
        "lay it on each side and let go, or give more time: --wait-s"
    )
