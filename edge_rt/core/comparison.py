"""A version against what ran before it, over a fleet: advance, hold or abort, and why.

Treated are the days on which devices ran the version, control those of the other devices meanwhile
and of the same devices before. Who takes a version follows from a hash (core.rollout), so that the
two differ by chance alone; that chance is what the exact tests of core.rates reckon with. They take
each event as one of its own. Houses are not alike, so no single house may decide: an excess has to
stand without the device that contributes most to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from math import inf
from typing import Any, NamedTuple

import msgspec

from edge_rt.core.rates import (
    binomial_at_least,
    poisson_interval,
    rate_above,
    rate_below,
    ratio_interval,
    share_interval,
)

METRICS = ("alarm", "cancel", "crash")
PLURALS = {"alarm": "alarms", "cancel": "cancelled pre-alarms", "crash": "crashes"}


class Action(StrEnum):
    """What is recommended; whatever is done is signed by a person."""

    ADVANCE = "advance"
    HOLD = "hold"
    ABORT = "abort"


class ComparePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The thresholds.

    worse       a rate shown to be above so many times the control's: abort
    tolerated   a rate shown to be below so many times the control's does not stand in the way
    silence     alarms shown to be below one part in so many of the control's: abort
    alarm_per_day, cancel_per_day, crash_per_day
                a rate shown to be below this does not stand in the way, whatever the control's
    failures    share of devices on which a version may fail (rejected or rolled back); shown to be
                above: abort
    failures_tolerated  shown to be below: does not stand in the way
    away        share of devices that may be unreachable where the control tells of none
    alpha       chance of a wrong abort at one look, for each question
    confidence_alpha  of the intervals that are shown and that allow to advance, and of a silence
                that holds
    """

    # Devices differ by more than chance (one has a dog that jumps on the wearer), so that 1.5
    # times the rate is no finding yet; twice the false alarms is what people would complain of.
    worse: float = 1.5
    tolerated: float = 2.0
    silence: float = 3.0  # as the trial on the device (core.trial): falls themselves are rare
    # A false alarm in a month calls somebody for nothing; one that is cancelled costs a button. A
    # daemon that ended is back in seconds, and a power cut looks the same from here.
    alarm_per_day: float = 1 / 30
    cancel_per_day: float = 1 / 10
    crash_per_day: float = 1 / 14
    # Self-tests and shadows reject for reasons of one device (a slow card, a sensor askew). Of
    # twenty that try, one may; more than one in four were a model that does not suit its devices.
    failures: float = 0.05
    failures_tolerated: float = 0.25
    away: float = 0.1
    # A report may be read each day of a rollout, so that a look asks for more than one in twenty;
    # a wrong abort costs a new version number, a wrong advance costs alarms.
    alpha: float = 0.01
    confidence_alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 1.0 <= self.worse <= self.tolerated:
            raise ValueError("worse must be at least 1, and tolerated at least worse")
        if not self.silence > 1.0:
            raise ValueError(f"silence is {self.silence}; it must be above 1")
        if not 0.0 < self.failures < self.failures_tolerated <= 1.0:
            raise ValueError("failures must be above 0 and below failures_tolerated, that up to 1")
        if not min(self.alarm_per_day, self.cancel_per_day, self.crash_per_day) > 0.0:
            raise ValueError("a rate per day must be above 0")
        for name in ("alpha", "confidence_alpha"):
            if not 0.0 < getattr(self, name) < 0.5:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 0.5")
        if not 0.0 < self.away < 1.0:
            raise ValueError(f"away is {self.away}; it must be between 0 and 1")


class Exposure(msgspec.Struct):
    """What one device showed: days watched, and how often each of METRICS came in them."""

    days: float = 0.0
    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(METRICS, 0))


Arm = Mapping[str, Exposure]
"""By device."""


class Outcomes(NamedTuple):
    """Devices that tried the version.

    confirmed, failed  those whose update has ended; failed: rejected or rolled back
    reasons            of the failed ones
    away, away_control devices that nothing is heard of, of those that run it and of the others
    """

    confirmed: int = 0
    failed: int = 0
    reasons: tuple[str, ...] = ()
    away: tuple[int, int] = (0, 0)
    away_control: tuple[int, int] = (0, 0)


class Recommendation(NamedTuple):
    """reasons: a clause each, at least one. rates: by metric, JSON-able but for infinities."""

    action: Action
    reasons: tuple[str, ...]
    rates: dict[str, dict[str, Any]]


def compare(
    treated: Arm, control: Arm, outcomes: Outcomes, policy: ComparePolicy | None = None
) -> Recommendation:
    """Abort if something is shown to be wrong; advance if each wrong that would matter is shown
    not to be there; else hold, naming what cannot be told yet."""
    policy = policy or ComparePolicy()
    rates = {metric: _rates(metric, treated, control, policy) for metric in METRICS}
    wrong, open_questions = _failures(outcomes, policy)
    for metric in METRICS:
        bad, unclear = _judge(metric, rates[metric], treated, control, policy)
        wrong += bad
        open_questions += unclear
    open_questions += _away(outcomes, policy)
    if wrong:
        return Recommendation(Action.ABORT, tuple(wrong), rates)
    if open_questions:
        return Recommendation(Action.HOLD, tuple(open_questions), rates)
    said = (
        f"{outcomes.confirmed} devices confirmed it, {_days(treated):.1f} device-days: "
        "nothing speaks against it"
    )
    return Recommendation(Action.ADVANCE, (said,), rates)


