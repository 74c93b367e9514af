"""The drivers of both chips on the model bus: every word as it was sampled, whatever goes wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driven import DrivenTime
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rt.adapters.accel_adxl345 import Adxl345
from edge_rt.adapters.accel_i2c import I2cAccelerometer
from edge_rt.adapters.accel_mpu6050 import Mpu6050
from edge_rt.adapters.bus_model import ModelBus
from edge_rt.adapters.trials import read_trials
from edge_rt.core import adxl345, mpu6050
from edge_rt.core.config import BusFault
from edge_rt.core.errors import SensorError
from edge_rt.core.register_models import Adxl345Model, Mpu6050Model, RegisterModel
from edge_rt.core.types import SampleBlock
from edge_rt.runtime.accelerometer import BACKOFF_S

BLOCKS = pytest.mark.parametrize("max_block", [32, 512])


class Bench:
    """A chip, its driver, and a clock that only the test moves."""

    def __init__(
        self, driver: Any, chip: RegisterModel, acc_g: np.ndarray, rate_hz: float, **options: Any
    ) -> None:
        self.time = DrivenTime()
        self.chip = chip
        self.bus = ModelBus(
            chip,
            options.pop("address", driver.address),
            acc_g,
            rate_hz,
            repeat=False,
            clock=self.time,
            sleep=self.time.sleep,
            **options,
        )
        self.accel = I2cAccelerometer(
            driver, lambda: self.bus, "a model bus", clock=self.time, sleep=self.time.sleep
        )
        self.got: list[SampleBlock] = []

    def run(self, seconds: float) -> None:
        """Read as the reader does."""
        end_s = self.time.now_s + seconds
        while self.time.now_s < end_s:
            block = self.accel.read(0.5)
            if block is not None:
                self.got.append(block)

    @property
    def acc_g(self) -> np.ndarray:
        return np.concatenate([block.acc_g for block in self.got])

    @property
    def t_s(self) -> np.ndarray:
        return np.concatenate([block.t_s for block in self.got])


def counts(seed: int, n: int, limit: int) -> np.ndarray:
    """Rows that all differ, extremes among them."""
    words = np.random.default_rng(seed).integers(-limit, limit, (n, 3)).astype(np.int16)
    words[:2] = [[-limit, limit - 1, 0], [limit - 1, -limit, -1]]
    return words


def mpu(words: np.ndarray, range_g: int = 16, rate_hz: float = 100.0, **options: Any) -> Bench:
    acc_g = words.astype(np.float32) / np.float32(mpu6050.LSB_PER_G[range_g])
    driver = Mpu6050(0x68, range_g, rate_hz, 44, options.pop("fifo", True))
    return Bench(driver, Mpu6050Model(), acc_g, options.pop("felt_hz", driver.rate_hz), **options)


def adxl(words: np.ndarray, rate_hz: int = 100, **options: Any) -> Bench:
    acc_g = words.astype(np.float32) / np.float32(256)
    driver = Adxl345(0x53, 16, rate_hz, options.pop("fifo", True))
    return Bench(driver, Adxl345Model(), acc_g, options.pop("felt_hz", rate_hz), **options)


MAKERS: dict[str, tuple[Callable[..., Bench], float, int]] = {
    "mpu6050": (mpu, 2048.0, 32768),
    "adxl345": (adxl, 256.0, 4096),
}
BOTH = pytest.mark.parametrize("name", MAKERS)


def opened(name: str, n: int = 2000, **options: Any) -> tuple[Bench, np.ndarray]:
    make, lsb, limit = MAKERS[name]
    words = counts(3, n, limit)
    bench = make(words, **options)
    bench.accel.open()
    return bench, words / lsb


def places(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Where in `truth` each row of `found` is, to the last bit; fails for a row that is not."""
    where = {row.tobytes(): k for k, row in enumerate(truth.astype(np.float32))}
    return np.array([where[row.tobytes()] for row in found])


# ---- the plain way ----


