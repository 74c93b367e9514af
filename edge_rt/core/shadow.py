"""The judgement on a candidate that ran in shadow: beside the live model, on the same samples.

A live stream holds no fall, so nobody can count what the candidate would have missed. What can be
seen is how it answers to the liveliest moments of the wearer's days: a model that has gone deaf
answers lower, or to nothing in particular. So the stream is cut into blocks, each block keeps the
largest margin (mean score above its own model's threshold) that each of the two models gave, and
the upper tails of the two are compared:

  shift      how far the candidate's upper quantiles lie from the live model's (Doksum 1974, Ann.
             Statist. 2:267), with the error of a jackknife that leaves out a stretch of time at
             once (consistent for quantiles: Shao & Wu 1989, Ann. Statist. 17:1176)
  spread     the same quantiles less the median, as a ratio: does it tell lively from quiet?
  agreement  rank correlation over blocks (Spearman 1904): does it find the same moments lively?

and counted are alarms (exact tests, core.rates), latency, and alarms of the live model that nobody
cancelled: those may have been falls. It is not enough that nothing speaks against a candidate:
the error has to be small enough to rule out the bound, else the run goes on.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import msgspec
import numpy as np

from edge_rt.core.rates import poisson_at_least, rate_above
from edge_rt.core.shadow_tally import BOTH, CENT, MAX_BLOCKS, ShadowTally
from edge_rt.core.types import FloatArray
from edge_rt.core.verdict import Verdict

__all__ = ["ShadowPolicy", "ShadowTally", "Verdict", "judge"]

# The liveliest tenth, twentieth and fiftieth of the blocks; their mean is steadier than each.
UPPER = (0.90, 0.95, 0.98)
STRETCHES = 20  # of the jackknife; each is over an hour of a day
T95 = 1.729  # 95 % quantile of Student's t with STRETCHES - 1 degrees of freedom
LEAST_BLOCKS = 10 * STRETCHES
EARLY = 1000  # blocks of samples after which latencies may end a run before its time


class ShadowPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long, and within which bounds.

    span_h       hours of samples until the first judgement; most_h: until the last
    block_s      length of a block
    cpu_share    of one core, that the candidate may use
    lowest_shift, highest_shift   of the upper quantiles, log odds
    least_spread, least_agreement as in the module's docstring
    ratio        pre-alarms at so many times the live model's rate are too many
    most_per_day pre-alarms a day, whatever the live model does
    budget_ms    processor time of a block of samples through the candidate, p95
    slower       median time of a block as a multiple of the live model's, above slower_floor_ms
    least_heard  share of the samples that it must have heard
    alpha        evidence that ends a run because of alarms
    """

    span_h: float = 24.0
    most_h: float = 48.0
    block_s: float = 30.0  # a few windows, so that blocks are nearly independent of each other
    cpu_share: float = 0.05
    # Networks trained on other people, as good as the shipped one, lie within +-1 of it, on
    # recordings as on simulated days; one that scores everything 2 lower lies at -2. In between
    # is nothing to gain: 1 less costs a fall in 400 of the recorded ones, 3 less one in 80.
    lowest_shift: float = -1.3
    highest_shift: float = 1.8
    # The same networks: 0.6 to 1.5 and 0.15 to 0.76. Made for other units: 0.1 to 0.25. The ranks
    # only find a model that answers to nothing at all, for good ones differ on quiet days.
    least_spread: float = 0.35
    least_agreement: float = 0.05
    ratio: float = 2.0
    most_per_day: float = 6.0
    budget_ms: float = 20.0
    slower: float = 2.0
    slower_floor_ms: float = 2.0
    least_heard: float = 0.5
    alpha: float = 0.005

    def __post_init__(self) -> None:
        if not 0.0 < self.span_h <= self.most_h:
            raise ValueError(f"span_h {self.span_h} must be above 0 and at most most_h")
        if not self.block_s >= 5.0:
            raise ValueError(f"block_s is {self.block_s}; a window is 4 s, so take at least 5")
        if self.most_h * 3600.0 / self.block_s > MAX_BLOCKS:
            raise ValueError(f"most_h {self.most_h} is over {MAX_BLOCKS} blocks of block_s")
        if not 0.0 < self.cpu_share <= 0.5:
            raise ValueError(f"cpu_share is {self.cpu_share}; choose above 0, at most 0.5")
        if not self.lowest_shift < 0.0 < self.highest_shift:
            raise ValueError("lowest_shift must be below 0, highest_shift above")


