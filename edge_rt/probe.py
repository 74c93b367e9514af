"""What a trial process does: limits itself, loads and runs one model, reports.

Started as `python -m edge_rt.probe TASK` (adapters.probe), or called in a fork of the daemon's
fork server (runtime.trying). What it reports is in core.trying.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

# numpy 2 loads these two when they are first used, which is too late in a process without files.
import numpy.ma
import numpy.random
import numpy.typing as npt

from edge_rt.adapters.bundle_files import read_bundle, read_golden
from edge_rt.adapters.confine import limit, lock, status_kb
from edge_rt.adapters.tflite import Interpreter, Tensor, choose_engine
from edge_rt.bundle import (
    Bundle,
    assemble,
    compare_golden,
    factory_bundles,
    open_bundle,
)
from edge_rt.core.errors import EdgeRtError, InputError
from edge_rt.core.trying import (
    MAX_OUTPUT_BYTES,
    GoldenReport,
    LatencyReport,
    Line,
    ProbeReport,
    Task,
    TensorReport,
    report_line,
)

MAX_RUNS, MAX_SECONDS = 300, 1.0  # of the latency figure: enough for a p95, short on a slow board
# Whatever else runs can only add to a latency: the best of a few turns is the model's own.
TURNS = 3

Say = Callable[[Line], None]
Load = Callable[[bytes, str], Interpreter]  # a model's bytes and the engine's name


def main(arguments: list[str]) -> int:
    """Do the task in `arguments`; the exit code is 0 with a report and 1 with an error."""
    task = msgspec.json.decode(arguments[0], type=Task)
    # Native code prints where it likes: keep our lines apart from its.
    own = os.dup(1)
    os.dup2(2, 1)
    return tell(own, lambda say: report_line(try_model(task, say)))


def tell(descriptor: int, work: Callable[[Say], Line]) -> int:
    """Do `work` and write its lines to `descriptor`; what it raises on purpose is one of them."""

    def say(line: Line) -> None:
        os.write(descriptor, msgspec.json.encode(line) + b"\n")

    try:
        say(work(say))
    except EdgeRtError as error:
        say(Line(error=str(error), kind=type(error).__name__))
        return 1
    return 0


def try_model(task: Task, say: Say, load: Load = Interpreter) -> ProbeReport:
    """Confine this process for good, then load and run what `task` names.

    load  makes the interpreter; what edge_rt.bundle.open_bundle raises, this raises
    """
    warm_up(task.engine)
    limit(task.memory_mb, task.timeout_s, MAX_OUTPUT_BYTES)
    say(Line(stage="reading"))
    path = Path(task.path)
    files = read_bundle(path) if path.is_dir() else None
    golden = read_golden(files) if files and task.run else None
    model = files.model if files else _read(path)
    before_kb = status_kb("VmRSS")
    queued = _Queued()
    say(Line(stage="loading"))
    confined = lock()
    bundle = assemble(files, lambda model: load(model, task.engine)) if files else None
    interpreter = bundle.interpreter if bundle else load(model, task.engine)
    same = latency = None
    if bundle and golden:
        say(Line(stage="running the golden vectors"))
        same = _golden(bundle, *golden)
        say(Line(stage="measuring latency"))
        latency = _latency(bundle, queued)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return ProbeReport(
        engine=interpreter.engine,
        inputs=tuple(map(_tensor, interpreter.inputs)),
        outputs=tuple(map(_tensor, interpreter.outputs)),
        ops=interpreter.ops(),
        peak_mb=round(peak_kb / 1024, 1),
        grew_mb=round(max(0, peak_kb - before_kb) / 1024, 1),
        golden=same,
        latency=latency,
        confined=confined,
    )


def warm_up(engine: str) -> None:
    """Bring in all that an engine reads from files, by way of a model that is known to be sound.

    Afterwards a locked process (adapters.confine) can load and run another one.
    """
    choose_engine(engine)
    factory = factory_bundles()
    if "fall-waist" in factory:
        bundle = open_bundle(factory["fall-waist"], engine)
        bundle.interpreter.warm_up()
        bundle.interpreter.ops()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a bundle or a .tflite file") from None


def _golden(
    bundle: Bundle, inputs: Sequence[npt.NDArray[Any]], outputs: Sequence[npt.NDArray[Any]]
) -> GoldenReport:
    result = compare_golden(bundle, inputs, outputs)
    worst = result.worst if isfinite(result.worst) else None
    return GoldenReport(result.cases, worst, result.tolerance, result.passed)


class _Queued:
    """How long this thread was ready and another one ran instead: the board's doing, no model's."""

    def __init__(self) -> None:
        try:
            # Time on the run queue is the second number, in nanoseconds (proc(5), schedstat).
            self._file = os.open("/proc/self/schedstat", os.O_RDONLY)
        except OSError:  # a kernel without: latencies then count what else was running
            self._file = -1

    def seconds(self) -> float:
        """Since the start of the process; 0 where the kernel does not tell."""
        return int(os.pread(self._file, 100, 0).split()[1]) * 1e-9 if self._file >= 0 else 0.0


def _latency(bundle: Bundle, queued: _Queued) -> LatencyReport:
    budget_ms = bundle.manifest.latency_budget_ms
    best: LatencyReport | None = None
    for _ in range(TURNS):
        found = _measure(bundle.interpreter, budget_ms, queued)
        if best is None or found.p95_ms < best.p95_ms:
            best = found
        if best.p95_ms <= budget_ms:
            break
    assert best is not None  # there is at least one turn
    return best


def _measure(interpreter: Interpreter, budget_ms: float, queued: _Queued) -> LatencyReport:
    interpreter.warm_up()
    tensor = interpreter.inputs[0]
    raw = np.full(tensor.shape, tensor.zero_point, tensor.dtype)
    took: list[float] = []
    end = time.perf_counter() + MAX_SECONDS
    while len(took) < MAX_RUNS and (not took or time.perf_counter() < end):
        before, worked = queued.seconds(), time.thread_time()
        start = time.perf_counter()
        interpreter.invoke(raw)
        whole = time.perf_counter() - start
        # Never less than the work itself: the queue is read a moment too early and too late.
        worked = min(whole, time.thread_time() - worked)
        took.append(max(worked, whole - (queued.seconds() - before)))
    p50, p95 = (float(q) * 1e3 for q in np.percentile(took, (50, 95)))
    return LatencyReport(len(took), round(p50, 5), round(p95, 5), budget_ms)


def _tensor(tensor: Tensor) -> TensorReport:
    return TensorReport(
        tensor.name, tensor.shape, str(tensor.dtype), tensor.scale, tensor.zero_point
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