@BOTH
@BLOCKS
def test_every_sample_comes_once_in_order_and_exactly(name: str, max_block: int) -> None:
    bench, truth = opened(name, max_block=max_block)
    bench.run(12.0)
    assert len(bench.acc_g) > 1150 and bench.acc_g.dtype == np.float32
    at = places(bench.acc_g, truth)
    assert (np.diff(at) == 1).all()
    assert np.diff(bench.t_s) == pytest.approx(np.full(len(at) - 1, 0.01), rel=0.05)
    assert bench.accel.status()["overflows"] == bench.accel.status()["bus_errors"] == 0


@BOTH
def test_polling_reads_the_newest_sample_at_the_given_rate(name: str) -> None:
    bench, truth = opened(name, n=9000, fifo=False, felt_hz=1000.0)
    bench.run(3.0)
    at = places(bench.acc_g, truth)
    assert len(at) == pytest.approx(300, abs=10) and (np.diff(at) > 0).all()
    assert np.diff(bench.t_s) == pytest.approx(np.full(len(at) - 1, 0.01), rel=1e-6)


@pytest.mark.parametrize("range_g", [2, 4, 8, 16])
def test_each_range_of_the_mpu6050_is_exact(range_g: int) -> None:
    words = counts(range_g, 300, 32768)
    bench = mpu(words, range_g)
    bench.accel.open()
    bench.run(2.0)
    truth = words / mpu6050.LSB_PER_G[range_g]
    assert (np.diff(places(bench.acc_g, truth)) == 1).all() and bench.accel.range_g == range_g


