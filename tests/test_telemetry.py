"""Reports: differences of running totals, in fixed bins, and an alarm of a weak supply."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rt.core import telemetry
from edge_rt.core.latency import LatencyRecorder, between
from edge_rt.core.telemetry import FallTotals, Histogram, PowerWatch, Vitals, When, score_edges

WHEN = When("2026-01-31T12:00:00.000Z", True, "b" * 32, "1000", 10.0)


def test_between_two_snapshots_only_what_came_between_counts() -> None:
    recorder = LatencyRecorder(("a", "b"))
    recorder.record("a", 5.0)
    before = recorder.snapshot()
    assert between(before, recorder.snapshot()) == {}
    seconds = np.random.default_rng(1).exponential(0.002, 400)
    for value in seconds:
        recorder.record("a", float(value))
    (row,) = between(before, recorder.snapshot()).values()
    assert row["count"] == 400
    assert row["mean_ms"] == pytest.approx(1e3 * seconds.mean(), rel=1e-6)
    exact = 1e3 * float(np.percentile(seconds, 99, method="inverted_cdf"))
    assert row["p99_ms"] == pytest.approx(exact, rel=0.032)
    assert row["max_ms"] == pytest.approx(1e3 * seconds.max(), rel=0.032)


def test_a_recorder_that_was_reset_counts_from_there() -> None:
    recorder = LatencyRecorder(("a",))
    for _ in range(3):
        recorder.record("a", 0.5)
    before = recorder.snapshot()
    recorder.reset()
    recorder.record("a", 0.001)
    assert between(before, recorder.snapshot())["a"]["count"] == 1
    assert between(before, recorder.snapshot())["a"]["mean_ms"] == pytest.approx(1.0)


def test_bins_are_open_at_the_ends_and_an_edge_belongs_above() -> None:
    histogram = Histogram((-1.0, 0.0, 1.0))
    for value in (-1e9, -1.0, -0.5, 0.0, 0.999, 1.0, 1e9, float("inf")):
        histogram.add(value)
    assert histogram.counts == [1, 2, 2, 3]
    assert all(0 < edge < 1 for edge in score_edges("probability"))
    assert min(score_edges("logit")) < -1.5 < 1.5 < max(score_edges("logit"))


def totals(scores: tuple[int, ...], **signal: int) -> FallTotals:
    base = {"samples": 0, "saturated": 0, "not_finite": 0, "gaps": 0}
    return FallTotals(LatencyRecorder(()).snapshot(), (0.0,), scores, base | signal)


def decoded(payload: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(payload)
    assert {"time", "clocktrusted", "bootid", "monotonicms", "period_s"} <= set(found)
    return found


def test_scores_and_input_are_of_the_period() -> None:
    before = totals((100, 7), samples=5000, saturated=90, gaps=3)
    after = totals((140, 9), samples=5500, saturated=95, not_finite=50, gaps=4)
    score = decoded(telemetry.scores(WHEN, before, after))
    assert (score["edges"], score["counts"]) == ([0.0], [40, 2])
    quality = decoded(telemetry.input_quality(WHEN, before, after, {"seen": {"blurred": 2}}))
    assert quality["accelerometer"] == {
        "samples": 500,
        "gaps": 1,
        "rate_hz": 50.0,
        "saturated_share": 0.01,
        "not_finite_share": 0.1,
    }
    assert quality["camera"] == {"seen": {"blurred": 2}}


def test_a_total_that_started_anew_counts_from_there_and_no_samples_give_no_share() -> None:
    before, after = totals((9, 9), gaps=8), totals((2, 9), gaps=3)
    assert decoded(telemetry.scores(WHEN, before, after))["counts"] == [2, 0]
    found = decoded(telemetry.input_quality(WHEN, before, after, None))["accelerometer"]
    assert (found["gaps"], found["rate_hz"], found["saturated_share"]) == (3, 0.0, None)


def test_parts_that_are_not_there_are_null() -> None:
    assert decoded(telemetry.latency(WHEN, None, None, None))["falls"] is None
    health = decoded(telemetry.health(WHEN, Vitals(temperature_c=48.5), {"version": "1"}))
    assert (health["temperature_c"], health["under_voltage"], health["version"]) == (
        48.5,
        None,
        "1",
    )


GOOD = Vitals(under_voltage=False, under_voltage_seen=False)
WEAK = Vitals(under_voltage=True, under_voltage_seen=True)
OVER = Vitals(under_voltage=False, under_voltage_seen=True)


def told(watch: PowerWatch, *looks: tuple[float, Vitals]) -> list[float]:
    return [now_s for now_s, vitals in looks if watch.look(vitals, now_s) is not None]


def test_a_weak_supply_is_told_once_until_it_has_held_for_a_while() -> None:
    watch = PowerWatch(clear_s=60)
    flapping = [(float(t), WEAK if t % 10 else OVER) for t in range(5, 100, 5)]
    assert told(watch, (0, GOOD), *flapping) == [5]
    assert told(watch, (100, OVER), (159, OVER), (159.5, WEAK)) == []
    assert told(watch, (160, OVER), (220, OVER), (225, WEAK)) == [225]


def test_a_dip_between_two_looks_is_told_and_one_before_the_first_is_not() -> None:
    watch = PowerWatch()
    assert watch.look(GOOD, 0) is None
    assert watch.look(OVER, 5) == {"reason": "under_voltage", "now": False}
    assert told(PowerWatch(), (0, OVER), (5, OVER)) == []
    assert told(PowerWatch(), (0, WEAK)) == [0]


def test_a_kernel_that_tells_nothing_is_no_alarm() -> None:
    assert told(PowerWatch(), *((float(t), Vitals()) for t in range(100))) == []
    only_now = Vitals(under_voltage=True)
    assert told(PowerWatch(), (0, Vitals(under_voltage=False)), (5, only_now)) == [5]
