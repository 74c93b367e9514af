"""The child of `adapters.probe`: limits itself, then loads and runs one model and reports.

Started as `python -m edge_rt.probe TASK`; nothing imports it.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from math import ceil, isfinite
from pathlib import Path

import msgspec
import numpy as np

from edge_rt.adapters.probe import (
    MAX_OUTPUT_BYTES,
    GoldenReport,
    LatencyReport,
    Line,
    ProbeReport,
    Task,
    TensorReport,
)
from edge_rt.adapters.tflite import Interpreter, Tensor
from edge_rt.bundle import Bundle, open_bundle, verify_golden
from edge_rt.core.errors import EdgeRtError, InputError

MAX_RUNS, MAX_SECONDS = 300, 1.0  # of the latency figure: enough for a p95, short on a slow board

Say = Callable[[Line], None]


def main(arguments: list[str]) -> int:
    """Do the task in `arguments`; the exit code is 0 with a report and 1 with an error."""
    task = msgspec.json.decode(arguments[0], type=Task)
    # Native code prints where it likes: keep our lines apart from its.
    own = os.dup(1)
    os.dup2(2, 1)

    def say(line: Line) -> None:
        os.write(own, msgspec.json.encode(line) + b"\n")

    _limit(task)
    try:
        say(Line(report=_report(task, say)))
    except EdgeRtError as error:
        say(Line(error=str(error), kind=type(error).__name__))
        return 1
    return 0


def _limit(task: Task) -> None:
    data_bytes = 1024 * _status_kb("VmData")
    # RLIMIT_DATA, not RLIMIT_AS: only what can be written counts, not the engine's mapped code.
    memory = data_bytes + task.memory_mb * 1024 * 1024
    # The parent ends us by its own clock; this is for when it is not there any more.
    seconds = ceil(task.timeout_s) + 15
    for what, value in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))


def _report(task: Task, say: Say) -> ProbeReport:
    path = Path(task.path)
    before_kb = _status_kb("VmRSS")
    say(Line(stage="loading"))
    bundle = open_bundle(path, task.engine) if path.is_dir() else None
    interpreter = bundle.interpreter if bundle else Interpreter(_read(path), task.engine)
    golden = latency = None
    if bundle and task.run:
        say(Line(stage="running the golden vectors"))
        golden = _golden(bundle)
        say(Line(stage="measuring latency"))
        latency = _latency(bundle)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return ProbeReport(
        engine=interpreter.engine,
        inputs=tuple(map(_tensor, interpreter.inputs)),
        outputs=tuple(map(_tensor, interpreter.outputs)),
        ops=interpreter.ops(),
        peak_mb=round(peak_kb / 1024, 1),
        grew_mb=round((peak_kb - before_kb) / 1024, 1),
        golden=golden,
        latency=latency,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a bundle or a .tflite file") from None


def _golden(bundle: Bundle) -> GoldenReport:
    result = verify_golden(bundle)
    worst = result.worst if isfinite(result.worst) else None
    return GoldenReport(result.cases, worst, result.tolerance, result.passed)


def _latency(bundle: Bundle) -> LatencyReport:
    interpreter = bundle.interpreter
    interpreter.warm_up()
    tensor = interpreter.inputs[0]
    raw = np.full(tensor.shape, tensor.zero_point, tensor.dtype)
    took: list[float] = []
    end = time.perf_counter() + MAX_SECONDS
    while len(took) < MAX_RUNS and (not took or time.perf_counter() < end):
        start = time.perf_counter()
        interpreter.invoke(raw)
        took.append(time.perf_counter() - start)
    p50, p95 = (float(q) * 1e3 for q in np.percentile(took, (50, 95)))
    return LatencyReport(len(took), round(p50, 5), round(p95, 5), bundle.manifest.latency_budget_ms)


def _tensor(tensor: Tensor) -> TensorReport:
    return TensorReport(
        tensor.name, tensor.shape, str(tensor.dtype), tensor.scale, tensor.zero_point
    )


def _status_kb(field: str) -> int:
    """A size from /proc/self/status (proc(5)), which gives kibibytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
