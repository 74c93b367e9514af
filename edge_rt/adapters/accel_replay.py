"""Replayed accelerometer: a recording or a simulation in place of the sensor, faults included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np

from edge_rt.core.errors import InputError, SensorError
from edge_rt.core.types import FloatArray, SampleBlock

CHUNK_S = 0.1  # what a sensor's FIFO gathers between two reads, in real time
FAST_CHUNK_S = 2.0  # without pacing, larger blocks cost less a sample
# Even a reader that comes back after minutes gets no more than this at once: 41 s at 400 Hz.
MAX_BLOCK = 16384

FaultKind = Literal["gap", "burst", "stuck", "nan", "unplug", "clock_step"]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that goes wrong `at_s` after the recording's begin, for `seconds`.

    gap         samples are lost
    burst       samples are held back and come all at once at the end
    stuck       axis `axis` repeats one value
    nan         samples are NaN
    unplug      reading raises SensorError, and so does opening until `seconds` have passed
    clock_step  stamps are off by `step_s` from here on (`seconds` is not used)
    """

    kind: FaultKind
    at_s: float
    seconds: float = 0.0
    axis: int = 0
    step_s: float = 0.0


class ReplayAccelerometer:
    """Plays samples as a sensor would deliver them (an `Accelerometer`).

    block     the samples; stamps may jump or run backwards, as recorded
    rate_hz   nominal rate
    range_g   the recording saturates at +- this
    speed     1 plays in real time, 10 ten times as fast, None as fast as it is read
    repeat    starts over at the end, stamps going on
    faults    what goes wrong, in the first pass
    clock, sleep  seconds; only used when `speed` is given

    Stamps keep the recording's own pace whatever the speed, moved so that the first is `start_s`.
    InputError: no samples, or arrays of the wrong shape.
    """

    def __init__(
        self,
        block: SampleBlock,
        *,
        rate_hz: float,
        range_g: float = 16.0,
        speed: float | None = 1.0,
        repeat: bool = False,
        faults: Sequence[Fault] = (),
        start_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        n = len(block.t_s)
        if n == 0 or block.acc_g.shape != (n, 3):
            raise InputError(
                f"recording of {n} stamps and samples of shape {block.acc_g.shape}; "
                "give one stamp and three axes for each sample"
            )
        if speed is not None and not speed > 0:
            raise InputError(f"speed {speed} is not above 0")
        self.rate_hz = rate_hz
        self.range_g = range_g
        self._speed = speed
        self._repeat = repeat
        self._clock = clock
        self._sleep = sleep
        t_s = np.asarray(block.t_s, np.float64)
        shift = 0.0 if start_s is None else start_s - float(t_s[0])
        self._plain = SampleBlock(t_s + shift, np.asarray(block.acc_g, np.float32))
        self._length_s = float(t_s.max() - t_s[0]) + 1.0 / rate_hz
        self._block, self._due = _spoil(self._plain, faults)
        self._unplugs = sorted(
            (fault.at_s, fault.at_s + fault.seconds) for fault in faults if fault.kind == "unplug"
        )
        self._at = 0  # next sample
        self._passes = 0
        self._begun: float | None = None  # on our clock
        self._position_s = 0.0  # without pacing: how far the play has come
        self._gone_until: float | None = None
        self._opened = False

    def open(self) -> None:
        """Plug in; the first time the play begins. Raises SensorError while it is unplugged."""
        if self._begun is None:
            self._begun = self._clock()
        if self._gone_until is not None:
            if self._speed is None:
                self._position_s = self._gone_until
            if self._now() < self._gone_until:
                raise SensorError("replayed accelerometer is unplugged (injected fault)")
            self._at = int(np.searchsorted(self._due, self._gone_until))
            self._gone_until = None
        self._opened = True

    def read(self, timeout_s: float) -> SampleBlock | None:
        """What has come in; None if nothing comes in `timeout_s`. EOFError at the end.

        Raises SensorError at an unplug fault, and when it is not open.
        """
        if not self._opened:
            raise SensorError("replayed accelerometer is not open; open it first")
        if self._at >= len(self._due):
            self._rewind()
        until = self._wait(timeout_s)
        # A block ends where the plug is pulled, so that what came before is not lost with it.
        pulled = self._unplugs and self._unplugs[0][0] <= until
        if pulled:
            until = self._unplugs[0][0]
        end = int(np.searchsorted(self._due, until, side="left" if pulled else "right"))
        end = min(end, self._at + MAX_BLOCK)
        if end <= self._at:
            if pulled:
                _, self._gone_until = self._unplugs.pop(0)
                self.close()
                raise SensorError("replayed accelerometer was unplugged (injected fault)")
            return None
        begin, self._at = self._at, end
        return SampleBlock(self._block.t_s[begin:end], self._block.acc_g[begin:end])

    def close(self) -> None:
        """Stop reading; the play goes on, as time does."""
        self._opened = False

    def _now(self) -> float:
        if self._speed is None:
            return self._position_s
        assert self._begun is not None
        return (self._clock() - self._begun) * self._speed

    def _wait(self, timeout_s: float) -> float:
        """Position up to which samples are due, after waiting for a chunk or the time-out."""
        if self._speed is None:
            self._position_s = float(self._due[self._at]) + FAST_CHUNK_S
            return self._position_s
        now_s = self._now()
        chunk_s = min(CHUNK_S * max(1.0, self._speed), FAST_CHUNK_S)
        ready_s = min(float(self._due[self._at]) + chunk_s, float(self._due[-1]))
        if ready_s > now_s:
            self._sleep(min(timeout_s, (ready_s - now_s) / self._speed))
        return self._now()

    def _rewind(self) -> None:
        if not self._repeat:
            raise EOFError("the recording is over")
        self._passes += 1
        offset_s = self._passes * self._length_s
        self._block = SampleBlock(self._plain.t_s + offset_s, self._plain.acc_g)
        self._due = _due(self._plain.t_s) + offset_s
        self._at = 0


def _due(t_s: FloatArray) -> FloatArray:
    """When each sample is delivered, seconds since the begin: in order, whatever its stamp says."""
    finite = np.where(np.isfinite(t_s), t_s, -np.inf)
    return np.asarray(np.maximum.accumulate(finite) - t_s[0])


def _spoil(plain: SampleBlock, faults: Sequence[Fault]) -> tuple[SampleBlock, FloatArray]:
    t_s, acc_g, due = plain.t_s.copy(), plain.acc_g.copy(), _due(plain.t_s)
    at = due.copy()
    keep = np.ones(len(t_s), bool)
    for fault in faults:
        during = (at >= fault.at_s) & (at < fault.at_s + fault.seconds)
        match fault.kind:
            case "gap":
                keep &= ~during
            case "burst":
                due[during] = fault.at_s + fault.seconds
            case "stuck" if during.any():
                acc_g[during, fault.axis] = acc_g[during, fault.axis][0]
            case "nan":
                acc_g[during] = np.nan
            case "clock_step":
                t_s[at >= fault.at_s] += fault.step_s
    return SampleBlock(t_s[keep], acc_g[keep]), due[keep]
