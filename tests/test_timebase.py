"""Every odd stamp on a stream built for it, and WEDA's recordings, which have them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rt.adapters.trials import read_trials
from edge_rt.core.errors import InputError
from edge_rt.core.timebase import TICKS_PER_S, Run, SampleClock, Stamps

RATE = 50.0
EVEN = np.arange(200) / RATE


def ticks_of(runs: list[Run]) -> list[int]:
    return [int(t) for run in runs for t in run.ticks]


def placed(stamps: np.ndarray, kind: Stamps = "even") -> tuple[SampleClock, list[Run]]:
    clock = SampleClock(RATE, kind)
    return clock, clock.place(stamps)


def test_even_stamps_are_kept_to_the_microsecond() -> None:
    clock, runs = placed(EVEN + 1234.5)
    assert ticks_of(runs) == [20_000 * k for k in range(200)]
    assert [run.fresh for run in runs] == [True]
    assert clock.origin_s == 1234.5
    assert clock.counters.samples == 200
    assert clock.counters.restarts == clock.counters.gaps == 0


def test_a_repeated_stamp_loses_its_sample() -> None:
    clock, runs = placed(np.insert(EVEN, 100, EVEN[99]))
    assert ticks_of(runs) == [20_000 * k for k in range(200)]
    assert clock.counters.repeated == 1
    assert clock.counters.samples == 200


def test_a_late_sample_is_dropped_and_time_goes_on() -> None:
    clock, runs = placed(np.insert(EVEN, 100, EVEN[80]))
    assert ticks_of(runs) == [20_000 * k for k in range(200)]
    assert (clock.counters.backward, clock.counters.clock_steps) == (1, 0)


def test_a_clock_stepped_back_is_absorbed() -> None:
    clock, runs = placed(np.concatenate((EVEN[:100], EVEN[100:] - 3600.0)))
    assert ticks_of(runs) == [20_000 * k for k in range(200)]
    assert len(runs) == 1
    assert (clock.counters.backward, clock.counters.clock_steps) == (1, 1)


def test_a_short_gap_stays_one_run() -> None:
    clock, runs = placed(np.delete(EVEN, slice(100, 130)))
    assert len(runs) == 1
    assert max(np.diff(runs[0].ticks)) == 31 * 20_000
    assert (clock.counters.gaps, clock.counters.restarts) == (1, 0)


def test_one_lost_sample_is_no_gap() -> None:
    clock, _ = placed(np.delete(EVEN, 100))
    assert clock.counters.gaps == 0


def test_a_long_gap_starts_a_new_run() -> None:
    clock, runs = placed(np.delete(EVEN, slice(100, 151)))
    assert [(run.fresh, len(run.ticks)) for run in runs] == [(True, 100), (True, 49)]
    assert (clock.counters.gaps, clock.counters.restarts) == (1, 1)


def test_one_stamp_far_ahead_costs_two_restarts_at_most() -> None:
    stamps = EVEN.copy()
    stamps[100] += 1000.0
    clock, runs = placed(stamps)
    assert clock.counters.restarts <= 2
    assert np.diff(ticks_of(runs)).min() > 0
    assert clock.counters.samples == 200


@pytest.mark.parametrize("true_hz", [35.0, 39.6, 45.0, 50.0, 53.0, 80.0])
def test_the_rate_is_found_from_bursts(true_hz: float) -> None:
    taken = np.arange(1500) / true_hz
    received = taken[np.minimum(np.arange(1500) // 5 * 5 + 4, 1499)] + 0.03
    clock, runs = placed(received, "arrival")
    ticks = np.array(ticks_of(runs)) / TICKS_PER_S
    assert clock.rate_hz == pytest.approx(true_hz, rel=0.01)
    assert np.abs(np.diff(ticks[250:]) * true_hz - 1.0).max() < 0.15, "bursts came through"
    assert len(ticks) == 1500
    assert clock.counters.repeated == 1200


def test_late_packets_are_put_where_they_belong() -> None:
    received = np.arange(1000) / RATE
    received[500:520] += 1.2
    clock, runs = placed(received, "arrival")
    ticks = np.array(ticks_of(runs)) / TICKS_PER_S
    assert np.abs(ticks - np.arange(1000) / RATE).max() < 0.01
    assert clock.counters.late == 20
    assert clock.counters.backward == 1
    assert clock.counters.clock_steps == clock.counters.restarts == 0


def test_a_lost_stretch_of_arrivals_restarts_after_it_has_settled() -> None:
    received = np.concatenate((np.arange(500), np.arange(600, 1000))) / RATE
    clock, runs = placed(received, "arrival")
    assert clock.counters.restarts == 1
    assert clock.counters.late == 50
    assert runs[-1].ticks[-1] / TICKS_PER_S == pytest.approx(received[-1], abs=0.02)


def test_an_arrival_clock_stepped_back_is_absorbed() -> None:
    received = np.arange(1000) / RATE
    received[500:] -= 100.0
    clock, runs = placed(received, "arrival")
    assert clock.counters.clock_steps == 1
    ticks = np.array(ticks_of(runs)) / TICKS_PER_S
    assert np.abs(ticks - np.arange(1000) / RATE).max() < 0.02


@pytest.mark.parametrize(("rate", "kind"), [(0.0, "even"), (-5.0, "even"), (50.0, "odd")])
def test_nonsense_is_refused(rate: float, kind: str) -> None:
    with pytest.raises(InputError):
        SampleClock(rate, kind)  # type: ignore[arg-type]


ODD_STEPS = st.lists(
    st.sampled_from([0.02] * 8 + [0.0, 0.001, 0.1, 0.7, 3.0, -0.02, -0.5, -4.0, 900.0]),
    min_size=2,
    max_size=120,
)


@settings(deadline=None)
@given(steps=ODD_STEPS, cuts=st.sets(st.integers(1, 119), max_size=8), kind=st.booleans())
def test_blocks_do_not_matter_and_time_never_runs_back(
    steps: list[float], cuts: set[int], kind: bool
) -> None:
    stamps = np.cumsum(steps)
    whole, parts = (SampleClock(RATE, "arrival" if kind else "even") for _ in range(2))
    expected = whole.place(stamps)
    got = [run for part in np.split(stamps, sorted(cuts)) for run in parts.place(part)]
    assert ticks_of(got) == ticks_of(expected)
    assert parts.counters == whole.counters
    assert np.diff(ticks_of(got)).min(initial=1) > 0
    starts = [int(run.ticks[0]) for run in got if run.fresh]
    assert starts == [int(run.ticks[0]) for run in expected if run.fresh]


def test_weda_comes_out_even(shared: Path) -> None:
    """The true times of a recording lie on a line; fitted offline it is the reference."""
    backward = repeated = late = 0
    worst = []
    for trial in read_trials(shared / "data/falls/weda_wrist.npz"):
        assert trial.t_s is not None
        clock, runs = placed(trial.t_s, "arrival")
        ticks = np.array(ticks_of(runs)) / TICKS_PER_S + clock.origin_s
        assert len(ticks) == len(trial.t_s), "no sample of WEDA may be lost"
        assert clock.counters.restarts == 0
        index = np.arange(len(ticks))
        line = np.polyfit(index, trial.t_s, 1)
        near = np.abs(trial.t_s - np.polyval(line, index)) < 0.2
        line = np.polyfit(index[near], trial.t_s[near], 1)
        worst.append(np.abs(ticks - np.polyval(line, index)).max())
        backward += clock.counters.backward
        repeated += clock.counters.repeated
        late += clock.counters.late
    assert backward == 20  # negative steps within trials (7 more lie between trials)
    assert late > 0
    assert np.percentile(worst, 50) < 0.05
    assert np.percentile(worst, 99) < 0.15
