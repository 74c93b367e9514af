"""Fall detection, put together from the configuration and brought back to where it was."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edge_rt.adapters.probe import probe
from edge_rt.bundle import Bundle, factory_bundles, locate, open_bundle
from edge_rt.core.config import Config, SimulatedAccelerometer
from edge_rt.core.errors import ConfigError, ManifestError
from edge_rt.core.fall import OPEN, FallRules, rules_for
from edge_rt.core.manifest import FallManifest
from edge_rt.core.orientation import parse_axes
from edge_rt.core.types import Accelerometer
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.runtime.alarm_siren import siren_follows
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.fall_memory import FallMemory, logged_stages
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.instruments import InstrumentSource, is_model, make_instrument
from edge_rt.runtime.mounted import MountedAccelerometer
from edge_rt.runtime.sensor_desk import SensorDesk
from edge_rt.runtime.sources import make_accelerometer, stamps_of


class Settings(Protocol):
    """Who may change settings from afar (runtime.compose_mqtt)."""

    def config(self) -> Config: ...

    def forget(self, reason: str) -> None: ...

    def watch(self, apply: Callable[[Config], None]) -> None: ...


class Falls(NamedTuple):
    """The service, not started; its memory, to be closed after it; the engine's name; the desk of
    the accelerometer where that is a device."""

    service: FallService
    memory: FallMemory
    engine: str
    desk: SensorDesk | None


def make_falls(place: Place, settings: Settings | None) -> Falls:
    """Raises ConfigError, InputError, PublisherError: what a person has to mend first."""
    config = place.config.falls
    bundle = _open(place.config)
    manifest = bundle.manifest
    if not isinstance(manifest, FallManifest):
        raise ManifestError(f"bundle {config.bundle} is not a fall model; see falls.bundle")
    source, desk = _sensor(place, manifest.decision.placement)
    detector = FallDetector(
        bundle, rate_hz=source.rate_hz, range_g=source.range_g, stamps=stamps_of(config)
    )
    pipeline = FallPipeline(
        detector,
        _rules_at_start(place.config, settings, manifest),
        lambda: uuid.uuid4().hex,
        range_g=source.range_g,
        simulated=isinstance(config.source, SimulatedAccelerometer) or is_model(config.source),
        scale=manifest.output.scale,
    )
    place.recorder.listen(siren_follows(place.siren), urgent=True)
    announce = announcer(place.recorder, f"{manifest.name} {manifest.version}")
    memory = FallMemory(place.folder, place.boot_id, time.monotonic)
    restored = memory.restore(pipeline, logged_stages(place.recorder))
    if pipeline.machine.state in OPEN:
        place.siren.sound(pipeline.machine.state.value)
    for kind, what, data in restored.tell:
        announce(kind, what, data)
    service = FallService(
        pipeline,
        source,
        announce,
        memory.save,
        time.monotonic,
        # A sensor cannot be missed before its hops are due.
        lost_s=max(config.lost_s, 3.0 * manifest.input.hop / manifest.input.rate_hz),
        speed=1.0 if isinstance(config.source, InstrumentSource) else config.source.speed,
        asleep_s=restored.asleep_s,
        instrument=desk.status if desk is not None else dict,
    )
    if settings is not None:
        settings.watch(lambda new: service.set_rules(rules_from(new, manifest)))
    return Falls(service, memory, bundle.interpreter.engine, desk)


def _sensor(place: Place, placement: str) -> tuple[Accelerometer, SensorDesk | None]:
    """The configured source; a device as it is mounted and calibrated."""
    source = place.config.falls.source
    if not isinstance(source, InstrumentSource):
        return make_accelerometer(source, placement), None
    device = make_instrument(source, placement)
    mounted = MountedAccelerometer(device, parse_axes(source.axes))
    return mounted, SensorDesk(device, mounted, place.folder)


def rules_from(config: Config, manifest: FallManifest) -> FallRules:
    """The rules of the alarm machine. Raises ConfigError for what the bundle does not allow."""
    falls = config.falls
    profile: dict[str, float | bool] = {
        "cancel_window_s": falls.alarm.cancel_window_s,
        "escalated_window_s": falls.alarm.escalated_window_s,
        "cancel_on_recovery": falls.alarm.cancel_on_recovery,
    }
    if falls.threshold is not None:
        profile["threshold"] = falls.threshold
    try:
        return rules_for(manifest, **profile)
    except ValueError as error:
        raise ConfigError(f"[falls]: {error}; correct the configuration") from None


def _rules_at_start(config: Config, settings: Settings | None, manifest: FallManifest) -> FallRules:
    if settings is not None:
        try:
            return rules_from(settings.config(), manifest)
        except ConfigError as error:  # a bundle with other bounds has come since
            settings.forget(str(error))
    return rules_from(config, manifest)


def _open(config: Config) -> Bundle:
    """A bundle that a person named is first tried in a process that may crash."""
    runtime = config.runtime
    folder = locate(config.falls.bundle)
    if folder not in factory_bundles().values():
        probe(folder, runtime.engine, run=False)
    bundle = open_bundle(folder, runtime.engine, runtime.threads)
    bundle.interpreter.warm_up()
    return bundle
