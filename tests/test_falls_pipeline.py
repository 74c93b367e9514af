"""falls.pipeline, with a scorer that plays a score sheet."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_rt.bundle import Bundle, open_bundle
from edge_rt.core.fall import Event, FallRules, State, WrongState
from edge_rt.core.hop import Hop
from edge_rt.core.timebase import ClockCounters
from edge_rt.core.types import SampleBlock
from edge_rt.falls.pipeline import Announcement, FallPipeline

RATE_HZ = 50.0
HOP = 8  # samples
RULES = FallRules(threshold=0.0, suspicion=-2.0, window_s=3.88, clear_s=4.7)
FLAT = (0.0, 0.0, 1.0)


class ScoreSheet:
    """A scorer that says high in the given spans of its own clock, and breaks on demand."""

    def __init__(self, high: Sequence[tuple[float, float]] = ()) -> None:
        self.high = high
        self.counters = ClockCounters()
        self.breaks = False
        self.resets = 0
        self.swapped: list[Bundle] = []

    def push(self, block: SampleBlock) -> list[Hop]:
        if self.breaks:
            raise ZeroDivisionError("a bug in the detector")
        hops = []
        for t_s in block.t_s[HOP - 1 :: HOP].tolist():
            mean = 3.0 if any(begin <= t_s < end for begin, end in self.high) else -8.0
            hops.append(Hop(t_s, mean, mean, 1.1, 0.2, FLAT))
        return hops

    def reset(self) -> None:
        self.resets += 1

    def swap(self, bundle: Bundle) -> None:
        self.swapped.append(bundle)

    def branch(self) -> Callable[[Bundle], ScoreSheet]:
        return lambda bundle: self


class Bench:
    """A pipeline on a score sheet, fed second by second."""

    def __init__(self, *high: tuple[float, float], **options: bool) -> None:
        self.scorer = ScoreSheet(high)
        numbers = itertools.count(1)
        self.pipeline = FallPipeline(
            self.scorer, RULES, lambda: f"incident-{next(numbers)}", range_g=16.0, **options
        )
        self.rng = np.random.default_rng(2)
        self.t_s = 0.0
        self.said: list[Announcement] = []

    def feed(self, seconds: float) -> None:
        for _ in range(round(seconds * RATE_HZ / HOP)):
            t_s = self.t_s + np.arange(1, HOP + 1) / RATE_HZ
            self.t_s = float(t_s[-1])
            acc = self.rng.normal(0.0, 0.1, (HOP, 3)) + [0.0, 0.0, 1.0]
            self.said += self.pipeline.push(SampleBlock(t_s, acc.astype(np.float32)))

    def wait(self, seconds: float) -> None:
        """No samples, a tick each second of what the source's clock would say."""
        for k in range(1, round(seconds) + 1):
            self.said += self.pipeline.tick(self.t_s + k)

    @property
    def words(self) -> list[str]:
        return [f"{said.kind}.{said.what}" for said in self.said]


def test_a_fall_is_announced_with_incident_and_reasons() -> None:
    bench = Bench((10.0, 12.0), simulated=True)
    bench.feed(40)
    bench.said += bench.pipeline.command(Event.RESOLVE, bench.t_s, by="button")
    assert bench.words == ["fall.suspected", "fall.prealarm", "fall.alarm", "fall.resolved"]
    for said in bench.said:
        assert said.data["incident"] == "incident-1"
        assert said.data["simulated"] is True
        assert said.data["why"]["threshold"] == 0.0
    assert bench.said[-1].data["why"]["by"] == "button"
    json.dumps([said.data for said in bench.said], allow_nan=False)
    json.dumps(bench.pipeline.status(), allow_nan=False)


def test_a_failing_detector_costs_a_window_but_no_incident() -> None:
    bench = Bench((10.0, 12.0))
    bench.feed(13)
    bench.scorer.breaks = True
    bench.feed(2)
    assert bench.scorer.resets == round(2 * RATE_HZ / HOP)
    status = bench.pipeline.status()
    assert status["state"] == "prealarm"
    assert status["detector_failures"] == bench.scorer.resets
    assert status["detector_problem"] == "ZeroDivisionError: a bug in the detector"
    bench.wait(20)
    assert bench.words[-1] == "fall.alarm"
    bench.scorer.breaks = False
    bench.feed(2)
    assert bench.pipeline.machine.state is State.ALARM


def test_time_outs_fire_without_samples_and_agree_with_the_samples_clock() -> None:
    waited = []
    for silent in (False, True):
        bench = Bench((10.0, 12.0))
        bench.feed(13)
        (bench.wait if silent else bench.feed)(25)
        waited.append(bench.said[-1].data["why"]["waited_s"])
    assert waited == [pytest.approx(20.0, abs=0.2), pytest.approx(20.0, abs=1.0)]