def rate(arm: Arm, metric: str, alpha: float) -> tuple[int, float, float, float]:
    """Count, and the rate per device-day with its interval; (0, 0, 0, inf) without a day."""
    count, days = _count(arm, metric), _days(arm)
    if days <= 0.0:
        return count, 0.0, 0.0, inf
    low, high = poisson_interval(count, alpha)
    return count, count / days, low / days, high / days


def _rates(metric: str, treated: Arm, control: Arm, policy: ComparePolicy) -> dict[str, Any]:
    alpha = policy.confidence_alpha
    found: dict[str, Any] = {}
    for name, arm in (("treated", treated), ("control", control)):
        count, mean, low, high = rate(arm, metric, alpha)
        found[name] = {"count": count, "per_day": mean, "low": low, "high": high}
    found["ratio_low"], found["ratio_high"] = ratio_interval(
        *_both(metric, treated, control), alpha
    )
    return found


def _judge(
    metric: str, found: dict[str, Any], treated: Arm, control: Arm, policy: ComparePolicy
) -> tuple[list[str], list[str]]:
    """What is wrong, and what cannot be told yet."""
    counts = _both(metric, treated, control)
    said = f"{counts[0]} {PLURALS[metric]} in {counts[1]:.1f} device-days against {counts[2]} in "
    said += f"{counts[3]:.1f}"
    p = rate_above(*counts, policy.worse)
    if p < policy.alpha:
        busiest = max(treated, key=lambda device: treated[device].counts[metric])
        rest = {device: days for device, days in treated.items() if device != busiest}
        alone = rate_above(*_both(metric, rest, control), policy.worse)
        if alone < policy.alpha:
            return [f"{said} (p = {p:.2g} for no more than {policy.worse:g} times the rate)"], []
        return [], [f"{said}, most of them from {busiest}: look there first"]
    if metric == "alarm":
        p = rate_below(*counts, 1.0 / policy.silence)
        quiet = f"{said} (p = {p:.2g} for no less than 1/{policy.silence:g} of the rate)"
        if p < policy.alpha:
            return [quiet], []
        if p < policy.confidence_alpha:
            return [], [f"it may have gone deaf: {quiet}"]
    limit: float = getattr(policy, f"{metric}_per_day")
    if found["ratio_high"] < policy.tolerated or found["treated"]["high"] < limit:
        return [], []
    high, times = found["treated"]["high"], found["ratio_high"]
    ruled = f"{high:.2g} a day" + (
        f" or {times:.3g} times the control's rate" if times < inf else ""
    )
    return [], [
        f"too little exposure to tell: {said}; up to {ruled} cannot be ruled out, below "
        f"{limit:.2g} a day or {policy.tolerated:g} times is needed"
    ]


def _failures(outcomes: Outcomes, policy: ComparePolicy) -> tuple[list[str], list[str]]:
    failed, ended = outcomes.failed, outcomes.confirmed + outcomes.failed
    p = binomial_at_least(failed, ended, policy.failures)
    if failed and p < policy.alpha:
        return [
            f"it failed on {failed} of {ended} devices (p = {p:.2g} for no more than "
            f"{policy.failures:.0%})"
        ], []
    high = share_interval(failed, ended, policy.confidence_alpha)[1]
    if high < policy.failures_tolerated:
        return [], []
    return [], [
        f"too few devices have ended their update: it failed on {failed} of {ended}, up to "
        f"{high:.0%} cannot be ruled out, below {policy.failures_tolerated:.0%} is needed"
    ]


def _away(outcomes: Outcomes, policy: ComparePolicy) -> list[str]:
    """A device that a model took down tells nobody: it is missing, and nothing else is known."""
    (away, running), (others_away, others) = outcomes.away, outcomes.away_control
    usual = max(policy.away, others_away / others if others else 0.0)
    if away and binomial_at_least(away, running, min(usual, 1.0)) < policy.confidence_alpha:
        return [
            f"{away} of {running} devices that run it are not heard of, {others_away} of {others} "
            "others are not: look at them first"
        ]
    return []


def _both(metric: str, treated: Arm, control: Arm) -> tuple[int, float, int, float]:
    # The tests ask for hours and only for their ratio.
    return _count(treated, metric), _days(treated), _count(control, metric), _days(control)


def _count(arm: Arm, metric: str) -> int:
    return sum(exposure.counts[metric] for exposure in arm.values())


def _days(arm: Arm) -> float:
    return sum(exposure.days for exposure in arm.values())


def pooled(arms: Iterable[Arm]) -> dict[str, Exposure]:
    """Several arms as one; a device may be in more than one of them."""
    made: dict[str, Exposure] = {}
    for arm in arms:
        for device, exposure in arm.items():
            whole = made.setdefault(device, Exposure())
            whole.days += exposure.days
            for metric, count in exposure.counts.items():
                whole.counts[metric] += count
    return made
