"""Runs the trust child: one task, one answer, limited in time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import msgspec

from edge_rt.core.update_task import Answer, Task

CHILD_MODULE = "edge_rt.trust_child"
# A Zero 2 W imports python-tuf in a few seconds and unpacks the largest bundle in as many.
TIMEOUT_S = 120.0
# A catalog as large as is accepted, with room for an error's words.
MAX_ANSWER_BYTES = 512 * 1024
_LOOK_S = 0.05
_file = tempfile.TemporaryFile


def run_child(task: Task, stopping: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> Answer:
    """The child's answer; one with an error if it crashed, hung, or we are `stopping`."""
    command = [sys.executable, "-P", "-m", CHILD_MODULE]
    with _file() as given, _file() as out, _file() as errors:
        given.write(msgspec.json.encode(task))
        given.seek(0)
        with subprocess.Popen(
            command, stdin=given, stdout=out, stderr=errors, start_new_session=True
        ) as child:
            code = _wait(child, stopping, time.monotonic() + timeout_s)
        out.seek(0)
        said = out.read(MAX_ANSWER_BYTES + 1)
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - 1000))
        tail = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    if code is None:
        return Answer(error="stopping" if stopping() else f"no answer within {timeout_s:g} s")
    try:
        if code == 0:
            return msgspec.json.decode(said, type=Answer)
    except msgspec.DecodeError:
        return Answer(error="the update process gave no answer that can be read")
    return Answer(error=f"the update process ended with {code}: {' '.join(tail)[:200]}")


def _wait(
    child: subprocess.Popen[bytes], stopping: Callable[[], bool], deadline_s: float
) -> int | None:
    try:
        while not stopping() and time.monotonic() < deadline_s:
            try:
                return child.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                continue
        return None
    finally:
        if child.poll() is None:
            child.kill()
