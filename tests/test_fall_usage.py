"""What a fall model has done on this device, and what of it a trial counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.latency import LatencyRecorder
from edge_rt.core.trial import TrialPolicy
from edge_rt.core.wire import Event
from edge_rt.runtime.fall_usage import LEAST_BLOCKS, MAX_LOOK_S, MAX_MODELS, FallUsage, History
from edge_rt.runtime.fall_watches import TrialWatch
from edge_rt.runtime.teller import Notice

OLD, NEW = "fall-waist 1.0.0", "fall-waist 1.1.0"
# Nothing here is about the rate of alarms but for the test that says so.
LENIENT = TrialPolicy(span_h=2.0, most_per_day=1e6)


class Bench:
    """Usage with a clock and a sensor of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1000.0
        self.watching = True
        self.latency = LatencyRecorder(["push"])
        self.file = StateFile(folder / "history.json", History)
        self.usage = self.start()

    def start(self) -> FallUsage:
        self.usage = FallUsage(
            self.file, lambda: self.watching, self.latency.snapshot, lambda: self.now_s
        )
        return self.usage

    def pass_h(self, hours: float) -> None:
        for _ in range(round(hours * 60)):
            self.now_s += 60.0
            self.usage.look()

    def raise_alarm(self, label: str, what: str = "prealarm") -> None:
        data: dict[str, Any] = {"incident": "i", "why": {}}
        event = Event(
            **{"id": "1", "source": "/edge-rt/home/hall", "type": f"edge_rt.fall.{what}"},
            **{"time": "2026-01-01T00:00:00Z", "data": data, "bootid": "b", "monotonicms": "1"},
            clocktrusted=True,
            modelversion=label,
        )
        self.usage.notice(Notice(event, True))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.usage.switch(OLD)
    return made


def test_hours_count_while_samples_come_and_alarms_by_their_model(bench: Bench) -> None:
    bench.pass_h(1.0)
    bench.watching = False
    bench.pass_h(1.0)
    bench.watching = True
    bench.now_s += MAX_LOOK_S + 1.0  # a stopped process
    bench.raise_alarm(OLD)
    bench.raise_alarm(NEW)
    bench.raise_alarm(OLD, "alarm")  # a stage of the same incident, or a call for help
    bench.usage.look()
    assert bench.usage.live.hours == pytest.approx(1.0)
    assert bench.usage.live.alarms == 1


def test_a_p99_of_a_handful_is_none(bench: Bench) -> None:
    for _ in range(LEAST_BLOCKS - 1):
        bench.latency.record("push", 0.002)
    bench.usage.look()
    assert bench.usage.live.p99_ms is None
    bench.latency.record("push", 0.002)
    bench.usage.look()
    assert bench.usage.live.p99_ms == pytest.approx(2.0, rel=0.05)


def test_history_outlives_a_start_and_is_bounded(bench: Bench) -> None:
    bench.pass_h(3.0)
    bench.usage.save()
    bench.start().switch(OLD)
    assert bench.usage.live.hours == pytest.approx(3.0)
    for n in range(10):
        bench.usage.switch(f"fall-waist 2.{n}.0")
    bench.usage.save()
    kept = bench.file.load()
    assert kept is not None and len(kept.models) == MAX_MODELS
    bench.file.file.path.write_bytes(b"damaged")
    bench.start().switch(OLD)
    assert bench.usage.live.hours == 0.0


def test_a_trial_counts_from_its_begin_and_compares_with_the_model_before(bench: Bench) -> None:
    bench.pass_h(30.0)
    for _ in range(4):
        bench.raise_alarm(OLD)
    bench.usage.switch(NEW)
    watch = TrialWatch(bench.usage, LENIENT, None, "boot")
    bench.pass_h(1.0)
    bench.raise_alarm(NEW)
    bench.usage.look()
    assert watch.verdict() is None
    tally = watch.seen()["tally"]
    assert (tally["hours"], tally["alarms"]) == (pytest.approx(1.0), 1)
    assert (tally["before_hours"], tally["before_alarms"]) == (pytest.approx(30.0), 4)
    bench.pass_h(1.1)
    verdict = watch.verdict()
    assert verdict is not None and verdict.passed
    assert verdict.figures["hours"] == pytest.approx(2.1)


@pytest.mark.parametrize(("clean", "passed"), [(True, True), (False, False)])
def test_ends_that_nobody_asked_for_end_a_trial(bench: Bench, clean: bool, passed: bool) -> None:
    verdict = tried(bench, ["boot"] * 3, clean=clean).verdict()
    assert verdict is not None and verdict.passed is passed
    if not passed:
        assert "the daemon ended 2 times" in verdict.reasons[0] and verdict.final


def tried(bench: Bench, boots: Sequence[str], *, clean: bool = False, hours: float = 0.8):
    """The last watch of a trial over a start in each of these boots."""
    seen = None
    for boot_id in boots:
        bench.start().switch(NEW)
        watch = TrialWatch(bench.usage, LENIENT, seen, boot_id)
        bench.pass_h(hours)
        if clean:
            watch.close()
        seen = watch.seen()
    return watch


def test_power_cuts_end_a_trial_only_when_there_are_many(bench: Bench) -> None:
    verdict = tried(bench, "abc").verdict()
    assert verdict is not None and verdict.passed and verdict.figures["cuts"] == 2
    assert tried(bench, "abcdef", hours=0.2).verdict() is None
    verdict = tried(bench, "abcdefg", hours=0.2).verdict()
    assert verdict is not None and not verdict.passed and not verdict.final
    assert verdict.reasons == ("the machine was cut off or reset 6 times, 5 are allowed",)


def test_a_trial_saved_before_boots_were_counts_as_crashed(bench: Bench) -> None:
    seen = tried(bench, "a").seen()
    del seen["boot_id"], seen["tally"]["cuts"]
    tally = TrialWatch(bench.usage, LENIENT, seen, "b").seen()["tally"]
    assert (tally["crashes"], tally["cuts"]) == (1, 0)


def test_too_many_alarms_end_a_trial(bench: Bench) -> None:
    bench.usage.switch(NEW)
    watch = TrialWatch(bench.usage, TrialPolicy(span_h=24.0), None, "boot")
    bench.pass_h(1.0)
    for _ in range(6):
        bench.raise_alarm(NEW)
    bench.usage.look()
    verdict = watch.verdict()
    assert verdict is not None and not verdict.passed
    assert "6 alarms in 1.0 h" in verdict.reasons[0]
