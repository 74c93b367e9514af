"""The trial process of the runtime: proves a bundle, or plays the challenge set to it.

Started as `python -m edge_rt.runtime.trial_child TASK`, or run in a fork (runtime.trying).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.confine import limit, lock
from edge_rt.adapters.tflite import Interpreter
from edge_rt.bundle import assemble, open_bundle
from edge_rt.core.challenge import ChallengeContext, ChallengeReport
from edge_rt.core.trying import MAX_OUTPUT_BYTES, Line, Task, report_line
from edge_rt.falls.challenge import run_challenge
from edge_rt.probe import Load, Say, tell, try_model, warm_up


class ChallengeTask(msgspec.Struct, frozen=True, tag_field="do", tag="challenge"):
    """path: folder of the candidate; the rest as core.trying.Task has it."""

    path: str
    engine: str
    context: ChallengeContext
    timeout_s: float
    memory_mb: int


def main(arguments: list[str]) -> int:
    """Do the task in `arguments`; the exit code is 0 with a report and 1 with an error."""
    # Native code prints where it likes: keep our lines apart from its.
    own = os.dup(1)
    os.dup2(2, 1)
    return work(arguments[0].encode(), own)


def work(task: bytes, descriptor: int, load: Load = Interpreter) -> int:
    """Do `task`, report to `descriptor`. A Work of adapters.forkserver.

    load  makes interpreters of foreign bytes
    """
    asked: Task | ChallengeTask = msgspec.json.decode(task, type=Task | ChallengeTask)

    def do(say: Say) -> Line:
        if isinstance(asked, Task):
            return report_line(try_model(asked, say, load))
        return report_line(challenge(asked, say, load))

    return tell(descriptor, do)


def challenge(task: ChallengeTask, say: Say, load: Load) -> ChallengeReport:
    """Confine this process for good, then play the set. Raises PublisherError kinds."""
    warm_up(task.engine)
    limit(task.memory_mb, task.timeout_s, MAX_OUTPUT_BYTES)
    say(Line(stage="reading"))
    files = read_bundle(Path(task.path))
    context = task.context
    live = open_bundle(Path(context.live), task.engine) if context.live else None
    say(Line(stage="loading"))
    confined = lock()
    candidate = assemble(files, lambda model: load(model, task.engine))
    say(Line(stage="playing the challenge set"))
    report = run_challenge(candidate, live, context)
    return msgspec.structs.replace(report, confined=confined)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
