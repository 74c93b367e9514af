"""What is asked of an accelerometer beside its samples: its state, its raw values, calibration."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.bus import Instrument
from edge_rt.core.calibration import Axis3, Calibration, check, fit
from edge_rt.core.errors import ConfigError, HardwareError, SensorError
from edge_rt.core.types import SampleBlock
from edge_rt.runtime.control import Command
from edge_rt.runtime.mounted import MountedAccelerometer
from edge_rt.runtime.places import CALIBRATION_NAME

MAX_WAITING = 64  # blocks; a follower that is six seconds late misses some
BEAT_S = 1.0  # without samples for so long an empty item finds out that a follower has gone


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long."""

    seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0


class Poses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Means of the accelerometer at rest, uncorrected, in g; one for each position."""

    poses: Annotated[list[tuple[float, float, float]], Meta(min_length=1, max_length=64)]


def sensor_commands(desk: SensorDesk | None) -> dict[str, Command]:
    """For whoever holds the device in his hands: raw samples are not to be offered from afar."""

    def found() -> SensorDesk:
        if desk is None:
            raise ConfigError(
                "the accelerometer is none that can be calibrated; set [falls.source] to a sensor"
            )
        return desk

    return {
        "accel_watch": Command(Watch, lambda args: found().watch(args.seconds)),
        "accel_calibrate": Command(Poses, lambda args: found().calibrate(args.poses)),
    }


def load_calibration(folder: Path, identity: str) -> Calibration | None:
    """What is stored for this device; None if nothing is.

    Raises StorageError for a damaged file, SensorError for one of another device or one that no
    working sensor has.
    """
    found = StateFile(folder / CALIBRATION_NAME, Calibration).load()
    if found is None:
        return None
    if found.sensor != identity:
        raise SensorError(
            f"the calibration is of {found.sensor!r}, not of {identity!r}, and not applied; "
            "calibrate this one: edge-rt calibrate accelerometer"
        )
    check(found)
    return found


class SensorDesk:
    """Applies the stored calibration at once. Methods may be called from any thread.

    A calibration that cannot be applied leaves the sensor uncorrected: `problem` says why.
    """

    def __init__(self, device: Instrument, mounted: MountedAccelerometer, folder: Path) -> None:
        self.problem = ""
        self._device = device
        self._mounted = mounted
        self._file = StateFile(folder / CALIBRATION_NAME, Calibration)
        self._calibration: Calibration | None = None
        self._lock = threading.Lock()
        try:
            self._calibration = load_calibration(folder, device.identity())
        except HardwareError as error:  # StorageError, SensorError
            self.problem = str(error)
        mounted.calibrate(self._calibration)

    def status(self) -> dict[str, Any]:
        """JSON-able."""
        calibration = self._calibration
        return {
            "sensor": self._device.identity(),
            "calibrated": calibration.method if calibration is not None else None,
            **self._device.status(),
        }

    def calibrate(self, poses: Sequence[Axis3]) -> dict[str, Any]:
        """Fit, save and apply; returns the calibration. Raises SensorError, StorageError."""
        with self._lock:
            calibration = fit(self._device.identity(), np.array(poses, np.float64))
            self._file.save(calibration)
            self._mounted.calibrate(calibration)
            self._calibration, self.problem = calibration, ""
        built: dict[str, Any] = msgspec.to_builtins(calibration)
        return built

    def watch(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Uncorrected samples as they come: {"t_s": [...], "acc_g": [[x, y, z], ...]}; an empty
        item where none do."""
        blocks: queue.Queue[SampleBlock] = queue.Queue(MAX_WAITING)

        def take(block: SampleBlock) -> None:
            if not blocks.full():  # one thread puts: it cannot fill up in between
                blocks.put_nowait(block)

        forget = self._mounted.listen(take)
        try:
            end_s = time.monotonic() + seconds
            while (left_s := end_s - time.monotonic()) > 0:
                try:
                    block = blocks.get(timeout=min(left_s, BEAT_S))
                except queue.Empty:
                    yield {}
                    continue
                yield {"t_s": block.t_s.tolist(), "acc_g": block.acc_g.tolist()}
        finally:
            forget()