def test_the_nearest_rate_is_set_and_told() -> None:
    assert Mpu6050(0x68, 16, 60.0, 44).rate_hz == pytest.approx(1000 / 17)
    chip = Mpu6050Model()
    driver = Mpu6050(0x68, 8, 60.0, 21)
    driver.set_up(ModelBus(chip, 0x68, np.zeros((1, 3), np.float32), 60.0), DrivenTime().sleep)
    assert chip.rate_hz == driver.rate_hz and chip.lsb_per_g == 4096.0


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(MAKERS)),
    st.lists(st.floats(0.001, 0.25), min_size=5, max_size=40),
    st.floats(-0.05, 0.05),
)
def test_jitter_of_the_host_does_not_become_jitter_of_samples(
    name: str, delays_s: list[float], error: float
) -> None:
    """However irregular the turns are, as long as the FIFO does not overflow."""
    bench, truth = opened(name, clock_error=error)
    bench.run(4.0)
    for delay_s in delays_s:
        bench.time.sleep(delay_s)
        bench.run(0.001)
    at = places(bench.acc_g, truth)
    assert (np.diff(at) == 1).all()
    period_s = 1.0 / (100.0 * (1 + error))
    late = bench.t_s[len(bench.t_s) // 2 :]
    assert np.abs(np.diff(late) / period_s - 1.0).max() < 0.25


# ---- overflow ----


@BOTH
def test_an_overflow_is_a_counted_gap_and_nothing_is_misread(name: str) -> None:
    bench, truth = opened(name)
    bench.run(2.0)
    bench.time.sleep(2.5)  # 250 samples; there is room for 170 and for 32
    bench.run(3.0)
    at = places(bench.acc_g, truth)
    assert (np.diff(at) > 0).all() and (np.diff(at) > 1).sum() == 1
    assert bench.accel.status()["overflows"] == 1
    hole = int(np.argmax(np.diff(at)))
    lost = np.diff(at)[hole]
    assert lost == pytest.approx(250 - {"mpu6050": 170, "adxl345": 32}[name], abs=12)
    # The gap shows in the stamps, as long as it was: nobody will join what is not one motion.
    assert np.diff(bench.t_s)[hole] == pytest.approx(lost * 0.01, abs=0.02)


@BLOCKS
@pytest.mark.parametrize(("name", "depth"), [("mpu6050", 170), ("adxl345", adxl345.DEPTH)])
def test_after_an_overflow_the_newest_samples_are_still_there(
    name: str, depth: int, max_block: int
) -> None:
    """170 frames of the MPU-6050's 1024 bytes are whole; the four odd bytes are the oldest."""
    bench, truth = opened(name, max_block=max_block)
    bench.run(1.0)
    bench.got.clear()
    bench.time.sleep(2.0)
    block = bench.accel.read(0.5)
    assert block is not None
    at = places(block.acc_g, truth)
    assert len(at) == depth and at[-1] == bench.bus.taken - 1
    bench.run(3.0)
    assert np.diff(places(bench.acc_g, truth)).max() == 1
    assert bench.accel.status()["overflows"] == 1


def test_an_overflow_between_count_and_burst_is_a_gap_and_misreads_nothing() -> None:
    bench, truth = opened("mpu6050", transfer_s=0.0005)
    bench.run(1.3)
    counted_s = bench.accel._due_s + 0.0005 - bench.bus._begun_s
    bench.bus._faults = [BusFault(kind="stall", at_s=counted_s + 0.0002, seconds=1.66)]
    bench.run(4.0)
    at = places(bench.acc_g, truth)
    assert (np.diff(at) > 0).all() and bench.t_s[-1] > bench.time.now_s - 0.3
    assert bench.accel.status()["overflows"] == 1


@pytest.mark.parametrize("n", range(1, 6))
def test_stray_bytes_in_the_fifo_of_the_mpu6050_are_a_gap_and_misread_nothing(n: int) -> None:
    """Whatever put them there: no axis is taken for another, and it ends by itself."""
    bench, truth = opened("mpu6050")
    bench.run(1.0)
    bench.chip.stray(b"\x12" * n)
    bench.run(2.0)
    at = places(bench.acc_g, truth)
    assert (np.diff(at) > 0).all() and 1 < np.diff(at).max() < 25
    assert bench.accel.status()["overflows"] == 1


@BOTH
def test_what_came_before_the_bus_failed_is_handed_over(name: str) -> None:
    """It would not come again, and it may be the fall."""
    bench, truth = opened(name, transfer_s=0.0005)
    bench.run(1.0)
    bench.time.sleep({"mpu6050": 0.6, "adxl345": 0.2}[name])
    begun_s = bench.time.now_s - bench.bus._begun_s
    bench.bus._faults = [BusFault(kind="torn", at_s=begun_s + 0.0085, seconds=0.0007)]
    read = len(bench.acc_g)
    bench.run(1.0)
    at = places(bench.acc_g, truth)
    assert (np.diff(at) > 0).all() and (np.diff(bench.t_s) > 0).all()
    assert at[read + 2] - at[read - 1] == 3  # the first ones of that turn
    assert bench.accel.status()["bus_errors"] == 1


@BOTH
def test_a_count_that_no_fifo_has_is_an_error_of_the_bus(name: str) -> None:
    class Nonsense(Mpu6050Model if name == "mpu6050" else Adxl345Model):  # type: ignore[misc]
        broken = False

        def read(self, register: int, length: int) -> bytes:
            counts = (mpu6050.FIFO_COUNT_H, adxl345.FIFO_STATUS)
            if self.broken and register in counts:
                return b"\xff" * length
            return super().read(register, length)

    make, _, limit = MAKERS[name]
    bench = make(counts(3, 500, limit))
    bench.bus._chip = chip = Nonsense()
    bench.accel.open()
    bench.run(1.0)
    chip.broken = True
    assert read_on(bench, 0.2) == []
    assert 1 <= bench.accel.status()["bus_errors"] <= 3
    (lost, *_) = read_on(bench, 1.0)
    assert "counts" in lost and "check the wiring" in lost


@pytest.mark.parametrize("waiting", [169, 170, 171])
def test_the_brim_of_the_mpu6050s_fifo(waiting: int) -> None:
    """169 frames are whole; from 170 on the next one breaks the framing."""
    bench, truth = opened("mpu6050")
    bench.time.sleep(waiting * 0.01 + 0.002)
    bench.run(0.001)
    assert bench.accel.status()["overflows"] == (waiting > 169)
    bench.run(1.0)
    assert (np.diff(places(bench.acc_g, truth)) > 0).all()


# ---- what a bus does ----


def read_on(bench: Bench, seconds: float) -> list[str]:
    """As the reader does: what is lost is closed, and opened again until it opens."""
    lost, end_s = [], bench.time.now_s + seconds
    while bench.time.now_s < end_s:
        try:
            if not bench.accel.is_open:
                bench.accel.open()
            bench.run(end_s - bench.time.now_s)
        except SensorError as error:
            lost.append(str(error))
            bench.accel.close()
            bench.time.sleep(0.2)
    return lost


@BOTH
@BLOCKS
@pytest.mark.parametrize("kind", ["torn", "errors"])
def test_a_single_failed_transfer_is_survived(name: str, max_block: int, kind: Any) -> None:
    """It costs what was on its way, and no wrong sample; nobody has to be told."""
    failed = 0
    for at_s in np.arange(0.2999, 0.3999, 0.0005):  # each transfer of a turn and more
        fault = BusFault(kind=kind, at_s=at_s, seconds=0.0004)
        bench, truth = opened(name, max_block=max_block, transfer_s=0.0005, faults=[fault])
        assert read_on(bench, 0.8) == []
        at = places(bench.acc_g, truth)
        assert (np.diff(at) > 0).all() and np.diff(at).max() < 25
        errors = bench.accel.status()["bus_errors"]
        assert (np.diff(at) > 1).sum() <= errors <= 1
        failed += errors
    assert failed > 0


@BOTH
def test_a_chip_pulled_out_is_lost_within_two_seconds_and_comes_back(name: str) -> None:
    fault = BusFault(kind="unplug", at_s=3.0, seconds=2.0)
    bench, truth = opened(name, transfer_s=0.0005, faults=[fault])
    begun_s = bench.bus._begun_s
    with pytest.raises(SensorError, match="no answer"):
        bench.run(9.0)
    assert 3.0 < bench.time.now_s - begun_s < 3.3
    bench.accel.close()
    assert len(read_on(bench, 4.0)) >= 5
    at = places(bench.acc_g, truth)
    assert (np.diff(at) > 0).all() and (np.diff(bench.t_s) > 0).all()
    assert np.diff(bench.t_s).max() == pytest.approx(2.0, abs=0.5)
    assert bench.accel.status()["opened"] == 2


@BOTH
@pytest.mark.parametrize("fifo", [True, False])
def test_a_dip_of_the_power_shows_within_two_seconds(name: str, fifo: bool) -> None:
    """The chip is there as before, asleep and with its settings gone."""
    bench, _ = opened(name, n=9000, fifo=fifo)
    bench.run(2.35)
    bench.chip.power_on()
    begun_s = bench.time.now_s
    with pytest.raises(SensorError, match="was set to"):
        bench.run(9.0)
    assert bench.time.now_s - begun_s < (0.4 if fifo else 1.5)


@BOTH
def test_a_chip_that_answers_and_delivers_nothing_is_lost(name: str) -> None:
    bench, _ = opened(name)
    bench.run(1.0)
    bench.bus._own_hz = 0.0  # its oscillator stands still
    begun_s = bench.time.now_s
    with pytest.raises(SensorError, match="delivers no samples"):
        bench.run(9.0)
    assert bench.time.now_s - begun_s < 1.5


@BOTH
def test_a_transfer_that_hangs_is_an_overflow(name: str) -> None:
    fault = BusFault(kind="stall", at_s=2.0, seconds=3.0)
    bench, truth = opened(name, transfer_s=0.0005, faults=[fault])
    assert read_on(bench, 8.0) == []
    at = places(bench.acc_g, truth)
    assert (np.diff(at) > 0).all() and np.diff(at).max() > 100


FAULTS = st.builds(
    BusFault,
    kind=st.sampled_from(["unplug", "errors", "torn", "stall"]),
    at_s=st.floats(0.0, 8.0),
    seconds=st.one_of(st.floats(0.0002, 0.01), st.floats(0.01, 3.0)),
)


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(MAKERS)),
    st.sampled_from([32, 512]),
    st.lists(FAULTS, max_size=6),
    st.floats(-0.05, 0.05),
    st.floats(0.0, 0.001),
)
def test_whatever_the_bus_does_no_sample_is_misread_twice_or_out_of_order(
    name: str, max_block: int, faults: Sequence[BusFault], error: float, transfer_s: float
) -> None:
    make, lsb, limit = MAKERS[name]
    words = counts(5, 2000, limit)
    bench = make(
        words, max_block=max_block, faults=faults, clock_error=error, transfer_s=transfer_s
    )
    read_on(bench, 16.0)
    at = places(bench.acc_g, words / lsb)
    assert (np.diff(at) > 0).all() and (np.diff(bench.t_s) > 0).all()
    assert bench.t_s[-1] > bench.time.now_s - 0.5  # and it came back each time