@pytest.mark.parametrize("jump_s", [-1000.0, -6.0, -2.0])
def test_a_source_that_starts_anew_neither_stretches_nor_eats_the_window(jump_s: float) -> None:
    bench = Bench((1010.0, 1012.0))
    bench.t_s = 1000.0
    bench.feed(13)
    assert bench.words[-1] == "fall.prealarm"
    bench.t_s += jump_s
    bench.feed(15)
    assert bench.words[-1] == "fall.prealarm"
    bench.feed(15)
    assert bench.words[-1] == "fall.alarm"


def test_a_restored_prealarm_keeps_what_was_left_of_its_window() -> None:
    before = Bench((10.0, 12.0))
    before.feed(20)
    after = Bench()
    after.pipeline.restore(json.loads(json.dumps(before.pipeline.save())))
    after.t_s = 7000.0  # the source's clock of another boot
    after.feed(8)
    assert after.pipeline.machine.state is State.PREALARM
    after.feed(5)
    assert after.words == ["fall.alarm"]
    assert after.said[0].data["incident"] == "incident-1"


def test_a_restored_prealarm_times_out_even_if_no_sensor_ever_answers() -> None:
    before = Bench((10.0, 12.0))
    before.feed(20)
    after = Bench()
    after.pipeline.restore(before.pipeline.save())
    after.wait(15)
    assert after.words == ["fall.alarm"]


def test_waiting_for_the_first_sample_leaves_the_source_its_clock() -> None:
    bench = Bench((1005.0, 1007.0))
    bench.wait(3)
    bench.t_s = 1000.0
    bench.feed(8)
    assert bench.words == ["fall.suspected", "fall.prealarm"]
    assert bench.said[-1].data["why"]["t_s"] == pytest.approx(1005.1, abs=0.2)


def test_help_before_the_first_sample() -> None:
    bench = Bench()
    bench.said += bench.pipeline.command(Event.HELP, 0.0, by="cli")
    bench.feed(5)
    assert bench.words == ["fall.alarm"]
    with pytest.raises(WrongState):
        bench.pipeline.command(Event.DISARM, bench.t_s, by="cli")


def test_clock_steps_and_a_frozen_sensor_are_device_events() -> None:
    bench = Bench()
    bench.feed(2)
    bench.scorer.counters.clock_steps = 2
    bench.feed(2)
    assert bench.words == ["device.clock_stepped"]
    assert bench.said[0].data["steps"] == 2
    for k in range(100):
        t_s = bench.t_s + k * 0.16 + np.arange(1, HOP + 1) / RATE_HZ
        bench.said += bench.pipeline.push(SampleBlock(t_s, np.ones((HOP, 3), np.float32)))
    assert bench.words == ["device.clock_stepped", "device.sensor_lost"]
    assert bench.pipeline.status()["signal"] == "frozen"


def test_latencies_are_kept_by_stage() -> None:
    bench = Bench()
    bench.feed(4)
    latency = bench.pipeline.status()["latency"]
    assert set(latency) == {"detector", "alarm", "push"}
    assert latency["push"]["count"] == bench.pipeline.status()["hops"] == 25


def test_totals_for_telemetry_count_scores_samples_and_faults() -> None:
    bench = Bench((2.0, 3.0))
    bench.scorer.counters.gaps = 2
    bench.feed(4)
    totals = bench.pipeline.totals()
    low, high = totals.scores[1], totals.scores[totals.edges.index(3.0) + 1]
    assert totals.edges[0] == -8.0, "a score of -8 lies in the second bin"
    assert (low + high, high) == (25, 6)
    assert sum(totals.scores) == bench.pipeline.hops == 25
    assert totals.signal["gaps"] == 2 and totals.signal["samples"] >= 150
    assert sum(totals.latency.counts["push"]) == 25


def test_another_bundle_brings_its_rules_and_keeps_the_incident(
    factory_bundle: Callable[[str], Path],
) -> None:
    bench = Bench((10.0, 12.0), armed=True)
    bench.feed(13)
    strict = FallRules(threshold=5.0, suspicion=4.0, window_s=3.88, clear_s=4.7)
    bundle = open_bundle(factory_bundle("fall-waist"))
    bench.pipeline.swap(bundle, strict)
    assert bench.scorer.swapped == [bundle]
    bench.feed(25)
    assert bench.words[-1] == "fall.alarm"
    assert bench.said[-1].data["why"]["threshold"] == 5.0
