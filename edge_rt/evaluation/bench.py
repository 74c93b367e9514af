"""Speed of the pipelines on this machine, stage by stage. A benchmark, not a test.

Stages are timed one by one on the same objects that run live. What is compared (our wrapper with
the bare engine) alternates within one run, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_rt.bundle import Bundle
from edge_rt.core.errors import ManifestError
from edge_rt.core.fall import AlarmMachine
from edge_rt.core.fall_rules import rules_for
from edge_rt.core.hop import Hop
from edge_rt.core.manifest import FallManifest
from edge_rt.core.resample import AreaResampler, to_fixed
from edge_rt.core.timebase import SampleClock
from edge_rt.core.types import SampleBlock
from edge_rt.core.windows import FeatureStream
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.falls.simulate import DEMO_SCRIPT, simulate

RATE_HZ = 50.0
REPLAY_BLOCK_S = 10.0  # as evaluation replays
CHUNK_S = 0.0005  # of alternating calls: long against the clock, short against a time slice

Step = Callable[[str], None]


class Effort(NamedTuple):
    """How long to measure: simulated minutes, replays, rounds of a comparison, frames."""

    minutes: float
    repeats: int
    rounds: int
    frames: int


FULL = Effort(minutes=5.0, repeats=7, rounds=2000, frames=400)
QUICK = Effort(minutes=1.0, repeats=3, rounds=300, frames=60)


class Stopwatch:
    """Collects durations by stage: each `lap` ends the stage that ran since the last one."""

    def __init__(self) -> None:
        self._laps: dict[str, list[float]] = defaultdict(list)
        self._last = 0.0

    def start(self) -> None:
        """Begin a round."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self._laps[stage].append(now - self._last)
        self._last = time.perf_counter()

    def add(self, stage: str, seconds: float) -> None:
        """A duration that was taken otherwise."""
        self._laps[stage].append(seconds)

    def summary(self) -> dict[str, dict[str, float]]:
        """For each stage: n, p50_ms, p95_ms, p99_ms."""
        return {stage: percentiles(laps) for stage, laps in self._laps.items()}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """n, p50_ms, p95_ms and p99_ms of durations in seconds."""
    marks = np.percentile(seconds, (50, 95, 99)) * 1e3
    named = zip(("p50_ms", "p95_ms", "p99_ms"), marks.tolist(), strict=True)
    return {"n": len(seconds), **{name: round(value, 5) for name, value in named}}


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


# ---- falls ----


def bench_falls(bundle: Bundle, effort: Effort) -> dict[str, Any]:
    """The fall pipeline on a simulated 50 Hz stream. Raises ManifestError for another task."""
    manifest = bundle.manifest
    if not isinstance(manifest, FallManifest):
        raise ManifestError(f"bundle {manifest.name} is not a fall model; name another")
    bundle.interpreter.warm_up(20)
    stream = simulated_stream(effort.minutes * 60.0, manifest.decision.placement)
    return {
        "bundle": f"{manifest.name} {manifest.version}",
        "engine": bundle.interpreter.engine,
        "input": f"simulated, {RATE_HZ:g} Hz, {effort.minutes:g} min",
        "how": "stages: one hop a time, wall clock; live: processor time of one push a sample; "
        f"replay: blocks of {REPLAY_BLOCK_S:g} s, median of {effort.repeats}",
        "stages": _stages(bundle, manifest, stream),
        "last_sample_to_decision": _decision(bundle, manifest, stream),
        "live_cpu_percent": _live_cpu(bundle, manifest, stream, effort.repeats),
        "replay_x_real_time": _replay(bundle, manifest, stream, effort.repeats),
    }


def simulated_stream(seconds: float, placement: str) -> SampleBlock:
    """Demo scenes one after the other, each of another seed, evenly stamped at RATE_HZ."""
    parts, count, seed = [], 0, 0
    while count < seconds * RATE_HZ:
        part = simulate(DEMO_SCRIPT, seed, rate_hz=RATE_HZ, placement=placement).block.acc_g
        parts.append(part)
        count, seed = count + len(part), seed + 1
    acc_g = np.concatenate(parts)[: round(seconds * RATE_HZ)]
    return SampleBlock(np.arange(len(acc_g)) / RATE_HZ, acc_g)


def _blocks(stream: SampleBlock, size: int) -> Iterator[SampleBlock]:
    for begin in range(0, len(stream.t_s), size):
        part = slice(begin, begin + size)
        yield SampleBlock(stream.t_s[part], stream.acc_g[part])