def judge(tally: ShadowTally, policy: ShadowPolicy) -> Verdict | None:
    """The verdict, or None while there is no telling. Alarms and latency may end it early."""
    over = tally.hours >= policy.span_h
    faults = [*_alarms(tally, policy), *_latency(tally, policy, over)]
    figures = _figures(tally)
    open_questions: list[str] = []
    if over:
        compared = compare(tally)
        figures |= compared
        wrong, open_questions = _distribution(compared, policy)
        faults += wrong
    if faults:
        return Verdict(False, tuple(faults), figures)
    if over and not open_questions:
        said = f"{tally.hours:.1f} h beside the live model, nothing speaks against it"
        return Verdict(True, (said,), figures)
    if tally.hours >= policy.most_h:
        return Verdict(False, tuple(open_questions), figures)
    return None


def compare(tally: ShadowTally) -> dict[str, float]:
    """Blocks and, from LEAST_BLOCKS on: shift, shift_error, spread, agreement, and quantiles."""
    live, mine = (np.array(tally.blocks[who], np.float64) / CENT for who in BOTH)
    if len(live) < LEAST_BLOCKS:
        return {"blocks": len(live)}
    shift, error = _jackknifed(live, mine)
    spread = _above_median(mine) / max(_above_median(live), 1e-6)
    return {
        "blocks": len(live),
        "shift": round(shift, 3),
        "shift_error": round(error, 3),
        "spread": round(spread, 3),
        "agreement": round(_agreement(live, mine), 3),
        "live_upper": round(_upper(live), 3),
        "candidate_upper": round(_upper(mine), 3),
    }


def _distribution(compared: dict[str, float], policy: ShadowPolicy) -> tuple[list[str], list[str]]:
    """What is wrong, and what cannot be told yet."""
    if "shift" not in compared:
        return [], [f"{compared['blocks']} blocks were heard in full, {LEAST_BLOCKS} are needed"]
    shift, error = compared["shift"], T95 * compared["shift_error"]
    wrong, unclear = [], []
    if shift < policy.lowest_shift or shift > policy.highest_shift:
        way, so = ("lower", "less sensitive") if shift < 0.0 else ("higher", "too ready to alarm")
        wrong.append(
            f"at lively moments it scores {abs(shift):.2f} {way} than the live model: it is {so}"
        )
    elif shift - error < policy.lowest_shift or shift + error > policy.highest_shift:
        unclear.append(
            f"at lively moments it scores {shift:+.2f} (+-{error:.2f}) against the live model, "
            f"{policy.lowest_shift:g} to {policy.highest_shift:g} is allowed"
        )
    if compared["spread"] < policy.least_spread:
        wrong.append(
            f"it hardly tells lively moments from quiet ones ({compared['spread']:.2f} of what "
            f"the live model does, {policy.least_spread:g} is needed)"
        )
    if compared["agreement"] < policy.least_agreement:
        wrong.append(
            f"it finds other moments lively than the live model does (rank correlation "
            f"{compared['agreement']:.2f}, {policy.least_agreement:g} is needed)"
        )
    return wrong, unclear


