"""Try a model in a child process: what native code does with foreign bytes cannot hurt us there.

The child loads and runs the model under limits of time and memory, cut off from files and network,
and reports in JSON lines; a crash, a hang or a greedy allocation ends the child and becomes a
ModelError here. This runner starts a fresh interpreter; the daemon's is adapters.forkserver.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import msgspec

from edge_rt.core.errors import DaemonError, ModelError, error_from
from edge_rt.core.trying import (
    MAX_ERROR_TAIL_BYTES,
    MAX_OUTPUT_BYTES,
    MEMORY_MB,
    TIMEOUT_S,
    Ended,
    Line,
    ProbeReport,
    Runner,
    Task,
    TensorReport,
    probe_report,
)

__all__ = ["MEMORY_MB", "TIMEOUT_S", "ProbeReport", "Spawn", "TensorReport", "probe", "report_of"]

CHILD_MODULE = "edge_rt.probe"
LOWEST_PRIORITY = 19  # getpriority(2)


class Spawn:
    """Runs `python -m module TASK` for each task: a Runner that needs no preparation.

    background  at the lowest priority

    A call raises DaemonError when this machine has no memory, process or descriptor left for it.
    """

    def __init__(self, module: str = CHILD_MODULE, background: bool = False) -> None:
        self._module = module
        self._background = background

    def __call__(self, task: bytes, timeout_s: float) -> Ended:
        try:
            with _memory("output") as out, _memory("errors") as errors:
                code = self._run(task, timeout_s, out, errors)
                out.seek(0)
                size = errors.seek(0, os.SEEK_END)
                errors.seek(max(0, size - MAX_ERROR_TAIL_BYTES))
                return Ended(code, out.read(MAX_OUTPUT_BYTES), errors.read())
        except OSError as error:  # says nothing about the model
            raise DaemonError(
                f"no process can be started to try a model in ({error.strerror}); "
                "free memory, or raise the limit of processes or open files"
            ) from None

    def _run(self, task: bytes, timeout_s: float, out: IO[bytes], errors: IO[bytes]) -> int | None:
        command = [sys.executable, "-P", "-m", self._module, task.decode()]
        # One thread: the figure is comparable, and thread stacks do not count as the model's
        # memory.
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
                if self._background:
                    os.setpriority(os.PRIO_PROCESS, child.pid, LOWEST_PRIORITY)
                return child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):  # it has ended, as it should
                    os.killpg(child.pid, signal.SIGKILL)


def _memory(name: str) -> IO[bytes]:
    """An unnamed file in memory: a model is tried before the watch begins, on a full or read-only
    disk too. The child's limits bound it."""
    return os.fdopen(os.memfd_create(name), "w+b")


def probe(
    path: Path,
    engine: str = "auto",
    *,
    run: bool = True,
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
    background: bool = False,
    runner: Runner | None = None,
) -> ProbeReport:
    """Load, and with `run` try, a bundle folder or a bare .tflite file in a child process.

    Raises what `edge_rt.bundle.open_bundle` raises, and ModelError when the engine crashes, hangs
    longer than `timeout_s`, asks for more than `memory_mb` on top of its own, gives other outputs
    than the golden vectors or is slower than the manifest's budget.

    background  at the lowest priority, so that nothing else waits for it; how fast the model was
                is then no measure and not judged
    """
    task = Task(str(path.absolute()), engine, run, timeout_s, memory_mb)
    ended = (runner or Spawn(background=background))(msgspec.json.encode(task), timeout_s)
    raw = report_of(ended, path, timeout_s, memory_mb)
    return probe_report(raw, str(path), timed=not background)


def report_of(ended: Ended, path: Path, timeout_s: float, memory_mb: int) -> msgspec.Raw:
    """The report of a child that ended well, JSON.

    Raises the child's own error in its own class, and ModelError for a crash, a hang or a greedy
    allocation, with the stage it happened in.
    """
    lines = _lines(ended.output)
    stage = next((line.stage for line in reversed(lines) if line.stage), "starting")
    if ended.code is None:
        raise ModelError(f"{path}: no end after {timeout_s:g} s of {stage}; the model hangs")
    if lines and lines[-1].error:
        said = lines[-1].error
        if "; " not in said:  # an engine's own words, which end in no remedy
            said += "; do not use this file"
        raise error_from(lines[-1].kind, said if str(path) in said else f"{path}: {said}")
    if lines and bytes(lines[-1].report) and ended.code == 0:
        return lines[-1].report
    raise ModelError(f"{path}: {_death(ended, memory_mb)} while {stage}; do not use this file")


def _lines(output: bytes) -> list[Line]:
    lines = []
    for text in output[:MAX_OUTPUT_BYTES].splitlines():
        try:
            lines.append(msgspec.json.decode(text, type=Line))
        except msgspec.DecodeError:  # cut off by the crash we are to report
            continue
    return lines


def _death(ended: Ended, memory_mb: int) -> str:
    tail, code = ended.errors.decode(errors="replace"), ended.code
    assert code is not None
    if "bad_alloc" in tail or "MemoryError" in tail:
        return f"asked for more than {memory_mb} MB"
    if code == -signal.SIGKILL:
        return "killed by the system, most likely out of memory,"
    if code == -signal.SIGXCPU:
        return "used up its processor time"
    if code < 0:
        return f"the engine crashed ({signal.Signals(-code).name})"
    last = tail.strip().splitlines()[-1:] or ["no message"]
    return f"the trial process failed (exit {code}: {last[0]})"
