"""core.signal: broken, saturated and unworn accelerometers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_rt.adapters.trials import read_trials
from edge_rt.core.signal import Change, SignalHealth, SignalRules
from edge_rt.core.types import SampleBlock

RATE_HZ = 50.0


class Wire:
    """A sensor of 16 g that is fed second by second; keeps every change with its time."""

    def __init__(self, rules: SignalRules | None = None, block: int = 10) -> None:
        self.health = SignalHealth(16.0, rules)
        self.rng = np.random.default_rng(1)
        self.block = block
        self.t_s = 0.0
        self.changes: list[tuple[float, Change]] = []

    def feed(self, seconds: float, noise_g: float = 0.05, value: float | None = None) -> None:
        for _ in range(round(seconds * RATE_HZ / self.block)):
            acc = self.rng.normal(0.0, noise_g, (self.block, 3)) + [0.0, 0.0, 1.0]
            if value is not None:
                acc[:] = value
            t_s = self.t_s + np.arange(1, self.block + 1) / RATE_HZ
            self.t_s = float(t_s[-1])
            changes = self.health.feed(SampleBlock(t_s, acc.astype(np.float32)))
            self.changes += [(self.t_s, change) for change in changes]

    @property
    def said(self) -> list[str]:
        return [change.what for _, change in self.changes]


@pytest.mark.parametrize("block", [1, 10, 250])
def test_a_frozen_sensor_is_lost_and_comes_back(block: int) -> None:
    wire = Wire(block=block)
    wire.feed(20)
    wire.feed(30, value=0.5)
    assert wire.said == ["sensor_lost"]
    at_s, change = wire.changes[0]
    assert change.data["reason"] == "frozen"
    assert 30.0 <= at_s <= 31.1 + block / RATE_HZ  # two updates, or one block, late
    assert wire.health.status()["signal"] == "frozen"
    wire.feed(20)
    assert wire.said == ["sensor_lost", "sensor_back"]
    assert wire.health.status()["signal"] == "ok"


@pytest.mark.parametrize(("axes", "said"), [(1, []), (2, ["sensor_lost"])])
def test_one_stuck_axis_is_not_a_frozen_sensor(axes: int, said: list[str]) -> None:
    wire = Wire()
    rng = np.random.default_rng(1)
    for k in range(0, 1000, 10):
        acc = rng.normal(0.0, 0.1, (10, 3)).astype(np.float32)
        acc[:, :axes] = 0.25
        t_s = (k + np.arange(10)) / RATE_HZ
        wire.changes += [(0.0, change) for change in wire.health.feed(SampleBlock(t_s, acc))]
    assert wire.said == said


@pytest.mark.parametrize(("step_g", "said"), [(0.0039, ["sensor_lost"]), (0.0156, [])])
def test_a_coarse_sensor_that_lies_still_is_not_frozen(step_g: float, said: list[str]) -> None:
    health, rng = SignalHealth(16.0), np.random.default_rng(1)
    changes = []
    for k in range(0, 6000, 10):
        noise_g = 0.1 if k < 500 else 0.0  # put down after ten seconds
        acc = np.round((rng.normal(0.0, noise_g, (10, 3)) + [0.0, 0.0, 1.0]) / step_g) * step_g
        block = SampleBlock((k + np.arange(10)) / RATE_HZ, acc.astype(np.float32))
        changes += [change.what for change in health.feed(block)]
    assert changes == said


def test_a_short_constant_stretch_is_nothing() -> None:
    wire = Wire()
    for _ in range(5):
        wire.feed(5)
        wire.feed(5, value=0.5)
    assert wire.said == []


def test_nothing_but_nan_is_lost_and_some_nan_is_counted() -> None:
    wire = Wire()
    wire.feed(5)
    wire.feed(1, value=np.nan)
    wire.feed(5)
    assert wire.said == []
    assert wire.health.status()["not_finite_share"] == pytest.approx(1 / 11, abs=3e-3)
    wire.feed(4, value=np.nan)
    wire.feed(2)
    assert wire.said == ["sensor_lost", "sensor_back"]
    assert wire.changes[0][1].data["reason"] == "not_finite"


def test_saturation_is_a_share() -> None:
    wire = Wire()
    wire.feed(9)
    wire.feed(1, value=16.0)
    wire.feed(1)
    assert wire.health.status()["saturated_share"] == pytest.approx(1 / 11, abs=0.005)


@pytest.mark.parametrize(
    "change",
    [
        lambda acc: acc * 4.0,  # the scale of another range
        lambda acc: acc * 0.25,
        lambda acc: np.where([True, False, False], np.float32(8.0), acc),
        lambda acc: np.where([True, False, False], np.float32(-16.0), acc),
        lambda acc: acc - np.float32([0, 0, 1]),  # feels nothing
    ],
)
def test_what_cannot_be_felt_at_rest_is_told_and_forgiven(change: Any) -> None:
    health, rng, said = SignalHealth(16.0), np.random.default_rng(1), []
    for k in range(0, 300 * 50, 10):
        acc = (rng.normal(0.0, 0.003, (10, 3)) + [0.0, 0.0, 1.0]).astype(np.float32)
        t_s = (k + np.arange(10)) / RATE_HZ
        wrong = 50 <= k / 50 < 180
        said += health.feed(SampleBlock(t_s, change(acc) if wrong else acc))
    assert [change.what for change in said] == ["sensor_lost", "sensor_back"]
    assert said[0].data["reason"] in ("implausible", "saturated")
    assert health.status()["signal"] == "ok"


@pytest.mark.parametrize(
    ("range_g", "step_g"),
    [
        pytest.param(16.0, 0.0, id="whole"),
        pytest.param(16.0, 0.0625, id="coarse", marks=pytest.mark.release),
        pytest.param(2.0, 0.0, id="narrow", marks=pytest.mark.release),
    ],
)
def test_recorded_people_do_what_can_be_felt(shared: Path, range_g: float, step_g: float) -> None:
    """Daily activities of SisFall, one behind the other, also by coarse and by narrow sensors."""
    for path in sorted((shared / "data/falls/sisfall").glob("S*.npz"))[::3]:
        health, at_s, said = SignalHealth(range_g), 0.0, []
        for trial in read_trials(path):
            if trial.is_fall:
                continue
            acc = np.clip(trial.acc_g, -range_g, range_g)
            acc = acc if not step_g else np.rint(acc / step_g) * step_g
            for k in range(0, len(acc), 100):
                part = acc[k : k + 100].astype(np.float32)
                said += health.feed(SampleBlock(at_s + np.arange(len(part)) / 200.0, part))
                at_s += len(part) / 200.0
        assert [change for change in said if change.what == "sensor_lost"] == [], path.name


def test_an_hour_on_a_table_is_not_worn_and_a_sleeper_is() -> None:
    # 5 mg of sensor noise alone, as the paper's criterion expects; then somebody picks it up.
    table = Wire(block=250)
    table.feed(3700, noise_g=0.004)
    assert table.said == ["not_worn"]
    assert table.health.status()["worn"] is False
    table.feed(10)
    assert table.health.status()["worn"] is True
    sleeper = Wire(block=250)
    for _ in range(8):
        sleeper.feed(900, noise_g=0.006)
        sleeper.feed(2, noise_g=0.2)  # turns over
    assert sleeper.said == []


def test_odd_stamps_do_not_let_it_grow() -> None:
    health = SignalHealth(16.0)
    acc = np.ones((1, 3), np.float32)
    for k in range(2000):
        health.feed(SampleBlock(np.array([-k / RATE_HZ]), acc))
        health.feed(SampleBlock(np.array([np.nan]), acc))
    assert health.status()["samples"] >= 3500
