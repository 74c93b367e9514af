"""The benchmark's arithmetic and its parts at the smallest size; its speeds are nobody's test."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models as tiny

from edge_rt.bundle import Bundle, open_bundle
from edge_rt.cli import main
from edge_rt.evaluation.bench import (
    RATE_HZ,
    Effort,
    Stopwatch,
    bench_falls,
    bench_wrapper,
    machine,
    percentiles,
    simulated_stream,
)
from edge_rt.runtime.footprint import family, measure

Find = Callable[[str], Path]
TINY = Effort(minutes=0.5, repeats=1, rounds=4, frames=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bench") / "b"
    tiny.bundle(folder, tiny.scorer(50, 2), 50, ("jerk", "magnitude"))
    return open_bundle(folder)


def test_percentiles_are_in_milliseconds() -> None:
    got = percentiles([k / 1000 for k in range(101)])
    assert got == {"n": 101, "p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}


def test_a_stopwatch_gives_each_lap_to_its_stage() -> None:
    watch = Stopwatch()
    for _ in range(3):
        watch.start()
        watch.lap("a")
        sum(range(20_000))
        watch.lap("b")
    laps = watch.summary()
    assert laps["a"]["n"] == laps["b"]["n"] == 3
    assert laps["a"]["p50_ms"] < laps["b"]["p50_ms"]


def test_the_stream_is_even_and_as_long_as_asked() -> None:
    stream = simulated_stream(90.0, "wrist")
    assert len(stream.t_s) == len(stream.acc_g) == 90 * RATE_HZ
    assert stream.t_s[-1] == pytest.approx(90.0 - 1 / RATE_HZ)


def test_falls_are_measured_by_stage(bundle: Bundle) -> None:
    result = bench_falls(bundle, TINY)
    hops = TINY.minutes * 60 * bundle.manifest.input.rate_hz / bundle.manifest.input.hop
    assert result["engine"] == bundle.interpreter.engine
    for stage in ("clock", "resample and channels", "quantize", "invoke", "alarm machine"):
        row = result["stages"][stage]
        assert row["n"] == hops and 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert result["last_sample_to_decision"]["n"] == pytest.approx(hops, abs=3)
    assert result["live_cpu_percent"] > 0 and result["replay_x_real_time"] > 1


def test_the_wrapper_is_compared_with_the_bare_engine(bundle: Bundle) -> None:
    result = bench_wrapper(bundle, TINY)
    assert result["bare_us"] > 0 and math.isfinite(result["extra_us"])
    assert 0.2 < result["ratio"] < 20


def test_the_machine_is_named() -> None:
    about = machine()
    assert about["cpu"] and about["cores"] >= 1 and about["python"]


def test_a_family_is_a_process_and_all_below_it() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        try:
            while len(found := family(child.pid)) < 2:
                assert child.poll() is None
            assert found[0] == child.pid
            assert set(found) < set(family(os.getpid()))
        finally:
            assert child.stdin is not None
            child.stdin.close()


def test_a_fresh_daemon_is_timed_and_weighed(factory_bundle: Find) -> None:
    factory_bundle("fall-waist")
    seen = measure(settle_s=0.0, faces=False)
    assert 0 < seen.falls_s < 60
    assert seen.pss_mb["total"] == pytest.approx(sum(seen.pss_mb.values()) / 2, abs=0.2)
    assert seen.pss_mb["daemon"] > 5


def test_the_command_prints_what_it_measured(
    factory_bundle: Find, capfd: pytest.CaptureFixture[str]
) -> None:
    factory_bundle("fall-waist")
    assert main(["bench", "--quick", "--only", "wrapper", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert {"fall-waist", "fall-wrist"} <= {row["bundle"] for row in answer["wrapper"]}
    assert answer["machine"]["cpu"] and "falls" not in answer
