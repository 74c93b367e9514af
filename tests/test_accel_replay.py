"""adapters.accel_replay, on a clock that the test drives."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.adapters.accel_replay import Fault, ReplayAccelerometer
from edge_rt.core.errors import InputError, SensorError
from edge_rt.core.types import Accelerometer, SampleBlock

RATE_HZ = 50.0


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0.0
        self.now_s += seconds


def recording(seconds: float = 4.0) -> SampleBlock:
    n = round(seconds * RATE_HZ)
    acc_g = np.random.default_rng(3).normal(0.0, 0.1, (n, 3)).astype(np.float32)
    return SampleBlock(np.arange(n) / RATE_HZ, acc_g)


def drain(source: Accelerometer) -> list[SampleBlock]:
    blocks = []
    source.open()
    try:
        while True:
            block = source.read(0.5)
            if block is not None:
                blocks.append(block)
    except EOFError:
        return blocks


def joined(blocks: list[SampleBlock]) -> SampleBlock:
    return SampleBlock(
        np.concatenate([block.t_s for block in blocks]),
        np.concatenate([block.acc_g for block in blocks]),
    )


@pytest.mark.parametrize("speed", [None, 1.0, 8.0])
def test_every_sample_comes_once_and_at_its_pace(speed: float | None) -> None:
    clock, tape = Clock(), recording()
    source = ReplayAccelerometer(tape, rate_hz=RATE_HZ, speed=speed, clock=clock, sleep=clock.sleep)
    blocks = drain(source)
    played = joined(blocks)
    np.testing.assert_array_equal(played.t_s, tape.t_s)
    np.testing.assert_array_equal(played.acc_g, tape.acc_g)
    expected = 0.0 if speed is None else 4.0 / speed
    assert clock.now_s - 100.0 == pytest.approx(expected, abs=0.03)
    if speed == 1.0:
        assert max(len(block.t_s) for block in blocks) <= 7


def test_a_late_reader_gets_all_that_is_due_and_a_short_timeout_nothing() -> None:
    clock = Clock()
    source = ReplayAccelerometer(recording(), rate_hz=RATE_HZ, clock=clock, sleep=clock.sleep)
    source.open()
    clock.now_s += 2.0
    block = source.read(0.0)
    assert block is not None and len(block.t_s) == 101
    assert source.read(0.0) is None


def test_repeat_goes_on_with_rising_stamps() -> None:
    source = ReplayAccelerometer(recording(), rate_hz=RATE_HZ, speed=None, repeat=True)
    source.open()
    blocks = [source.read(0.0) for _ in range(6)]
    t_s = joined([block for block in blocks if block is not None]).t_s
    np.testing.assert_allclose(np.diff(t_s), 1 / RATE_HZ, atol=1e-9)
    assert t_s[-1] > 8.0


def test_start_moves_the_stamps() -> None:
    source = ReplayAccelerometer(recording(), rate_hz=RATE_HZ, speed=None, start_s=500.0)
    assert joined(drain(source)).t_s[0] == 500.0


def test_gap_nan_stuck_and_clock_step_change_the_samples() -> None:
    faults = [
        Fault(kind="gap", at_s=0.5, seconds=0.5),
        Fault(kind="nan", at_s=1.0, seconds=0.2),
        Fault(kind="stuck", at_s=2.0, seconds=1.0, axis=1),
        Fault(kind="clock_step", at_s=3.5, step_s=-60.0),
    ]
    source = ReplayAccelerometer(recording(), rate_hz=RATE_HZ, speed=None, faults=faults)
    played = joined(drain(source))
    assert len(played.t_s) == 175
    assert np.diff(played.t_s).max() == pytest.approx(0.52)
    assert np.isnan(played.acc_g).all(axis=1).sum() == 10
    stuck = (played.t_s >= 2.0) & (played.t_s < 3.0)
    assert np.ptp(played.acc_g[stuck, 1]) == 0.0 and np.ptp(played.acc_g[stuck, 0]) > 0.0
    assert played.t_s[-1] == pytest.approx(3.98 - 60.0)


def test_a_burst_holds_samples_back_but_keeps_their_stamps() -> None:
    clock, tape = Clock(), recording()
    source = ReplayAccelerometer(
        tape,
        rate_hz=RATE_HZ,
        faults=[Fault(kind="burst", at_s=1.0, seconds=1.5)],
        clock=clock,
        sleep=clock.sleep,
    )
    blocks = drain(source)
    assert max(len(block.t_s) for block in blocks) >= 75
    np.testing.assert_array_equal(joined(blocks).t_s, tape.t_s)


@pytest.mark.parametrize("speed", [None, 1.0])
def test_unplug_is_an_error_until_it_is_plugged_in_again(speed: float | None) -> None:
    clock = Clock()
    source = ReplayAccelerometer(
        recording(),
        rate_hz=RATE_HZ,
        speed=speed,
        faults=[Fault(kind="unplug", at_s=1.0, seconds=2.0)],
        clock=clock,
        sleep=clock.sleep,
    )
    source.open()
    before = []
    with pytest.raises(SensorError, match="was unplugged"):
        while True:
            block = source.read(0.5)
            if block is not None:
                before.append(block)
    assert joined(before).t_s[-1] == pytest.approx(0.98)
    with pytest.raises(SensorError, match="not open"):
        source.read(0.1)
    if speed is not None:
        with pytest.raises(SensorError, match="is unplugged"):
            source.open()
        clock.now_s += 2.0
    after = joined(drain(source))
    assert after.t_s[0] == pytest.approx(3.0)
    assert after.t_s[-1] == pytest.approx(3.98)


def test_backward_stamps_are_delivered_in_the_recorded_order() -> None:
    tape = recording(1.0)
    tape.t_s[20:25] -= 0.3
    source = ReplayAccelerometer(tape, rate_hz=RATE_HZ, speed=None)
    np.testing.assert_array_equal(joined(drain(source)).t_s, tape.t_s)


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="one stamp and three axes"):
        ReplayAccelerometer(SampleBlock(np.zeros(0), np.zeros((0, 3), np.float32)), rate_hz=50.0)
    with pytest.raises(InputError, match="speed"):
        ReplayAccelerometer(recording(), rate_hz=50.0, speed=0.0)