# ---- who answers ----


@BOTH
def test_another_chip_is_refused_by_its_name(name: str) -> None:
    class Stranger(Mpu6050Model):
        def read(self, register: int, length: int) -> bytes:
            return b"\x70" * length

    bench, _ = opened(name)
    driver = Mpu6050(0x68, 16, 100.0, 44) if name == "mpu6050" else Adxl345(0x53, 16, 100)
    stranger = Bench(driver, Stranger(), np.zeros((1, 3)), 100.0)
    with pytest.raises(SensorError, match="is 0x70, not 0x(68|e5); another chip"):
        stranger.accel.open()


@BOTH
@pytest.mark.parametrize("level", [0x00, 0xFF])
def test_a_bus_that_is_held_is_not_another_chip(name: str, level: int) -> None:
    class Held(Mpu6050Model):
        def read(self, register: int, length: int) -> bytes:
            return bytes([level]) * length

    driver = Mpu6050(0x68, 16, 100.0, 44) if name == "mpu6050" else Adxl345(0x53, 16, 100)
    bench = Bench(driver, Held(), np.zeros((1, 3)), 100.0)
    with pytest.raises(SensorError, match="the bus is held; check power and wiring"):
        bench.accel.open()


@BOTH
def test_nobody_at_this_address(name: str) -> None:
    make, _, limit = MAKERS[name]
    bench = make(counts(1, 10, limit), address=0x2A)
    with pytest.raises(SensorError, match="no answer from 0x"):
        bench.accel.open()


