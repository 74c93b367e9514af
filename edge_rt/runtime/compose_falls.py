"""Fall detection, put together from the configuration and brought back to where it was."""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

from edge_rt.core.manifest import FallManifest
from edge_rt.core.orientation import parse_axes
from edge_rt.core.types import Accelerometer
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.runtime.accelerometers import make_accelerometer, stamps_of
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.compose_alarm import nobody_wears, resume
from edge_rt.runtime.fall_memory import FallMemory
from edge_rt.runtime.fall_models import FallModels, Settings
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.instruments import InstrumentSource, make_instrument
from edge_rt.runtime.mounted import MountedAccelerometer
from edge_rt.runtime.sensor_desk import SensorDesk
from edge_rt.runtime.update_journal import Journal
from edge_rt.runtime.update_start import begin


class Falls(NamedTuple):
    """The service, not started; its memory, to be closed after it; the engine's name; the desk of
    the accelerometer where that is a device; its models and their journal."""

    service: FallService
    memory: FallMemory
    engine: str
    desk: SensorDesk | None
    models: FallModels
    journal: Journal


def make_falls(place: Place, settings: Settings | None) -> Falls:
    """Raises ConfigError, InputError, PublisherError: what a person has to mend first."""
    config = place.config.falls
    models = FallModels(place, settings)
    journal = Journal(place.folder, "fall", place.boot_id)
    bundle = begin(journal, models.open, watched=place.config.updates.enabled)
    manifest = bundle.manifest
    assert isinstance(manifest, FallManifest)  # models.open gives no other
    source, desk = _sensor(place, manifest.decision.placement)
    stamps = stamps_of(config)
    detector = FallDetector(bundle, rate_hz=source.rate_hz, range_g=source.range_g, stamps=stamps)
    pipeline = FallPipeline(
        detector,
        models.rules(bundle),
        lambda: uuid.uuid4().hex,
        range_g=source.range_g,
        simulated=nobody_wears(config.source),
        scale=manifest.output.scale,
    )
    announce = announcer(place.recorder, f"{manifest.name} {manifest.version}")
    memory, asleep_s = resume(place, pipeline, announce)
    service = FallService(
        pipeline,
        source,
        announce,
        memory.save,
        time.monotonic,
        lost_s=models.lost_s(bundle),
        speed=1.0 if isinstance(config.source, InstrumentSource) else config.source.speed,
        asleep_s=asleep_s,
        instrument=desk.status if desk is not None else dict,
    )
    models.bind(service, bundle, (source.rate_hz, source.range_g, stamps))
    return Falls(service, memory, bundle.interpreter.engine, desk, models, journal)


def _sensor(place: Place, placement: str) -> tuple[Accelerometer, SensorDesk | None]:
    """The configured source; a device as it is mounted and calibrated."""
    source = place.config.falls.source
    if not isinstance(source, InstrumentSource):
        return make_accelerometer(source, placement), None
    device = make_instrument(source, placement)
    mounted = MountedAccelerometer(device, parse_axes(source.axes))
    return mounted, SensorDesk(device, mounted, place.folder)
