"""core.comparison: what is recommended for which counts."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_rt.core.comparison import (
    METRICS,
    PLURALS,
    Action,
    Arm,
    ComparePolicy,
    Exposure,
    Outcomes,
    compare,
    pooled,
    rate,
)

GOOD = Outcomes(confirmed=20)


def arm(devices: int, days: float, **counts: int) -> Arm:
    """Counts spread evenly over devices."""
    made = {f"d{n}": Exposure(days) for n in range(devices)}
    for metric, count in counts.items():
        for n in range(count):
            made[f"d{n % devices}"].counts[metric] += 1
    return made


CONTROL = arm(180, 14, alarm=250, cancel=500, crash=25)  # 0.1, 0.2 and 0.01 a device-day


def test_as_good_as_before_on_enough_days_is_advanced() -> None:
    found = compare(arm(20, 7, alarm=14, cancel=28, crash=1), CONTROL, GOOD)
    assert found.action is Action.ADVANCE, found.reasons
    assert set(found.rates) == set(METRICS)
    assert found.rates["alarm"]["ratio_low"] < 1 < found.rates["alarm"]["ratio_high"] < 2


def test_the_same_rates_on_two_days_are_too_little_exposure() -> None:
    found = compare(arm(20, 1, alarm=2, cancel=4), CONTROL, GOOD)
    assert found.action is Action.HOLD
    assert all("too little exposure" in reason for reason in found.reasons)
    assert "2 alarms in 20.0 device-days against 250 in 2520.0" in found.reasons[0]
    fresh = compare(arm(2, 10), {}, Outcomes(confirmed=2))
    assert "up to 0.18 a day cannot be ruled out, below 0.033" in fresh.reasons[1]
    nothing = compare({}, {}, Outcomes())
    assert nothing.action is Action.HOLD and len(nothing.reasons) == 4


def test_a_fleet_without_events_is_advanced_once_the_bound_on_its_rate_is_low_enough() -> None:
    """3.7 events a span cannot be ruled out where none was seen: 111 device-days for 1 in 30."""
    quiet = arm(180, 14)
    assert compare(arm(20, 5.0), quiet, GOOD).action is Action.HOLD
    assert compare(arm(20, 5.6), quiet, GOOD).action is Action.ADVANCE


@pytest.mark.parametrize("metric", METRICS)
def test_a_rate_shown_to_be_higher_aborts(metric: str) -> None:
    usual = {"alarm": 14, "cancel": 28, "crash": 1}
    worse = {**usual, metric: 3 * usual[metric] + 8}
    found = compare(arm(20, 7, **worse), CONTROL, GOOD)
    assert found.action is Action.ABORT
    assert (
        len(found.reasons) == 1
        and f"{worse[metric]} {PLURALS[metric]} in 140.0" in found.reasons[0]
    )


def test_one_house_alone_holds_and_is_named() -> None:
    treated = dict(arm(20, 7, alarm=14, cancel=28, crash=1))
    treated["d3"].counts["alarm"] += 40
    found = compare(treated, CONTROL, GOOD)
    assert found.action is Action.HOLD
    assert "most of them from d3" in found.reasons[0]


def test_a_silence_where_alarms_were_usual_aborts() -> None:
    found = compare(arm(20, 7, cancel=28, crash=1), CONTROL, GOOD)
    assert found.action is Action.HOLD and "it may have gone deaf" in found.reasons[0]
    found = compare(arm(20, 8, cancel=28, crash=1), CONTROL, GOOD)
    assert found.action is Action.ABORT
    assert "no less than 1/3 of the rate" in found.reasons[0]
    # Where there never were many nothing follows from none.
    assert compare(arm(20, 7), arm(180, 14, alarm=20), GOOD).action is Action.ADVANCE


def test_failures_past_the_threshold_abort_and_few_ended_updates_hold() -> None:
    days, control = arm(20, 7, alarm=14, cancel=28, crash=1), CONTROL
    for outcomes, action in (
        (Outcomes(confirmed=0, failed=2), Action.ABORT),  # 5 % twice in two: 1 in 400
        (Outcomes(confirmed=1, failed=1), Action.HOLD),
        (Outcomes(confirmed=20, failed=1), Action.ADVANCE),
        (Outcomes(confirmed=16, failed=5), Action.ABORT),
        (Outcomes(confirmed=12, failed=0), Action.HOLD),  # up to 26 % cannot be ruled out
        (Outcomes(confirmed=13, failed=0), Action.ADVANCE),
    ):
        found = compare(days, control, outcomes)
        assert found.action is action, (outcomes, found.reasons)


def test_devices_that_went_quiet_hold() -> None:
    days = arm(20, 7, alarm=14, cancel=28, crash=1)
    gone = Outcomes(20, 0, (), away=(6, 20), away_control=(9, 180))
    found = compare(days, CONTROL, gone)
    assert found.action is Action.HOLD and "6 of 20" in found.reasons[0]
    usual = gone._replace(away_control=(60, 180))
    assert compare(days, CONTROL, usual).action is Action.ADVANCE


def test_a_wrong_abort_is_as_rare_as_said() -> None:
    rng = np.random.default_rng(4)
    policy = ComparePolicy()
    aborts = 0
    for _ in range(100):
        treated = {f"d{n}": Exposure(7.0) for n in range(20)}
        for exposure in treated.values():
            for metric, mean in zip(METRICS, (0.1, 0.2, 0.01), strict=True):
                exposure.counts[metric] = int(rng.poisson(7 * mean))
        aborts += compare(treated, CONTROL, GOOD, policy).action is Action.ABORT
    # Four questions at 1 in 100 each, and the rates are equal, not 1.5 times: far below 4 %.
    assert aborts <= 4


def test_a_model_three_times_as_ready_to_alarm_is_not_advanced() -> None:
    rng = np.random.default_rng(5)
    actions = []
    for _ in range(50):
        treated = arm(20, 7, alarm=int(rng.poisson(42)), cancel=28, crash=1)
        actions.append(compare(treated, CONTROL, GOOD).action)
    assert Action.ADVANCE not in actions
    assert actions.count(Action.ABORT) >= 43  # 93 % in a thousand


def test_rates_and_pools() -> None:
    both = pooled([arm(2, 1.0, alarm=2), arm(1, 3.0, alarm=1)])
    assert both["d0"].days == 4.0 and both["d0"].counts["alarm"] == 2
    count, mean, low, high = rate(both, "alarm", 0.05)
    assert (count, mean) == (3, 0.6) and low < 0.6 < high
    assert rate({}, "alarm", 0.05) == (0, 0.0, 0.0, float("inf"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"worse": 0.5},
        {"worse": 3.0},
        {"silence": 1.0},
        {"failures": 0.3},
        {"crash_per_day": 0.0},
        {"alpha": 0.5},
        {"away": 1.0},
    ],
)
def test_thresholds_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, ComparePolicy)
