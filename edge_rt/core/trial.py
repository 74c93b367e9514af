"""The judgement on a model on trial: it runs, the previous one waits, and four things are watched.

Crashes, power cuts, alarms and latency. Rates are judged exactly (core.rates): what a trial sees is
a handful of events, where approximations fail. Judged against the device's own history with the
model before, for what is many alarms in one house is few in another.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edge_rt.core.errors import StorageError
from edge_rt.core.rates import poisson_at_least, rate_above, rate_below
from edge_rt.core.verdict import Verdict

__all__ = ["TrialPolicy", "TrialTally", "Verdict", "judge_trial"]


class TrialPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a trial ends and what it may show.

    span_h        hours of watching until it is confirmed
    most_crashes  ends of the daemon that nobody asked for; one more ends the trial
    most_cuts     ends of the machine under it (power cuts, resets), a day of watching
    ratio         alarms may come at so many times the rate of before, and at one part in so many
    most_per_day  alarms a day where there is no history of a day yet
    budget_ms     p99 from the last sample of a window to the decision
    slower        the same, as a multiple of what it was before, above `slower_floor_ms`
    alpha_early   evidence that ends a trial before its time; alpha: at its end
    """

    span_h: float = 24.0
    # The daemon may end once for a reason of its own (a camera driver); twice within a day, right
    # after a swap, is the new model until shown otherwise.
    most_crashes: int = 1
    # A device is unplugged to be moved, at night, by a switch on the wall: a few times a day. One
    # more is a board that this model's draw brings down, or a plug that no trial can be held on.
    most_cuts: int = 5
    # Alarms come in clusters (one evening of moving furniture), so that a doubling is nothing.
    ratio: float = 3.0
    most_per_day: float = 3.0
    budget_ms: float = 50.0
    slower: float = 2.0
    # Below this nobody could tell: a model twice as slow as 0.2 ms is still a fast one.
    slower_floor_ms: float = 5.0
    # Asked at each alarm and once at the end. A look at each alarm costs false rollbacks, so that
    # each of them asks for stronger evidence than the last look does.
    alpha_early: float = 0.002
    alpha: float = 0.01

    def __post_init__(self) -> None:
        for name in ("span_h", "ratio", "most_per_day", "budget_ms", "slower"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("alpha_early", "alpha"):
            if not 0 < getattr(self, name) < 0.5:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 0.5")


class TrialTally(msgspec.Struct, kw_only=True):
    """What was seen; counts only, so that its size never grows.

    hours, alarms                of watching on trial, and pre-alarms in them that nobody called for
    before_hours, before_alarms  the same of the model before
    crashes                      ends of the daemon that nobody asked for, the machine going on
    cuts                         ends of the machine that nobody asked for
    p99_ms, before_p99_ms        window to decision; None: not known
    """

    hours: float = 0.0
    alarms: int = 0
    before_hours: float = 0.0
    before_alarms: int = 0
    crashes: int = 0
    cuts: int = 0
    p99_ms: float | None = None
    before_p99_ms: float | None = None

    def save(self) -> dict[str, Any]:
        """JSON-able."""
        saved: dict[str, Any] = msgspec.to_builtins(self)
        return saved

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> TrialTally:
        """Raises StorageError if `saved` is not what this version writes."""
        try:
            return msgspec.convert(saved, cls)
        except msgspec.ValidationError as error:
            raise StorageError(f"saved trial: {error}; the trial starts anew") from None


HISTORY_H = 24.0  # of the model before: less says nothing of a household's day


def judge_trial(tally: TrialTally, policy: TrialPolicy) -> Verdict | None:
    """Back to the previous model (passed is False), confirm (True), or watch on (None)."""
    over = tally.hours >= policy.span_h
    alpha = policy.alpha if over else policy.alpha_early
    faults = [*_crashes(tally, policy), *_alarms(tally, policy, alpha, over)]
    faults += _latency(tally, policy)
    figures = {**tally.save(), "span_h": policy.span_h}
    if faults:
        return Verdict(False, tuple(faults), figures)
    if cuts := _cuts(tally, policy):
        # Whose fault that is nobody can tell from here.
        return Verdict(False, (cuts,), figures, final=False)
    if over:
        said = f"{tally.hours:.1f} h, {tally.crashes} crashes, {tally.alarms} alarms"
        return Verdict(True, (said,), figures)
    return None


def _crashes(tally: TrialTally, policy: TrialPolicy) -> list[str]:
    if tally.crashes > policy.most_crashes:
        return [f"the daemon ended {tally.crashes} times, {policy.most_crashes} is allowed"]
    return []


def _cuts(tally: TrialTally, policy: TrialPolicy) -> str:
    allowed = policy.most_cuts * max(1.0, tally.hours / 24.0)
    if tally.cuts <= allowed:
        return ""
    return f"the machine was cut off or reset {tally.cuts} times, {allowed:.0f} are allowed"


def _alarms(tally: TrialTally, policy: TrialPolicy, alpha: float, over: bool) -> list[str]:
    now, hours = tally.alarms, tally.hours
    if tally.before_hours < HISTORY_H:
        mean = policy.most_per_day * hours / 24.0
        p = poisson_at_least(now, mean)
        if p < alpha:
            return [
                f"{now} alarms in {hours:.1f} h, where {policy.most_per_day:g} a day are allowed "
                f"(p = {p:.2g})"
            ]
        return []
    before, past = tally.before_alarms, tally.before_hours
    # One more than there were, for a house without a single alarm so far has a rate as well.
    p = rate_above(now, hours, before + 1, past, policy.ratio)
    if p < alpha:
        return [
            f"{now} alarms in {hours:.1f} h against {before} in {past:.1f} h before "
            f"(p = {p:.2g} for no more than {policy.ratio:g} times the rate)"
        ]
    # Silence is judged at the end only: it is what every trial begins with.
    p = rate_below(now, hours, before, past, 1.0 / policy.ratio)
    if over and p < alpha:
        return [
            f"{now} alarms in {hours:.1f} h against {before} in {past:.1f} h before "
            f"(p = {p:.2g} for no less than 1/{policy.ratio:g} of the rate)"
        ]
    return []


def _latency(tally: TrialTally, policy: TrialPolicy) -> list[str]:
    now, before = tally.p99_ms, tally.before_p99_ms
    if now is None:
        return []
    if now > policy.budget_ms:
        return [f"p99 from window to decision {now:.1f} ms, {policy.budget_ms:g} ms are allowed"]
    if before is not None and now > max(policy.slower * before, policy.slower_floor_ms):
        return [f"p99 from window to decision {now:.1f} ms, it was {before:.1f} ms before"]
    return []
