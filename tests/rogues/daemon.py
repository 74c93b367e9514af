"""The daemon with something in it that hangs or dies, as ROGUE says."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from edge_rt.cli import main
from edge_rt.core import crash_loop, turning
from edge_rt.core.types import SampleBlock
from edge_rt.runtime import accelerometers, compose_falls, process
from edge_rt.runtime.crash_guard import CrashGuard

GOOD_READS = 5


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


def make(source: Any, placement: str) -> Any:
    return Rogue(accelerometers.make_accelerometer(source, placement), os.environ["ROGUE"])


if __name__ == "__main__":
    compose_falls.make_accelerometer = make  # type: ignore[assignment]
    if os.environ["ROGUE"] == "proving":
        os.chdir(Path(sys.argv[-1]).parent)
        CrashGuard.healthy = stall  # type: ignore[method-assign]
        process.HEALTHY_S = 0.1
    # As in life, only sooner.
    crash_loop.DELAYS_S = (0.0,)
    turning.PATIENCE_S = {loop: 2.0 for loop in turning.PATIENCE_S}
    sys.exit(main(sys.argv[1:]))
