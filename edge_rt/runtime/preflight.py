"""What can be told of a configuration without starting anything: names, files, bounds."""

from __future__ import annotations

from pathlib import Path

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.tflite import choose_engine
from edge_rt.bundle import locate
from edge_rt.core.config import Config, ReplayedCamera
from edge_rt.core.errors import ConfigError, InputError
from edge_rt.core.manifest import (
    DetectManifest,
    EmbedManifest,
    FallManifest,
    Manifest,
    distance_within,
)
from edge_rt.core.unlock import LIVENESS_NOT_CHECKED, check_actuator
from edge_rt.runtime.accelerometers import make_accelerometer
from edge_rt.runtime.compose_commands import operations_key
from edge_rt.runtime.fall_models import rules_from


def preflight(config: Config) -> None:
    """Raises what starting with this configuration would raise, as far as that needs no device."""
    choose_engine(config.runtime.engine)
    if config.mqtt.enabled:
        operations_key(config.mqtt)
    if config.falls.enabled:
        manifest = _manifest(config.falls.bundle, FallManifest, "falls.bundle")
        assert isinstance(manifest, FallManifest)
        rules_from(config, manifest)
        make_accelerometer(config.falls.source, manifest.decision.placement)
    if config.faces.enabled:
        _manifest(config.faces.detect, DetectManifest, "faces.detect")
        embed = _manifest(config.faces.embed, EmbedManifest, "faces.embed")
        assert isinstance(embed, EmbedManifest)
        distance_within(embed, config.faces.distance)
        check_actuator(str(type(config.outputs.lock).__struct_config__.tag), LIVENESS_NOT_CHECKED)
        camera = config.faces.camera
        if isinstance(camera, ReplayedCamera) and not Path(camera.file).exists():
            raise InputError(f"{camera.file}: no such file; see faces.camera.file")


def _manifest(name: str, kind: type, key: str) -> Manifest:
    manifest = read_bundle(locate(name)).manifest
    if not isinstance(manifest, kind):
        raise ConfigError(f"{key}: bundle {name!r} is a model for another task; name a fitting one")
    return manifest
