"""The reading thread of an accelerometer."""

from __future__ import annotations

import queue
import time

from edge_rt.core.errors import SensorError
from edge_rt.core.types import SampleBlock
from edge_rt.runtime.accelerometer import BACKOFF_S, AccelerometerReader

PATIENCE_S = 30.0


class Unplugged:
    """An accelerometer that opens and gives nothing; tells when it is opened and closed."""

    rate_hz, range_g = 50.0, 16.0

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[str, float]] = queue.Queue()
        self._is_open = False

    def open(self) -> None:
        self._is_open = True
        self.told.put(("opened", time.monotonic()))

    def read(self, timeout_s: float) -> SampleBlock | None:
        raise SensorError("unplugged")

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.told.put(("closed", time.monotonic()))

    def identity(self) -> str:
        return "unplugged"


def test_a_lost_sensor_is_not_held_open_while_it_is_waited_for() -> None:
    """Its bus could not be removed by the kernel, nor come back under its name."""
    source = Unplugged()
    reader = AccelerometerReader(source, lambda block: None, lambda reason: None, lambda: None)
    reader.start()
    told = [source.told.get(timeout=PATIENCE_S) for _ in range(5)]
    reader.close()
    assert [what for what, _ in told] == ["opened", "closed", "opened", "closed", "opened"]
    times_s = [when_s for _, when_s in told]
    # However busy the machine is: the wait lies between a closing and the next opening.
    assert times_s[2] - times_s[1] >= BACKOFF_S[0]
    assert times_s[4] - times_s[3] >= BACKOFF_S[1]
