"""The doctor's checks that a running daemon may make of itself: bounded, and out of the way.

Models run in children of the lowest priority, one after the other; sensors are asked of the
daemon's status, never opened a second time; the disk takes one block of 4 kB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_rt.bundle import locate
from edge_rt.core.config import Config
from edge_rt.runtime import doctor
from edge_rt.runtime.check import Check, run_checks
from edge_rt.runtime.clock import clock_trusted
from edge_rt.runtime.doctor_sensors import check_accelerometer


def self_test(config: Config, status: Mapping[str, Any]) -> Iterator[Check]:
    """Every check, whatever became of the others. Takes three times adapters.probe.TIMEOUT_S at
    the longest."""
    seen = dict(status)
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("models", lambda: _models(config)),
        ("accelerometer", lambda: check_accelerometer(config, seen)),
        ("camera", lambda: doctor.check_camera(config, seen)),
        ("state", lambda: doctor.check_state(Path(config.runtime.state_dir))),
        ("disk", lambda: doctor.check_disk(config)),
        ("clock", lambda: doctor.check_clock(datetime.now(UTC), clock_trusted())),
        ("memory", doctor.check_memory),
        ("temperature", doctor.check_temperature),
    ]
    yield from run_checks(checks)


def _models(config: Config) -> Iterator[Check]:
    for name in doctor.configured_models(config):
        # A name alone: where a bundle of one's own lies is nobody's business elsewhere.
        shown, engine = Path(name).name, config.runtime.engine
        yield doctor.check_model(shown, locate(name), engine, background=True)
