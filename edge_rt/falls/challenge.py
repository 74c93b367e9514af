"""Run the challenge set: simulated falls and activities through detector and alarm machine."""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

from edge_rt.bundle import Bundle
from edge_rt.core.challenge import ChallengeContext, ChallengeReport, Result
from edge_rt.core.errors import ManifestError
from edge_rt.core.fall import AlarmMachine, Event, FallRules, rules_for
from edge_rt.core.fall_table import State
from edge_rt.core.manifest import FallManifest
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.margin import log_odds
from edge_rt.falls.simulate import Case, challenge

# A pre-alarm up to this long before the hardest contact is about the same fall: knees and hands
# touch the floor before the trunk does.
BEFORE_S = 1.0
# The machine looks on for `suspect_s` after the impact, and the sensor's clock may be a hop off.
AFTER_S = 0.5
TICK_S = 0.5
# Of a model that answers nothing finite; far below what a network gives.
NO_ANSWER = -300.0


def run_challenge(
    candidate: Bundle, live: Bundle | None, context: ChallengeContext
) -> ChallengeReport:
    """Play the set to the candidate, and to the live model beside it.

    Raises ManifestError for a bundle of another task or for rules that its bounds do not allow,
    ModelError when the engine fails, InputError for a sensor that cannot be simulated.
    """
    bundles = [b for b in (candidate, live) if b is not None]
    rules = [rules_of(b, context.profile) for b in bundles]
    fallen: list[list[Played]] = [[] for _ in bundles]
    quiet: list[list[bool]] = [[] for _ in bundles]
    count = max(context.falls, context.activities)
    for case in challenge(
        context.seed,
        count,
        rate_hz=context.rate_hz,
        range_g=context.range_g,
        placement=context.placement,
    ):
        if len(fallen[0]) >= context.falls and len(quiet[0]) >= context.activities:
            break
        for k, bundle in enumerate(bundles):
            if case.is_fall and len(fallen[k]) < context.falls:
                fallen[k].append(play_fall(bundle, rules[k], case))
            elif not case.is_fall and len(quiet[k]) < context.activities:
                quiet[k].append(not prealarms(bundle, rules[k], case))
    results = [_result(*told) for told in zip(fallen, quiet, strict=True)]
    return ChallengeReport(
        candidate=results[0],
        live=results[1] if live is not None else None,
        rate_hz=context.rate_hz,
        range_g=context.range_g,
    )


def rules_of(bundle: Bundle, profile: dict[str, float | bool]) -> FallRules:
    """The device's rules with this bundle. Raises ManifestError for what it does not allow."""
    manifest = bundle.manifest
    if not isinstance(manifest, FallManifest):
        raise ManifestError(
            f"bundle {manifest.name} is not a fall model; publish one for this task"
        )
    try:
        return rules_for(manifest, **profile)
    except ValueError as error:
        raise ManifestError(
            f"bundle {manifest.name} {manifest.version}: {error}; change the device's setting, or "
            "publish a bundle whose bounds hold it"
        ) from None


def prealarms(bundle: Bundle, rules: FallRules, case: Case) -> list[float]:
    """When pre-alarms were raised, seconds; each is cancelled at once, so that later ones count."""
    machine = AlarmMachine(rules, lambda: "challenge")
    raised = []
    for hop in _detector(bundle, case).push(case.simulation.block):
        for step in machine.step(hop):
            if step.what == "prealarm":
                raised.append(hop.t_s)
                machine.command(Event.CANCEL, hop.t_s)
    return raised


class Played(NamedTuple):
    """A fall as a model took it.

    delay_s  impact to pre-alarm, None unless it came in time and became an alarm
    early    a pre-alarm came before the impact, which cannot be about it
    margin   largest mean score above the threshold about the impact, log odds
    """

    delay_s: float | None
    early: bool
    margin: float


def play_fall(bundle: Bundle, rules: FallRules, case: Case) -> Played:
    """One fall. Nobody cancels, as nobody would who cannot get up; a pre-alarm that cannot be about
    the impact is cancelled. Raises ModelError when the engine fails."""
    assert isinstance(bundle.manifest, FallManifest)  # rules_of takes no other
    scale = bundle.manifest.output.scale
    impact_s = next(x.start_s for x in case.simulation.labels if x.what == "impact")
    machine = AlarmMachine(rules, lambda: "challenge")
    first_s, last_s = impact_s - BEFORE_S, impact_s + rules.suspect_s + AFTER_S
    delay_s, early, peak = None, False, NO_ANSWER
    for hop in _detector(bundle, case).push(case.simulation.block):
        if first_s <= hop.t_s <= last_s and isfinite(hop.mean):
            peak = max(peak, log_odds(hop.mean, scale))
        for step in machine.step(hop):
            if step.what != "prealarm":
                continue
            if hop.t_s < first_s:
                early = True
                machine.command(Event.CANCEL, hop.t_s)
            elif delay_s is None and hop.t_s <= last_s:
                delay_s = hop.t_s - impact_s
    now_s, end_s = machine.now_s, machine.now_s + rules.cancel_window_s + TICK_S
    while machine.state is State.PREALARM and now_s < end_s:
        now_s += TICK_S
        machine.tick(now_s)
    caught_s = delay_s if machine.state is State.ALARM else None
    return Played(caught_s, early, max(NO_ANSWER, peak - log_odds(rules.threshold, scale)))


def _detector(bundle: Bundle, case: Case) -> FallDetector:
    simulation = case.simulation
    return FallDetector(bundle, rate_hz=simulation.rate_hz, range_g=simulation.range_g)


def _result(fallen: list[Played], quiet: list[bool]) -> Result:
    delays = sorted(fall.delay_s for fall in fallen if fall.delay_s is not None)
    return Result(
        caught=tuple(fall.delay_s is not None for fall in fallen),
        margins=tuple(round(fall.margin, 3) for fall in fallen),
        quiet=tuple(quiet),
        delay_s=round(delays[len(delays) // 2], 3) if delays else None,
        early=sum(fall.early for fall in fallen),
    )