def _stages(bundle: Bundle, manifest: FallManifest, stream: SampleBlock) -> dict[str, Any]:
    """One hop at a time through the parts that detector and pipeline are made of."""
    grid, interpreter = manifest.input, bundle.interpreter
    clock = SampleClock(RATE_HZ, "even")
    features = FeatureStream(grid.rate_hz, grid.channels)
    machine_ = AlarmMachine(rules_for(manifest), lambda: "bench")
    shape = interpreter.inputs[0].shape
    ring = np.zeros((grid.window, len(grid.channels)), interpreter.inputs[0].dtype)
    resampler: AreaResampler | None = None
    watch = Stopwatch()
    for block in _blocks(stream, max(1, round(grid.hop * RATE_HZ / grid.rate_hz))):
        watch.start()
        (run,) = clock.place(block.t_s)
        watch.lap("clock")
        resampler = resampler or AreaResampler(grid.rate_hz, int(run.ticks[0]))
        watch.start()
        rows = features.push(resampler.push(run.ticks, to_fixed(block.acc_g)))
        watch.lap("resample and channels")
        raw = interpreter.quantize(rows)
        watch.lap("quantize")
        ring = np.concatenate((ring, raw))[-grid.window :]
        window = ring.reshape(shape)
        watch.start()
        (out,) = interpreter.invoke(window)
        watch.lap("invoke")
        score = float(interpreter.dequantize(out)[0, 0])
        hop = Hop(float(block.t_s[-1]), score, score, 1.0, 0.0, (0.0, 0.0, 1.0))
        watch.start()
        machine_.step(hop)
        watch.lap("alarm machine")
    return watch.summary()


def _pipeline(bundle: Bundle, manifest: FallManifest) -> FallPipeline:
    detector = FallDetector(bundle, rate_hz=RATE_HZ)
    return FallPipeline(detector, rules_for(manifest), lambda: "bench", range_g=16.0)


def _decision(bundle: Bundle, manifest: FallManifest, stream: SampleBlock) -> dict[str, float]:
    """One sample a push: the pushes that complete a hop, from its last sample to its decision."""
    pipeline, took, hops = _pipeline(bundle, manifest), [], 0
    for block in _blocks(stream, 1):
        start = time.perf_counter()
        pipeline.push(block)
        end = time.perf_counter()
        if pipeline.hops != hops:
            hops = pipeline.hops
            took.append(end - start)
    return percentiles(took)


def _live_cpu(bundle: Bundle, manifest: FallManifest, stream: SampleBlock, repeats: int) -> float:
    """Processor time of the stream pushed sample by sample, in percent of its duration; a median.

    The sensor's own reading is not in it.
    """
    shares, blocks = [], list(_blocks(stream, 1))
    for _ in range(repeats):
        pipeline = _pipeline(bundle, manifest)
        start = time.process_time()
        for block in blocks:
            pipeline.push(block)
        shares.append(100.0 * (time.process_time() - start) * RATE_HZ / len(blocks))
    return round(float(np.median(shares)), 4)


def _replay(bundle: Bundle, manifest: FallManifest, stream: SampleBlock, repeats: int) -> float:
    """Seconds of stream in one of ours, whole pipeline, blocks of `REPLAY_BLOCK_S`; a median."""
    factors = []
    for _ in range(repeats):
        pipeline = _pipeline(bundle, manifest)
        blocks = list(_blocks(stream, round(REPLAY_BLOCK_S * RATE_HZ)))
        start = time.perf_counter()
        for block in blocks:
            pipeline.push(block)
        factors.append(len(stream.t_s) / RATE_HZ / (time.perf_counter() - start))
    return round(float(np.median(factors)), 1)


# ---- wrapper ----


def bench_wrapper(bundle: Bundle, effort: Effort) -> dict[str, Any]:
    """`Interpreter.invoke` against set, invoke and get of the same engine object, alternating.

    ratio and extra_us are medians over rounds; a round is one chunk of calls of each kind.
    """
    ours = bundle.interpreter
    bare = ours.native
    tensor, outputs = ours.inputs[0], [o.index for o in ours.outputs]
    rng = np.random.default_rng(0)
    if tensor.dtype.kind == "f":
        raw = rng.standard_normal(tensor.shape).astype(tensor.dtype)
    else:
        raw = rng.integers(-100, 100, tensor.shape).astype(tensor.dtype)
    ours.warm_up(20)

    def run_bare(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            bare.set_tensor(tensor.index, raw)
            bare.invoke()
            for index in outputs:
                bare.get_tensor(index)
        return (time.perf_counter() - start) / calls

    def run_ours(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            ours.invoke(raw)
        return (time.perf_counter() - start) / calls

    calls = max(1, int(CHUNK_S / run_bare(5)))
    pairs = []
    for k in range(effort.rounds):
        order = (run_bare, run_ours) if k % 2 else (run_ours, run_bare)
        took = {run: run(calls) for run in order}
        pairs.append((took[run_bare], took[run_ours]))
    bare_s, ours_s = np.array(pairs).T
    return {
        "bundle": bundle.manifest.name,
        "engine": ours.engine,
        "bare_us": round(float(np.median(bare_s)) * 1e6, 3),
        "ours_us": round(float(np.median(ours_s)) * 1e6, 3),
        "ratio": round(float(np.median(ours_s / bare_s)), 4),
        "extra_us": round(float(np.median(ours_s - bare_s)) * 1e6, 3),
    }
