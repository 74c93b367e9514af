"""From samples to announcements, with the factory models: simulated and recorded people."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_rt.adapters.accel_replay import Fault, ReplayAccelerometer
from edge_rt.adapters.trials import read_trials
from edge_rt.bundle import open_bundle
from edge_rt.core.errors import SensorError
from edge_rt.core.fall import Event, State, rules_for
from edge_rt.core.manifest import FallManifest
from edge_rt.core.types import SampleBlock
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import Announcement, FallPipeline
from edge_rt.falls.simulate import DEMO_SCRIPT, Simulation, challenge, simulate

Build = Callable[..., FallPipeline]
TICK_S = 1.0


@pytest.fixture
def build(factory_bundle: Callable[[str], Path]) -> Build:
    def make(rate_hz: float, range_g: float = 16.0, placement: str = "waist") -> FallPipeline:
        bundle = open_bundle(factory_bundle(f"fall-{placement}"))
        assert isinstance(bundle.manifest, FallManifest)
        numbers = itertools.count(1)
        return FallPipeline(
            FallDetector(bundle, rate_hz=rate_hz, range_g=range_g),
            rules_for(bundle.manifest),
            lambda: f"incident-{next(numbers)}",
            range_g=range_g,
            simulated=True,
        )

    return make


def play(pipeline: FallPipeline, source: ReplayAccelerometer) -> Iterator[Announcement]:
    """Read to the end, as a daemon would: an unplugged sensor is opened again, time goes on."""
    source.open()
    newest_s = 0.0
    while True:
        try:
            block = source.read(0.5)
        except EOFError:
            return
        except SensorError:
            yield from pipeline.tick(newest_s + TICK_S)
            source.open()
            continue
        if block is not None:
            yield from pipeline.push(block)
            newest_s = float(block.t_s[-1])


def stages(said: list[Announcement]) -> list[str]:
    """Fall stages of incidents that got further than a suspicion."""
    serious = {one.data["incident"] for one in said if one.what == "prealarm"}
    return [one.what for one in said if one.kind == "fall" and one.data["incident"] in serious]


def replay(simulation: Simulation, **options: object) -> ReplayAccelerometer:
    return ReplayAccelerometer(
        simulation.block,
        rate_hz=simulation.rate_hz,
        range_g=simulation.range_g,
        speed=None,
        **options,
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_alarms_once_for_the_fall_and_not_for_the_stumble(build: Build, seed: int) -> None:
    simulation = simulate(DEMO_SCRIPT, seed)
    pipeline = build(50.0)
    said = list(play(pipeline, replay(simulation)))
    assert stages(said) == ["suspected", "prealarm", "alarm"]
    impact_s = next(label.start_s for label in simulation.labels if label.what == "impact")
    prealarm = next(one for one in said if one.what == "prealarm")
    assert 0.0 < prealarm.data["why"]["t_s"] - impact_s < 2.0
    assert prealarm.data["why"]["in_time"] is True
    alarm = said[-1].data
    assert alarm["why"]["event"] == "still"  # lying still, so not the whole window is waited for
    assert alarm["why"]["posture"] == "lying"
    assert alarm["simulated"] is True
    assert pipeline.status()["detector_failures"] == 0


def test_simulated_falls_are_found_and_simulated_days_are_quiet(build: Build) -> None:
    outcome: dict[bool, list[bool]] = {True: [], False: []}
    for case in challenge(2026, 40):
        pipeline = build(50.0)
        said = list(play(pipeline, replay(case.simulation)))
        outcome[case.is_fall].append("prealarm" in stages(said))
    assert sum(outcome[True]) >= 36  # some are soft: half seated, half held
    assert sum(outcome[False]) == 0


@pytest.mark.release
@pytest.mark.parametrize(
    ("rate_hz", "range_g"), [(50.0, 16.0), (100.0, 8.0), (25.0, 16.0), (200.0, 4.0)]
)
def test_the_challenge_at_other_rates_and_ranges(
    build: Build, rate_hz: float, range_g: float
) -> None:
    outcome: dict[bool, list[bool]] = {True: [], False: []}
    for case in challenge(7, 280, rate_hz=rate_hz, range_g=range_g):
        said = list(play(build(rate_hz, range_g), replay(case.simulation)))
        outcome[case.is_fall].append("prealarm" in stages(said))
    assert np.mean(outcome[True]) >= 0.9
    assert np.mean(outcome[False]) <= 0.01


def test_a_sensor_that_is_pulled_in_the_cancel_window_still_alarms(build: Build) -> None:
    simulation = simulate(DEMO_SCRIPT, 0)
    impact_s = next(label.start_s for label in simulation.labels if label.what == "impact")
    pipeline = build(50.0)
    source = replay(simulation, faults=[Fault(kind="gap", at_s=impact_s + 2.5, seconds=1e3)])
    said = list(play(pipeline, source))
    assert stages(said) == ["suspected", "prealarm"]
    for waited in range(1, 25):
        said += pipeline.tick(impact_s + 2.5 + waited)
    assert stages(said) == ["suspected", "prealarm", "alarm"]
    assert said[-1].data["why"]["event"] == "timeout"


def test_trouble_around_the_fall_loses_nothing(build: Build) -> None:
    """NaN, a short gap, a clock step and an unplugged minute, all with an incident open."""
    script = (*DEMO_SCRIPT, ("lie", 40.0))
    simulation = simulate(script, 1)
    impact_s = next(label.start_s for label in simulation.labels if label.what == "impact")
    source = replay(
        simulation,
        faults=[
            Fault(kind="nan", at_s=impact_s - 8.0, seconds=0.3),
            Fault(kind="gap", at_s=impact_s - 6.0, seconds=0.2),
            Fault(kind="nan", at_s=impact_s + 4.0, seconds=1.5),
            Fault(kind="clock_step", at_s=impact_s + 6.0, step_s=-100.0),
            Fault(kind="unplug", at_s=impact_s + 8.0, seconds=3.0),
        ],
    )
    pipeline = build(50.0)
    said = list(play(pipeline, source))
    assert stages(said) == ["suspected", "prealarm", "alarm"]
    assert "clock_stepped" in [one.what for one in said if one.kind == "device"]
    assert pipeline.machine.state is State.ALARM
    said += pipeline.command(Event.RESOLVE, 0.0, by="test")
    assert len({one.data["incident"] for one in said if one.what in ("alarm", "resolved")}) == 1


@pytest.mark.parametrize("samples", [1, 7, 1000])
def test_announcements_do_not_depend_on_how_samples_are_cut(build: Build, samples: int) -> None:
    block = simulate(DEMO_SCRIPT, 2).block
    pipeline = build(50.0)
    said: list[Announcement] = []
    for at in range(0, len(block.t_s), samples):
        said += pipeline.push(SampleBlock(*(part[at : at + samples] for part in block)))
    whole = build(50.0).push(block)
    assert [one for one in said if one.kind == "fall"] == [
        one for one in whole if one.kind == "fall"
    ]


@pytest.mark.parametrize(("trial", "falls"), [("F01_SA01_R01", True), ("D07_SA01_R01", False)])
def test_recorded_people(build: Build, shared: Path, trial: str, falls: bool) -> None:
    """One fall and one sitting down of SisFall; the figures are in the evaluation's tests."""
    recording = next(
        one
        for one in read_trials(shared / "data" / "falls" / "sisfall" / "SA01.npz")
        if one.trial == trial
    )
    assert recording.is_fall is falls
    source = ReplayAccelerometer(
        SampleBlock(recording.times_s(), recording.acc_g), rate_hz=recording.rate_hz, speed=None
    )
    pipeline = build(recording.rate_hz)
    said = list(play(pipeline, source))
    assert stages(said) == (["suspected", "prealarm"] if falls else [])
