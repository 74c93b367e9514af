"""What is asked of a trial process and what it answers; the judgement on its answer.

A trial process sees the bytes of a foreign model natively for the first time. Two runners start
one (a fork server, adapters.forkserver; a fresh interpreter, adapters.probe); both are given the
same task and tell the same story in JSON lines.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from edge_rt.core.errors import ModelError

# A Zero 2 W loads and tries the largest factory model in a few seconds.
TIMEOUT_S = 60.0
# What the model may add to Python and the engine; the whole service has 130 MB.
MEMORY_MB = 192
# A report with golden, latency and tensors is under 10 kB; ops repeat few names.
MAX_OUTPUT_BYTES = 256 * 1024
MAX_ERROR_TAIL_BYTES = 4096


class Ended(NamedTuple):
    """How a trial process ended.

    code    its exit code, negative for a signal; None: its time was up and it was killed
    output  what it reported, JSON lines; errors: the end of what it wrote to stderr
    """

    code: int | None
    output: bytes
    errors: bytes


class Runner(Protocol):
    """Starts a process that does `task` and waits for its end, at most about `timeout_s`."""

    def __call__(self, task: bytes, timeout_s: float) -> Ended: ...


class Task(msgspec.Struct, frozen=True, tag_field="do", tag="probe"):
    """What the child is to do.

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
    """Set, invoke and get of one already quantized input; budget_ms is the manifest's, for p95.

    Time in which the thread was ready and another one ran does not count, where the kernel tells.
    """

    runs: int
    p50_ms: float
    p95_ms: float
    budget_ms: float


class ProbeReport(msgspec.Struct, frozen=True):
    """What the child saw. golden and latency are None when it did not run the model.

    peak_mb   largest resident size of the child, Python and engine included
    grew_mb   how much of it came with the model
    confined  the layers that kept the model from files, network and other processes
    """

    engine: str
    inputs: tuple[TensorReport, ...]
    outputs: tuple[TensorReport, ...]
    ops: dict[str, int]
    peak_mb: float
    grew_mb: float
    golden: GoldenReport | None = None
    latency: LatencyReport | None = None
    confined: tuple[str, ...] = ()


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the child: the stage it enters, or how it ended.

    report  what it found, JSON of the task's own report type; or error and kind
    """

    stage: str = ""
    report: msgspec.Raw = msgspec.Raw()
    error: str = ""
    kind: str = ""


def report_line(report: msgspec.Struct) -> Line:
    """The line that ends a trial well."""
    return Line(report=msgspec.Raw(msgspec.json.encode(report)))


def probe_report(raw: msgspec.Raw, path: str, timed: bool = True) -> ProbeReport:
    """The report, if the model gave its golden outputs within its budget; else ModelError.

    timed: whether how fast it was is a measure
    """
    report = msgspec.json.decode(raw, type=ProbeReport)
    golden, latency = report.golden, report.latency
    if golden is not None and not golden.passed:
        raise ModelError(
            f"{path}: {report.engine} differs from the golden vectors by {golden.worst}, "
            f"{golden.tolerance:g} is allowed; rebuild the bundle or use another engine"
        )
    if timed and latency is not None and latency.p95_ms > latency.budget_ms:
        raise ModelError(
            f"{path}: p95 {latency.p95_ms:.3g} ms on {report.engine} is over the manifest's "
            f"budget of {latency.budget_ms:g} ms; use a smaller model or a faster device"
        )
    return report
