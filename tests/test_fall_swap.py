"""Another model between two blocks: no sample or window is lost or doubled, no fall is missed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rt.adapters.accel_replay import ReplayAccelerometer
from edge_rt.bundle import Bundle, open_bundle
from edge_rt.core.errors import ManifestError
from edge_rt.core.fall import rules_for
from edge_rt.core.hop import Hop
from edge_rt.core.types import SampleBlock
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.falls.simulate import DEMO_SCRIPT, simulate
from edge_rt.runtime.fall_service import FallService, NextModel

RATE_HZ = 50.0
SPEED = 40.0
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def waist(request: pytest.FixtureRequest) -> Callable[[], Bundle]:
    find = request.getfixturevalue("factory_bundle")
    return lambda: open_bundle(find("fall-waist"))


@pytest.fixture(scope="module")
def stream() -> SampleBlock:
    """A day in a minute, with a fall near its end; stamps as even as a sensor's own clock."""
    return simulate(DEMO_SCRIPT, 3, rate_hz=RATE_HZ, placement="waist").block


class Watch:
    """A fall service on a replayed stream, and all that it was shown and told."""

    def __init__(self, bundle: Bundle, stream: SampleBlock) -> None:
        self.bundle = bundle
        self.samples = 0
        self.hops: list[Hop] = []
        self.told: list[tuple[str, Mapping[str, Any], str]] = []
        self.ended = threading.Event()
        source = ReplayAccelerometer(stream, rate_hz=RATE_HZ, speed=SPEED)
        self.pipeline = FallPipeline(
            FallDetector(bundle, rate_hz=RATE_HZ),
            rules_for(bundle.manifest),  # type: ignore[arg-type]
            lambda: uuid.uuid4().hex,
            range_g=16.0,
        )
        self.service = FallService(
            self.pipeline,
            source,
            self.announcer("first"),
            lambda saved: None,
            time.monotonic,
            lost_s=5.0,
            speed=SPEED,
        )
        self.service.listen(self.see)

    def announcer(self, name: str) -> Callable[[str, str, Mapping[str, Any]], None]:
        return lambda kind, what, data: self.told.append((f"{kind}.{what}", data, name))

    def see(self, block: SampleBlock, hops: Sequence[Hop]) -> None:
        self.samples += len(block.t_s)
        self.hops += hops

    def model(self, bundle: Bundle, name: str) -> NextModel:
        rules = rules_for(bundle.manifest)  # type: ignore[arg-type]
        return NextModel(bundle, rules, self.announcer(name), 5.0)

    def run(self, between: Callable[[], None]) -> None:
        """Play the stream to its end, calling `between` again and again meanwhile."""
        self.service.start()
        end_s = time.monotonic() + PATIENCE_S
        while self.service.status()["sensor"] != "ended":
            assert time.monotonic() < end_s, self.service.status()
            between()


@pytest.fixture
def watching(waist: Callable[[], Bundle], stream: SampleBlock) -> Iterator[Watch]:
    watch = Watch(waist(), stream)
    yield watch
    watch.service.close()


def test_swapping_all_the_time_changes_no_window(
    watching: Watch, waist: Callable[[], Bundle], stream: SampleBlock
) -> None:
    """The same model again and again: what a stream without a swap gives, hop by hop."""
    expected = FallDetector(waist(), rate_hz=RATE_HZ).push(stream)
    swaps: list[dict[str, Any]] = []
    watching.run(
        lambda: swaps.append(watching.service.swap(watching.model(waist(), "next")).result(10))
    )
    assert len(swaps) > 10 and watching.samples == len(stream.t_s)
    assert [hop.t_s for hop in watching.hops] == [hop.t_s for hop in expected]
    steps = np.diff([hop.t_s for hop in watching.hops])
    assert np.allclose(steps, steps[0]), "the grid has a gap"
    assert [h._replace(flags=0) for h in watching.hops] == [h._replace(flags=0) for h in expected]


def test_a_model_with_other_hops_goes_on_within_one_of_its_own(
    watching: Watch, waist: Callable[[], Bundle]
) -> None:
    done: list[dict[str, Any]] = []

    def swap_once() -> None:
        if not done and watching.service.status()["hops"] > 5:
            bundle = waist()
            grid = msgspec.structs.replace(bundle.manifest.input, hop=bundle.manifest.input.hop + 3)  # type: ignore[union-attr]
            other = bundle._replace(manifest=msgspec.structs.replace(bundle.manifest, input=grid))  # type: ignore[arg-type,type-var]
            done.append(watching.service.swap(watching.model(other, "next")).result(10))

    watching.run(swap_once)
    times = [hop.t_s for hop in watching.hops]
    steps = np.round(np.diff(times), 6)
    old, new = steps[0], steps[-1]
    odd = [k for k, step in enumerate(steps) if step not in (old, new)]
    # One of its own hops after the newest sample, which is at most an old hop past the last one.
    assert new > old and len(odd) <= 1 and all(0 < steps[k] < new + old for k in odd)
    assert done[0]["t_s"] == pytest.approx(times[done[0]["hops"] - 1], abs=2e-3)


def test_a_fall_in_progress_is_one_incident(watching: Watch, waist: Callable[[], Bundle]) -> None:
    names = iter(range(10_000))
    seen: set[str] = set()

    def swap() -> None:
        seen.add(watching.service.alarm_state()[0])
        watching.service.swap(watching.model(waist(), f"model {next(names)}")).result(10)

    watching.run(swap)
    stages = [(what, data["incident"], by) for what, data, by in watching.told if "fall" in what]
    assert [what for what, _, _ in stages][-2:] == ["fall.prealarm", "fall.alarm"]
    assert len({incident for _, incident, _ in stages}) == 1
    assert "prealarm" in seen, "swaps have met the open incident"
    assert stages[-1][2] > "model", "the present model announces"


def test_a_bundle_of_another_task_changes_nothing(
    watching: Watch, factory_bundle: Callable[[str], Path], waist: Callable[[], Bundle]
) -> None:
    face = open_bundle(factory_bundle("face-detect"))
    model = watching.model(waist(), "first")._replace(bundle=face)
    refused: list[Exception | None] = []
    watching.run(lambda: refused.append(watching.service.swap(model).exception(10)))
    assert refused and all(isinstance(error, ManifestError) for error in refused)
    assert [what for what, _, _ in watching.told][-1] == "fall.alarm"
    assert watching.service.status()["detector_failures"] == 0
    assert watching.bundle is not face


def test_who_looks_on_and_fails_is_left_out(watching: Watch) -> None:
    calls: list[int] = []

    def bad(block: SampleBlock, hops: Sequence[Hop]) -> None:
        calls.append(len(hops))
        raise RuntimeError("a bug in who looks on")

    watching.service.listen(bad)
    watching.run(lambda: time.sleep(0.01))
    assert len(calls) == 1
    assert [what for what, _, _ in watching.told][-1] == "fall.alarm"