def test_a_register_that_does_not_take_its_value_is_named() -> None:
    class Stubborn(Mpu6050Model):
        def write(self, register: int, value: int) -> None:
            super().write(register, 0 if register == mpu6050.ACCEL_CONFIG else value)

    bench = Bench(Mpu6050(0x68, 16, 100.0, 44), Stubborn(), np.zeros((1, 3)), 100.0)
    with pytest.raises(SensorError, match="register 0x1c reads 0x00, was set to 0x18"):
        bench.accel.open()


def test_reading_what_is_not_open() -> None:
    with pytest.raises(SensorError, match="open it first"):
        mpu(counts(1, 10, 100)).accel.read(0.1)


def test_the_mpu6050_is_reset_before_it_is_set_up() -> None:
    """Whatever it was set to by somebody else, or by half a transfer."""
    chip = Mpu6050Model()
    for register in (*range(0x1A, 0x39), 0x6A, 0x6B, 0x6C):
        chip.write(register, 0x03)
    bench = Bench(Mpu6050(0x68, 16, 100.0, 44), chip, np.zeros((1, 3)), 100.0)
    bench.accel.open()
    fresh = Mpu6050Model()
    Bench(Mpu6050(0x68, 16, 100.0, 44), fresh, np.zeros((1, 3)), 100.0).accel.open()
    assert chip.read(0x19, 0x72 - 0x19) == fresh.read(0x19, 0x72 - 0x19)


def test_a_chip_that_never_ends_its_reset_is_set_up_all_the_same() -> None:
    class Stub(Mpu6050Model):  # as the kernel's i2c-stub: what is written stands there
        def write(self, register: int, value: int) -> None:
            if value == mpu6050.DEVICE_RESET:
                self._registers[register] = value
            else:
                super().write(register, value)

    bench = Bench(Mpu6050(0x68, 16, 100.0, 44), Stub(), np.zeros((1, 3)), 100.0)
    begun_s = bench.time.now_s
    bench.accel.open()
    assert bench.time.now_s - begun_s == pytest.approx(mpu6050.RESET_S, abs=0.02)


