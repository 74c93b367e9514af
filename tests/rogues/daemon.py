"""The daemon with something in it that hangs or dies, as ROGUE says."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edge_rt.adapters.pins_model import ModelInput
from edge_rt.cli import main
from edge_rt.core import crash_loop, turning
from edge_rt.core.pins import Edge
from edge_rt.core.types import SampleBlock
from edge_rt.runtime import accelerometers, compose_falls, process
from edge_rt.runtime.acts import PatternAct
from edge_rt.runtime.crash_guard import CrashGuard
from edge_rt.runtime.output import Output, Wish
from edge_rt.runtime.update_task import TaskUpdate

GOOD_READS = 5
STEP = PatternAct.step
READ: list[ModelInput] = []


class HangingBlock(tuple):  # type: ignore[type-arg]
    """Whoever looks into it stays there, as in a native call that never returns."""

    @property
    def t_s(self) -> Any:
        time.sleep(3600)


class Rogue:
    """An accelerometer that is good for a while."""

    def __init__(self, good: Any, how: str) -> None:
        self._good = good
        self._how = how
        self._reads = 0
        self.rate_hz, self.range_g = good.rate_hz, good.range_g

    def open(self) -> None:
        self._good.open()

    def close(self) -> None:
        self._good.close()

    def read(self, timeout_s: float) -> SampleBlock | None:
        self._reads += 1
        if self._reads > GOOD_READS:
            if self._how == "falls":
                return HangingBlock()  # type: ignore[return-value]
            if self._how == "accelerometer":
                time.sleep(3600)
            if self._how == "abort":
                os.abort()
        block: SampleBlock | None = self._good.read(timeout_s)
        return block


def stall(guard: CrashGuard) -> None:
    """A write that a stalled card holds up."""
    Path("proving").touch()
    time.sleep(3600)


def hang_in_alarm(act: PatternAct, wish: Wish, now_s: float, changed: threading.Event) -> float:
    """A siren whose driver is good until it is needed."""
    if wish.what == "alarm":
        time.sleep(3600)
    return STEP(act, wish, now_s, changed)


def hang_at_work(task: TaskUpdate) -> None:
    """A candidate's file on a disk that is gone, say."""
    time.sleep(3600)


def hang_in_hand(line: ModelInput, timeout_s: float) -> list[Edge]:
    """A line that can be read once."""
    if READ:
        time.sleep(3600)
    READ.append(line)
    return []


def raise_in_guard(output: Output) -> None:
    """A bug of ours in the thread that watches over the outputs."""
    raise RuntimeError("a bug")


def make(source: Any, placement: str) -> Any:
    return Rogue(accelerometers.make_accelerometer(source, placement), os.environ["ROGUE"])


if __name__ == "__main__":
    compose_falls.make_accelerometer = make  # type: ignore[assignment]
    if os.environ["ROGUE"] == "proving":
        os.chdir(Path(sys.argv[-1]).parent)
        CrashGuard.healthy = stall  # type: ignore[method-assign]
        process.HEALTHY_S = 0.1
    if os.environ["ROGUE"] == "impatient":
        process.BARE_S = 1.0
    if os.environ["ROGUE"] == "siren":
        PatternAct.step = hang_in_alarm  # type: ignore[method-assign]
    if os.environ["ROGUE"] == "updates":
        TaskUpdate.turn = hang_at_work  # type: ignore[method-assign]
    if os.environ["ROGUE"] == "button":
        ModelInput.edges = hang_in_hand  # type: ignore[method-assign]
    if os.environ["ROGUE"] == "guard":
        Output.guard = raise_in_guard  # type: ignore[method-assign]
    # As in life, only sooner.
    crash_loop.DELAYS_S = (0.0,)
    turning.PATIENCE_S = {loop: 2.0 for loop in turning.PATIENCE_S}
    sys.exit(main(sys.argv[1:]))
