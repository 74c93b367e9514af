"""Try a model in a child process: what native code does with foreign bytes cannot hurt us there.

The child (`python -m edge_rt.probe`) loads and runs the model under limits of time and memory and
reports in JSON lines; a crash, a hang or a greedy allocation ends the child and becomes a
ModelError here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import msgspec

from edge_rt.core.errors import ModelError, error_from

CHILD_MODULE = "edge_rt.probe"
# A Zero 2 W loads and tries the largest factory model in a few seconds.
TIMEOUT_S = 60.0
# What the model may add to Python and the engine; the whole service has 130 MB.
MEMORY_MB = 192
# A report with golden, latency and tensors is under 10 kB; ops repeat few names.
MAX_OUTPUT_BYTES = 256 * 1024
MAX_ERROR_TAIL_BYTES = 4096
LOWEST_PRIORITY = 19  # getpriority(2)


class Task(msgspec.Struct, frozen=True):
    """What the child is to do, given as its one argument.

    path  bundle folder, or a bare .tflite file (which is only described)
    run   run the golden vectors and measure latency too
    """

    path: str
    engine: str
    run: bool
    timeout_s: float
    memory_mb: int


class TensorReport(msgspec.Struct, frozen=True):
    """One input or output; see `adapters.tflite.Tensor`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


class GoldenReport(msgspec.Struct, frozen=True):
    """worst, tolerance: largest absolute difference of an output, in the tensor's own units."""

    cases: int
    worst: float | None  # None: not a number
    tolerance: float
    passed: bool


class LatencyReport(msgspec.Struct, frozen=True):
    """Set, invoke and get of one already quantized input; budget_ms is the manifest's, for p95."""

    runs: int
    p50_ms: float
    p95_ms: float
    budget_ms: float


class ProbeReport(msgspec.Struct, frozen=True):
    """What the child saw. golden and latency are None when it did not run the model.

    peak_mb   largest resident size of the child, Python and engine included
    grew_mb   how much of it came with the model
    """

    engine: str
    inputs: tuple[TensorReport, ...]
    outputs: tuple[TensorReport, ...]
    ops: dict[str, int]
    peak_mb: float
    grew_mb: float
    golden: GoldenReport | None = None
    latency: LatencyReport | None = None


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the child: the stage it enters, or how it ended (report, or error and kind)."""

    stage: str = ""
    report: ProbeReport | None = None
    error: str = ""
    kind: str = ""


def probe(
    path: Path,
    engine: str = "auto",
    *,
    run: bool = True,
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
    background: bool = False,
) -> ProbeReport:
    """Load, and with `run` try, a bundle folder or a bare .tflite file in a child process.

    Raises what `edge_rt.bundle.open_bundle` raises, and ModelError when the engine crashes, hangs
    longer than `timeout_s`, asks for more than `memory_mb` on top of its own, gives other outputs
    than the golden vectors or is slower than the manifest's budget.

    background  at the lowest priority, so that nothing else waits for it; how fast the model was
                is then no measure and not judged
    """
    task = Task(str(path.absolute()), engine, run, timeout_s, memory_mb)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        code = _run_child(task, out, errors, background)
        lines = _lines(out)
        tail = _tail(errors)
    stage = next((line.stage for line in reversed(lines) if line.stage), "starting")
    if code is None:
        raise ModelError(f"{path}: no end after {timeout_s:g} s of {stage}; the model hangs")
    if lines and lines[-1].error:
        said = lines[-1].error
        if "; " not in said:  # an engine's own words, which end in no remedy
            said += "; do not use this file"
        raise error_from(lines[-1].kind, said if str(path) in said else f"{path}: {said}")
    if lines and lines[-1].report is not None and code == 0:
        return _judged(lines[-1].report, path, background)
    raise ModelError(f"{path}: {_death(code, tail, memory_mb)} while {stage}; do not use this file")


def _run_child(task: Task, out: IO[bytes], errors: IO[bytes], background: bool) -> int | None:
    """Exit code of the child, negative for a signal; None when its time was up."""
    command = [sys.executable, "-P", "-m", CHILD_MODULE, msgspec.json.encode(task).decode()]
    # One thread: the figure is comparable, and thread stacks do not count as the model's memory.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=errors,
        env=environment,
        start_new_session=True,
    ) as child:
        try:
            if background:
                os.setpriority(os.PRIO_PROCESS, child.pid, LOWEST_PRIORITY)
            return child.wait(task.timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, as it should
                os.killpg(child.pid, signal.SIGKILL)


def _lines(out: IO[bytes]) -> list[Line]:
    out.seek(0)
    lines = []
    for text in out.read(MAX_OUTPUT_BYTES).splitlines():
        with contextlib.suppress(msgspec.DecodeError):  # cut off by the crash we are to report
            lines.append(msgspec.json.decode(text, type=Line))
    return lines


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - MAX_ERROR_TAIL_BYTES))
    return errors.read().decode(errors="replace")


def _death(code: int, tail: str, memory_mb: int) -> str:
    if "bad_alloc" in tail or "MemoryError" in tail:
        return f"asked for more than {memory_mb} MB"
    if code == -signal.SIGKILL:
        return "killed by the system, most likely out of memory,"
    if code < 0:
        return f"the engine crashed ({signal.Signals(-code).name})"
    last = tail.strip().splitlines()[-1:] or ["no message"]
    return f"the trial process failed (exit {code}: {last[0]})"


def _judged(report: ProbeReport, path: Path, background: bool) -> ProbeReport:
    golden, latency = report.golden, report.latency
    if golden is not None and not golden.passed:
        raise ModelError(
            f"{path}: {report.engine} differs from the golden vectors by {golden.worst}, "
            f"{golden.tolerance:g} is allowed; rebuild the bundle or use another engine"
        )
    if latency is not None and latency.p95_ms > latency.budget_ms and not background:
        raise ModelError(
            f"{path}: p95 {latency.p95_ms:.3g} ms on {report.engine} is over the manifest's "
            f"budget of {latency.budget_ms:g} ms; use a smaller model or a faster device"
        )
    return report
