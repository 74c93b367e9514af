"""core.latency against exact percentiles of the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.latency import LatencyRecorder


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_percentiles_are_within_the_stated_error(percent: float) -> None:
    seconds = np.random.default_rng(5).lognormal(mean=-8.0, sigma=2.0, size=5000)
    recorder = LatencyRecorder(("invoke",))
    for value in seconds.tolist():
        recorder.record("invoke", value)
    exact = float(np.percentile(seconds, percent, method="inverted_cdf"))
    assert recorder.percentile("invoke", percent) == pytest.approx(exact, rel=0.032)


def test_stages_are_apart_and_unknown_ones_are_an_error() -> None:
    recorder = LatencyRecorder(("a", "b"))
    recorder.record("a", 0.002)
    assert recorder.count("a") == 1
    assert recorder.percentile("b", 50) is None
    assert list(recorder.summary()) == ["a"]
    with pytest.raises(KeyError):
        recorder.record("c", 0.002)
    with pytest.raises(ValueError):
        recorder.percentile("a", 101)


def test_extremes_are_clamped_and_the_longest_is_exact() -> None:
    recorder = LatencyRecorder(("a",))
    for value in (-1.0, 0.0, 1e-9, 1e6):
        recorder.record("a", value)
    assert recorder.count("a") == 4
    assert recorder.summary()["a"]["max_ms"] == 1e9
    assert isinstance(recorder.summary()["a"]["count"], int)  # JSON shows 4, not 4.0
    assert recorder.summary()["a"]["p50_ms"] < 0.001


def test_reset_forgets() -> None:
    recorder = LatencyRecorder(("a",))
    recorder.record("a", 1.0)
    recorder.reset()
    assert recorder.summary() == {}