@BOTH
def test_a_blink_of_the_power_at_the_impact_costs_a_fifth_of_a_second(name: str) -> None:
    bench, truth = opened(name)
    bench.run(2.0)
    bench.chip.power_on()
    with pytest.raises(SensorError, match="was set to"):
        bench.run(9.0)
    bench.accel.close()
    bench.time.sleep(BACKOFF_S[0])
    bench.accel.open()
    bench.run(2.0)
    at = places(bench.acc_g, truth)
    assert (np.diff(at) > 0).all() and np.diff(at).max() <= 35


def test_every_register_of_the_adxl345_is_put_to_a_known_value() -> None:
    """It has no reset."""
    chip = Adxl345Model()
    for register in (*range(0x1D, 0x30), 0x31, 0x38):
        chip.write(register, 0x03)
    bench = Bench(Adxl345(0x53, 16, 100), chip, np.zeros((1, 3)), 100.0)
    bench.accel.open()
    fresh = Adxl345Model()
    Bench(Adxl345(0x53, 16, 100), fresh, np.zeros((1, 3)), 100.0).accel.open()
    # 0x2B tells of taps and can only be read.
    others = [r for r in range(0x1D, 0x39) if r != 0x2B]
    assert [chip.read(r, 1) for r in others] == [fresh.read(r, 1) for r in others]


# ---- recordings ----


def test_sisfall_comes_back_bit_for_bit_through_the_adxl345(shared: Path) -> None:
    """Its counts are those of an ADXL345 at 200 Hz and full resolution."""
    trials = [t for t in read_trials(shared / "data/falls/sisfall/SA01.npz") if t.is_fall][:12]
    for trial in trials:
        words = np.rint(trial.acc_g * 256).astype(np.int16)
        bench = adxl(words, rate_hz=200)
        bench.accel.open()
        bench.run(len(words) / 200 + 0.5)
        found = bench.acc_g[: len(words)]
        first = int(np.argmax((trial.acc_g[:50] == found[0]).all(axis=1)))
        assert first == 0 and found.tobytes() == trial.acc_g.tobytes()


def test_sisfall_across_overflows_torn_reads_and_errors(shared: Path) -> None:
    trial = next(t for t in read_trials(shared / "data/falls/sisfall/SA02.npz") if t.is_fall)
    words = np.rint(trial.acc_g * 256).astype(np.int16)
    faults = [
        BusFault(kind="torn", at_s=1.0, seconds=0.05),
        BusFault(kind="stall", at_s=3.0, seconds=1.0),
        BusFault(kind="errors", at_s=6.0, seconds=0.3),
        BusFault(kind="unplug", at_s=9.0, seconds=0.5),
    ]
    bench = adxl(words, rate_hz=200, faults=faults, transfer_s=0.0003)
    read_on(bench, 14.0)
    recorded = iter(trial.acc_g)
    for k, row in enumerate(bench.acc_g):  # each is found behind the one before
        assert any(row.tobytes() == other.tobytes() for other in recorded), k
    assert 2000 < len(bench.acc_g) < len(words)
    status = bench.accel.status()
    assert status["overflows"] >= 1 and status["bus_errors"] >= 1 and status["opened"] >= 3


def test_mpu6050_logs_come_back_bit_for_bit(shared: Path) -> None:
    files = sorted((shared / "data/i2c").glob("*.csv"))
    assert files
    for path in files:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        acc_g = np.array([[float(row[axis]) for axis in ("Ax", "Ay", "Az")] for row in rows])
        words = np.rint(acc_g * 16384).astype(np.int16)
        bench = mpu(words, range_g=2)
        bench.accel.open()
        bench.run(len(words) / 100 + 0.5)
        assert np.array_equal(bench.acc_g[: len(words)].astype(np.float64), acc_g), path.name
