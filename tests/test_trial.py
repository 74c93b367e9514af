"""The trial's monitors: each stops what it is for, and a good model is confirmed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_rt.core.errors import StorageError
from edge_rt.core.trial import TrialPolicy, TrialTally, judge_trial

POLICY = TrialPolicy()
WEEK = {"before_hours": 168.0, "before_alarms": 7}


def test_it_watches_until_its_span_is_over() -> None:
    assert judge_trial(TrialTally(hours=23.9, alarms=1, **WEEK), POLICY) is None
    verdict = judge_trial(TrialTally(hours=24.0, alarms=1, **WEEK), POLICY)
    assert verdict is not None and verdict.passed and "24.0 h" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("tally", "reason"),
    [
        (TrialTally(hours=0.1, crashes=2), "the daemon ended 2 times, 1 is allowed"),
        (TrialTally(hours=0.1, alarms=4), "4 alarms in 0.1 h, where 3 a day are allowed"),
        (TrialTally(hours=2.0, alarms=6, **WEEK), "6 alarms in 2.0 h against 7 in 168.0 h before"),
        (TrialTally(hours=1.0, p99_ms=51.0), "51.0 ms, 50 ms are allowed"),
        (TrialTally(hours=1.0, p99_ms=8.0, before_p99_ms=3.0), "8.0 ms, it was 3.0 ms before"),
        (
            TrialTally(hours=24.0, before_hours=168.0, before_alarms=140),
            "no less than 1/3 of the rate",
        ),
    ],
)
def test_what_is_wrong_ends_it(tally: TrialTally, reason: str) -> None:
    verdict = judge_trial(tally, POLICY)
    assert verdict is not None and not verdict.passed
    assert any(reason in said for said in verdict.reasons)


def test_power_cuts_are_allowed_by_the_day() -> None:
    for hours, cuts, many in ((0.1, 6, True), (2.0, 5, False), (71.0, 12, False), (71.0, 15, True)):
        verdict = judge_trial(TrialTally(hours=hours, cuts=cuts), TrialPolicy(span_h=72.0))
        assert (verdict is not None) is many, (hours, cuts)
        assert verdict is None or not (verdict.passed or verdict.final)
    verdict = judge_trial(TrialTally(hours=0.1, cuts=6, crashes=2), POLICY)
    assert verdict is not None and verdict.final, "what else is wrong is its fault"


def test_silence_is_not_held_against_its_beginning() -> None:
    assert judge_trial(TrialTally(hours=8.0, before_hours=168.0, before_alarms=140), POLICY) is None


def test_twice_a_fast_model_is_still_fast() -> None:
    assert judge_trial(TrialTally(hours=1.0, p99_ms=0.9, before_p99_ms=0.3), POLICY) is None


def test_a_day_of_few_alarms_without_history_passes() -> None:
    verdict = judge_trial(TrialTally(hours=24.0, alarms=3), POLICY)
    assert verdict is not None and verdict.passed


def outcome(rng: np.random.Generator, before_a_day: float, times: float) -> bool:
    """A trial, judged at each of its alarms and at the end."""
    history = {"before_hours": 168.0, "before_alarms": int(rng.poisson(7.0 * before_a_day))}
    moments = np.sort(rng.uniform(0.0, 24.0, int(rng.poisson(before_a_day * times))))
    for count, hours in enumerate([*moments.tolist(), 24.0], 1):
        tally = TrialTally(hours=hours, alarms=min(count, len(moments)), **history)
        verdict = judge_trial(tally, POLICY)
        if verdict is not None and not verdict.passed:
            return False
    return True


@pytest.mark.parametrize("before_a_day", [0.1, 1.0, 5.0])
def test_rollbacks_by_chance_are_rare(before_a_day: float, figure: Callable[..., None]) -> None:
    """Of models that alarm as often as before, and of ones that alarm 30 times as often."""
    rng = np.random.default_rng(17)
    wrong = 1.0 - np.mean([outcome(rng, before_a_day, 1.0) for _ in range(1000)])
    right = 1.0 - np.mean([outcome(rng, before_a_day, 30.0) for _ in range(300)])
    figure(f"rolled back by chance at {before_a_day:g} alarms a day", wrong, at_most=0.02)
    least = 0.05 if before_a_day < 1.0 else 0.99
    figure(f"rolled back at 30 x {before_a_day:g} alarms a day", right, at_least=least)


def test_it_survives_a_restart() -> None:
    tally = TrialTally(hours=3.5, alarms=1, crashes=1, p99_ms=0.4, **WEEK)
    assert TrialTally.restore(tally.save()) == tally
    with pytest.raises(StorageError, match="the trial starts anew"):
        TrialTally.restore({"hours": "long"})


def test_impossible_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="ratio is 0"):
        TrialPolicy(ratio=0.0)
    with pytest.raises(ValueError, match="alpha is 0.7"):
        TrialPolicy(alpha=0.7)
