"""Fall models of a device: settings from afar meet a swap, a candidate that was left is gone."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.adapters.accel_replay import ReplayAccelerometer
from edge_rt.core.config import Config
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.falls.simulate import DEMO_SCRIPT, simulate
from edge_rt.runtime.compose import Place
from edge_rt.runtime.fall_models import FallModels
from edge_rt.runtime.fall_service import FallService

RATE_HZ = 50.0


class Settings:
    """Settings from afar; `known` is what is written down."""

    def __init__(self) -> None:
        self.known = Config()
        self.apply: Callable[[Config], None] = lambda config: None

    def config(self) -> Config:
        return self.known

    def forget(self, reason: str) -> None:
        self.known = Config()

    def watch(self, apply: Callable[[Config], None]) -> None:
        self.apply = apply


class Running:
    """Models with a service that watches a replay."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings()
        nothing: Any = None  # neither is announced nor sounded here
        place = Place(Config(), folder, "boot", nothing, nothing, nothing)
        self.models = FallModels(place, self.settings)
        bundle = self.models.open(None)
        self.pipeline = FallPipeline(
            FallDetector(bundle, rate_hz=RATE_HZ),
            self.models.rules(bundle),
            lambda: "an id",
            range_g=16.0,
        )
        block = simulate(DEMO_SCRIPT, 3, rate_hz=RATE_HZ, placement="waist").block
        self.service = FallService(
            self.pipeline,
            ReplayAccelerometer(block, rate_hz=RATE_HZ),
            lambda kind, what, data: None,
            lambda saved: None,
            time.monotonic,
            lost_s=5.0,
        )
        self.models.bind(self.service, bundle, (RATE_HZ, 16.0, "even"))


@pytest.fixture
def running(factory_bundle: Callable[[str], Path], tmp_path: Path) -> Iterator[Running]:
    factory_bundle("fall-waist")
    one = Running(tmp_path)
    one.service.start()
    yield one
    one.service.close()


def test_a_swap_keeps_settings_that_are_just_being_written_down(running: Running) -> None:
    """They are in force first and on disk then; a swap in between may not bring the old ones."""
    falls = msgspec.structs.replace(
        running.settings.known.falls,
        alarm=msgspec.structs.replace(running.settings.known.falls.alarm, cancel_window_s=77.0),
    )
    running.settings.apply(msgspec.structs.replace(running.settings.known, falls=falls))
    running.models.go(None)
    assert running.pipeline.machine.rules.cancel_window_s == 77.0
    running.settings.apply(running.settings.known)  # the disk did not take them
    running.models.go(None)
    assert running.pipeline.machine.rules.cancel_window_s != 77.0


def test_a_candidate_that_is_watched_no_longer_takes_no_memory(
    running: Running, factory_bundle: Callable[[str], Path]
) -> None:
    watch = running.models.shadow(factory_bundle("fall-waist"), None)
    gone = weakref.ref(watch)
    watch.close()
    del watch
    gc.collect()
    assert gone() is None
