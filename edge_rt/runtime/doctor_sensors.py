"""The doctor's look at the accelerometer: its bus, what it delivers, its calibration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.statedir import held_by
from edge_rt.bundle import locate
from edge_rt.core.config import Adxl345Source, Config, IioSource, Mpu6050Source
from edge_rt.core.errors import HardwareError
from edge_rt.core.manifest import FallManifest
from edge_rt.runtime.accelerometers import make_accelerometer
from edge_rt.runtime.check import Check, State, failed, in_use
from edge_rt.runtime.instruments import InstrumentSource, bus_path, is_model, make_instrument
from edge_rt.runtime.sensor_desk import load_calibration

WAIT_S = 2.0
REST_G = (0.6, 1.4)  # gravity alone; offsets and scales of a chip without calibration included
NAME = "accelerometer"


def check_accelerometer(config: Config, status: dict[str, Any] | None) -> Iterator[Check]:
    """The accelerometer delivers samples."""
    source = config.falls.source
    driver = str(type(source).__struct_config__.tag)
    if not config.falls.enabled:
        yield Check(NAME, "ok", "fall detection is off")
    elif driver == "simulated" or is_model(source):
        what = "a simulated wearer" if driver == "simulated" else f"a model of the {driver}"
        remedy = "nobody is watched: set [falls.source] to a real sensor"
        yield Check(NAME, "warning", what, remedy)
    elif status is not None and status["falls"] is not None:
        yield _as_the_daemon_says(driver, status["falls"])
    elif (owner := held_by(Path(config.runtime.state_dir))) is not None:
        yield in_use(NAME, owner)
    else:
        yield _deliver_samples(config)


def _as_the_daemon_says(driver: str, falls: dict[str, Any]) -> Check:
    sensor, instrument = falls["sensor"], falls.get("instrument") or {}
    state: State = "ok" if sensor in ("ok", "ended") else "failed"
    told = [f"{driver}: the daemon says {sensor}"]
    if instrument.get("measured_hz"):
        told.append(f"{instrument['measured_hz']:.1f} Hz")
    for counter in ("overflows", "bus_errors", "late_polls"):
        if instrument.get(counter):
            told.append(f"{instrument[counter]} {counter.replace('_', ' ')}")
    if state == "failed" and falls["sensor_detail"]:
        return failed(NAME, f"{told[0]}: {falls['sensor_detail']}", "check wiring and address")
    return Check(NAME, state, ", ".join(told), "check wiring and address")


def _deliver_samples(config: Config) -> Check:
    manifest = read_bundle(locate(config.falls.bundle)).manifest
    placement = manifest.decision.placement if isinstance(manifest, FallManifest) else "waist"
    source = make_accelerometer(config.falls.source, placement)
    block = None
    try:
        source.open()
        end = time.monotonic() + WAIT_S
        while block is None and (left := end - time.monotonic()) > 0:
            block = source.read(left)
    except EOFError:
        block = None
    finally:
        source.close()
    if block is None:
        return Check(NAME, "failed", f"no sample in {WAIT_S:g} s", "check its wiring")
    felt = float(np.linalg.norm(block.acc_g.mean(axis=0)))
    found = f"delivers samples, nominally {source.rate_hz:g} Hz; it feels {felt:.2f} g"
    if not REST_G[0] <= felt <= REST_G[1]:
        remedy = "hold it still; if it stays, check wiring, driver and range, see docs/sensors.md"
        return Check(NAME, "failed", f"{found}, at rest it must be near 1 g", remedy)
    return Check(NAME, "ok", found)


def check_buses(
    config: Config, dev: Path = Path("/dev"), sys_root: Path | None = None
) -> Iterator[Check]:
    """What a configured device could be found on; nothing for a source that is none."""
    source = config.falls.source
    if not config.falls.enabled or not isinstance(source, InstrumentSource) or is_model(source):
        return
    if isinstance(source, IioSource):
        from edge_rt.adapters.accel_iio import SYS, accelerometers

        present = accelerometers(sys_root or SYS)
        found = ", ".join(f"{each.name} ({each.path.name})" for each in present)
        remedy = "load the chip's kernel driver: an overlay in config.txt, see docs/sensors.md"
        yield Check("IIO", "ok" if present else "failed", found or "no accelerometer", remedy)
        return
    buses = sorted(str(path) for path in dev.glob("i2c-*"))
    remedy = "enable I2C: dtparam=i2c_arm=on in config.txt, i2c-dev in /etc/modules, then reboot"
    yield Check("I2C", "ok" if buses else "failed", ", ".join(buses) or "no bus", remedy)


def check_calibration(config: Config) -> Iterator[Check]:
    """The stored calibration is of this sensor; nothing for a source that is no device."""
    source, name = config.falls.source, "calibration"
    if not config.falls.enabled or not isinstance(source, InstrumentSource):
        return
    identity = make_instrument(source, "waist").identity()
    try:
        found = load_calibration(Path(config.runtime.state_dir), identity)
    except HardwareError as error:  # StorageError, SensorError
        yield failed(name, str(error), "edge-rt calibrate accelerometer")
        return
    if found is None:
        yield Check(name, "ok", "none; to take offsets off: edge-rt calibrate accelerometer")
        return
    offset = max(map(abs, found.offset_g))
    scale = max(abs(s - 1.0) for s in found.scale)
    told = f"{found.method}: offsets up to {offset:.3f} g, scales up to {scale:.1%} off"
    yield Check(name, "ok", told)


def device_paths(config: Config) -> list[Path]:
    """Files that the daemon's user has to open for the accelerometer."""
    source = config.falls.source
    if not config.falls.enabled or is_model(source):
        return []
    if isinstance(source, Mpu6050Source | Adxl345Source):
        return [Path(bus_path(source))]
    return []