def _alarms(tally: ShadowTally, policy: ShadowPolicy) -> list[str]:
    found = []
    hours, mine, live = tally.heard_s / 3600.0, tally.candidate_prealarms, tally.live_prealarms
    if tally.missed:
        found.append(
            f"{tally.missed} of {tally.live_alarms} alarms that nobody cancelled it did not see"
        )
    p = max(
        # One more than there were: a live model without an alarm so far has a rate as well.
        rate_above(mine, hours, live + 1, hours, policy.ratio),
        poisson_at_least(mine, policy.most_per_day * hours / 24.0),
    )
    # Whoever lives so that the live model alarms often may be no worse off: both must speak.
    if mine and p < policy.alpha:
        found.append(f"{mine} pre-alarms in {hours:.1f} h, the live model has {live} (p = {p:.2g})")
    return found


def _latency(tally: ShadowTally, policy: ShadowPolicy, over: bool) -> list[str]:
    found = []
    # A thread that waits its turn is slow by no fault of the model: one block in twenty is judged
    # by its processor time. One in two does not wait: medians may be compared by the clock.
    p95, p50, live = _ms(tally, "work", 95.0), _ms(tally, "wall", 50.0), tally.live_p50_ms
    if p95 is not None and p50 is not None and (over or tally.latency.count("wall") >= EARLY):
        if p95 > policy.budget_ms:
            found.append(f"p95 {p95:.1f} ms for a block, {policy.budget_ms:g} ms is allowed")
        if live is not None and p50 > max(policy.slower * live, policy.slower_floor_ms):
            found.append(f"a block takes it {p50:.2f} ms, the live model {live:.2f} ms (medians)")
    whole_s = tally.heard_s + tally.skipped_s
    if over and tally.heard_s < policy.least_heard * whole_s:
        found.append(
            f"it heard {tally.heard_s / whole_s:.0%} of the samples: more than its "
            f"{policy.cpu_share:.0%} of a core would be needed"
        )
    if tally.failures:
        found.append(f"its detector failed {tally.failures} times")
    return found


def _ms(tally: ShadowTally, stage: str, percent: float) -> float | None:
    seconds = tally.latency.percentile(stage, percent)
    return None if seconds is None else round(1e3 * seconds, 4)


def _figures(tally: ShadowTally) -> dict[str, Any]:
    return {
        "hours": round(tally.hours, 2),
        "heard": round(tally.heard_s / max(tally.heard_s + tally.skipped_s, 1e-9), 4),
        "cpu_share": round(tally.cpu_s / max(tally.heard_s, 1e-9), 5),
        "prealarms": tally.candidate_prealarms,
        "live_prealarms": tally.live_prealarms,
        "live_alarms": tally.live_alarms,
        "missed": tally.missed,
        "work_p95_ms": _ms(tally, "work", 95.0),
        "p50_ms": _ms(tally, "wall", 50.0),
        "live_p50_ms": tally.live_p50_ms,
    }


# ---- statistics ----


def _upper(x: FloatArray) -> float:
    return float(np.quantile(x, UPPER).mean())


def _above_median(x: FloatArray) -> float:
    return _upper(x) - float(np.median(x))


def _jackknifed(live: FloatArray, mine: FloatArray) -> tuple[float, float]:
    """The shift, and its standard error from leaving out each of STRETCHES stretches."""
    shift = _upper(mine) - _upper(live)
    number = np.arange(len(live)) * STRETCHES // len(live)
    without = [_upper(mine[number != k]) - _upper(live[number != k]) for k in range(STRETCHES)]
    spread = np.array(without) - np.mean(without)
    error = sqrt((STRETCHES - 1) / STRETCHES * float((spread * spread).sum()))
    return shift, error


def _agreement(live: FloatArray, mine: FloatArray) -> float:
    a, b = _ranks(live), _ranks(mine)
    a, b = a - a.mean(), b - b.mean()
    size = sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / size if size > 0.0 else 0.0


def _ranks(x: FloatArray) -> FloatArray:
    """Ranks, ties sharing their mean: a model that always says the same agrees with nothing."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: FloatArray = ends - (counts - 1) / 2.0
    return middle[inverse]
