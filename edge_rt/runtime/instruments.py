"""From a section of the config to the sensor on a bus, or the model of one, that it names.

The drivers of buses are imported here at the earliest: who replays a recording needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_rt.core.bus import Bus, Instrument
from edge_rt.core.config import (
    AccelerometerSource,
    Adxl345Source,
    BusModel,
    IioSource,
    Mpu6050Source,
)
from edge_rt.core.orientation import parse_axes
from edge_rt.core.types import Accelerometer

if TYPE_CHECKING:
    from edge_rt.core.register_models import RegisterModel

# A device, or a model of one; no simulation and no recording.
InstrumentSource = Mpu6050Source | Adxl345Source | IioSource


class Device(Accelerometer, Instrument, Protocol):
    """An accelerometer that is a device."""


def is_model(source: AccelerometerSource) -> bool:
    """A model of a chip: nobody is watched."""
    return isinstance(source, Mpu6050Source | Adxl345Source) and source.model is not None


def bus_path(source: Mpu6050Source | Adxl345Source) -> str:
    """The device file of the bus."""
    return f"/dev/i2c-{source.bus}" if source.bus.isdigit() else source.bus


def make_instrument(source: InstrumentSource, placement: str) -> Device:
    """Not opened yet. placement: of a simulated wearer that a model feels.

    Raises ConfigError for axes that are no rotation or an unknown scene, InputError for an unusable
    recording.
    """
    parse_axes(source.axes)
    if isinstance(source, IioSource):
        from edge_rt.adapters.accel_iio import IioAccelerometer

        return IioAccelerometer(source)
    from edge_rt.adapters.accel_i2c import I2cAccelerometer

    if isinstance(source, Mpu6050Source):
        from edge_rt.adapters.accel_mpu6050 import Mpu6050
        from edge_rt.core.register_models import Mpu6050Model

        fifo, width = source.mode == "fifo", source.bandwidth_hz
        mpu = Mpu6050(source.address, source.range_g, source.rate_hz, width, fifo)
        open_bus = _opener(source, Mpu6050Model, placement)
        return I2cAccelerometer(mpu, open_bus, _place(source))
    from edge_rt.adapters.accel_adxl345 import Adxl345
    from edge_rt.core.register_models import Adxl345Model

    adxl = Adxl345(source.address, source.range_g, source.rate_hz, source.mode == "fifo")
    return I2cAccelerometer(adxl, _opener(source, Adxl345Model, placement), _place(source))


def _place(source: Mpu6050Source | Adxl345Source) -> str:
    bus = "a model bus" if source.model is not None else bus_path(source)
    return f"{bus} 0x{source.address:02x}"


def _opener(
    source: Mpu6050Source | Adxl345Source, chip: Callable[[], RegisterModel], placement: str
) -> Callable[[], Bus]:
    if source.model is not None:
        bus = _model_bus(source.model, chip(), source.address, source.rate_hz, placement)
        return lambda: bus

    def open_bus() -> Bus:
        from edge_rt.adapters.i2c import I2cBus

        return I2cBus(bus_path(source), source.transfers)

    return open_bus


def _model_bus(
    model: BusModel, chip: RegisterModel, address: int, rate_hz: float, placement: str
) -> Bus:
    from edge_rt.adapters.bus_model import ModelBus

    if model.file:
        from edge_rt.adapters.trials import find_trial

        trial = find_trial(Path(model.file), model.trial)
        acc_g, felt_hz = trial.acc_g, trial.rate_hz
    else:
        from edge_rt.runtime.scenes import simulated_scene

        played = simulated_scene(model.scene, model.seed, rate_hz, placement)
        acc_g, felt_hz = played.block.acc_g, played.rate_hz
    return ModelBus(
        chip,
        address,
        acc_g,
        felt_hz,
        repeat=model.repeat,
        clock_error=model.clock_error,
        faults=model.faults,
    )
