"""An accelerometer chip on a bus, read as a stream: when to look, what to stamp, what to survive.

A single failed transfer is nothing: the chip is asked who it is and whether it still has its
settings, its FIFO is emptied, and the stream goes on after a gap that is counted. A chip that does
not answer then, that lost its settings (a dip of its power) or fails again and again is lost:
SensorError, upon which a reader closes it and opens it anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from edge_rt.core.bus import Bus, Chip, Words
from edge_rt.core.errors import SensorError
from edge_rt.core.fifo_clock import FifoClock
from edge_rt.core.types import SampleBlock

VERIFY_S = 1.0  # a power dip, which the chip does not tell of, shows this soon
SILENT_S = 1.0  # well within the 2 s in which a lost sensor has to show
MAX_FAILURES = 3  # turns in a row that failed though the chip still knew its settings
WAKE_S = 0.05  # PS-MPU-6000A-00: 30 ms from sleep to the first sample; the ADXL345 needs less
BLOCK_S = 0.1  # polling gathers so much before it hands over


class I2cCounters(msgspec.Struct):
    """Totals since the start of the process."""

    samples: int = 0
    opened: int = 0
    overflows: int = 0  # the FIFO was not emptied in time; a gap
    bus_errors: int = 0  # transfers that failed; a gap each
    late_polls: int = 0  # polls that came more than a period late


class I2cAccelerometer:
    """An `Accelerometer`, and an `Instrument`.

    chip      what to say
    open_bus  gives the bus, at each opening
    place     names the bus in messages and in the identity
    clock, sleep  seconds on the monotonic clock; stamps are of this clock
    """

    def __init__(
        self,
        chip: Chip,
        open_bus: Callable[[], Bus],
        place: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate_hz = chip.rate_hz
        self.range_g = chip.range_g
        self.counters = I2cCounters()
        self._chip = chip
        self._open_bus = open_bus
        self._place = place
        self._clock = clock
        self._sleep = sleep
        self._bus: Bus | None = None
        self._times = FifoClock(chip.rate_hz)
        self._gain = np.float32(1.0 / chip.lsb_per_g)
        self._due_s = self._verify_s = self._heard_s = 0.0
        self._failures = 0
        self._broken: SensorError | None = None  # ended a turn that brought samples all the same
        self._halted = False  # the FIFO stands still until it is started again

    @property
    def is_open(self) -> bool:
        """Whether it has the bus."""
        return self._bus is not None

    def open(self) -> None:
        """Take the bus and set the chip up. Raises SensorError."""
        self.close()
        self._bus = bus = self._open_bus()
        self._chip.set_up(bus, self._sleep)
        self.counters.opened += 1
        self._times.restart()
        now_s = self._clock()
        self._heard_s = now_s
        self._verify_s = now_s + VERIFY_S
        self._due_s = now_s + (self._chip.turn_s if self._chip.fifo else WAKE_S)
        self._failures = 0
        self._broken, self._halted = None, False

    def read(self, timeout_s: float) -> SampleBlock | None:
        """What has been sampled since the last time; None if nothing comes in `timeout_s`.

        Raises SensorError when the chip is lost, and when it is not open.
        """
        bus = self._bus
        if bus is None:
            raise SensorError(f"{self._chip.name} on {self._place} is not open; open it first")
        now_s = self._clock()
        try:
            if self._broken is not None:
                raise self._broken
            if self._halted:
                self._restart(bus)
            if now_s >= self._verify_s:
                self._verify_s = now_s + VERIFY_S
                self._chip.verify(bus)
            block = self._from_fifo(bus, timeout_s) if self._chip.fifo else self._by_polls(bus)
        except SensorError as error:
            self._recover(bus, error)
            return None
        if self._broken is None:
            self._failures = 0
        if self._clock() - self._heard_s > SILENT_S:
            self._chip.verify(bus)  # it may say why
            raise self._mute()
        return block

    def close(self) -> None:
        """Let go of the bus; safe to call twice."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def identity(self) -> str:
        """Driver and place."""
        return f"{self._chip.name} {self._place}"

    def status(self) -> dict[str, Any]:
        """JSON-able: counters, and the chip's rate by our clock."""
        return {
            **msgspec.to_builtins(self.counters),
            "slips": self._times.slips,
            "measured_hz": round(self._times.rate_hz, 3) if self._chip.fifo else None,
        }

    # ---- from the FIFO ----

    def _from_fifo(self, bus: Bus, timeout_s: float) -> SampleBlock | None:
        if not self._wait(timeout_s):
            return None
        due_s, self._due_s = self._due_s, self._clock() + self._chip.turn_s
        drained = self._chip.drain(bus, self._clock)
        self._broken, self._halted = drained.error, drained.gap
        if drained.lost:
            self.counters.overflows += 1
            self._times.restart()
            now_s = self._clock()
            if now_s - due_s > self._chip.turn_s:  # we were late; else it talks nonsense
                self._heard_s = now_s
        if not drained.counted and self._broken is None:
            # Perhaps the power was away for a blink, which the chip does not tell of.
            self._chip.verify(bus)
        if not len(drained.words):
            return None
        t_s = self._times.stamp(drained.counted, drained.before_s, drained.after_s)
        return self._block(t_s[: len(drained.words)], drained.words)

    def _wait(self, timeout_s: float) -> bool:
        """Sleep until the next turn, or for the time-out: whether the turn has come."""
        left_s = self._due_s - self._clock()
        if left_s > 0:
            self._sleep(min(left_s, timeout_s))
        return left_s <= timeout_s

    # ---- by polling ----

    def _by_polls(self, bus: Bus) -> SampleBlock:
        """Samples of BLOCK_S, one at a time; each is stamped with the middle of its transfer."""
        period_s = 1.0 / self.rate_hz
        wanted = max(1, round(BLOCK_S * self.rate_hz))
        t_s, words = [], []
        for _ in range(wanted):
            self._wait(BLOCK_S + period_s)
            before_s = self._clock()
            words.append(self._chip.poll(bus))
            t_s.append((before_s + self._clock()) / 2)
            self._due_s += period_s
            if self._due_s < before_s:  # too late for the grid: begin a new one
                self.counters.late_polls += 1
                self._due_s = before_s + period_s
        return self._block(np.array(t_s), np.array(words, np.int16))

    # ---- both ----

    def _block(self, t_s: Any, words: Words) -> SampleBlock:
        self._heard_s = self._clock()
        self.counters.samples += len(words)
        # Exact: a count has at most 16 bits and the gain is a power of two.
        return SampleBlock(t_s, words.astype(np.float32) * self._gain)

    def _recover(self, bus: Bus, error: SensorError) -> None:
        """After a failed turn. Raises SensorError when the chip cannot be trusted to go on."""
        self.counters.bus_errors += 1
        self._failures += 1
        self._broken = None
        self._chip.verify(bus)
        if self._failures > MAX_FAILURES:
            raise SensorError(f"{error} (so it went {self._failures} times in a row)")
        self._restart(bus)

    def _restart(self, bus: Bus) -> None:
        self._chip.restart(bus)
        self._halted = False
        self._times.restart()

    def _mute(self) -> SensorError:
        return SensorError(
            f"{self._chip.name} on {self._place}: answers, but delivers no samples; "
            "check power and wiring"
        )
