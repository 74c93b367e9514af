"""Fall detection figures: whole recordings through the production pipeline, as they would stream.

A fall trial counts as detected if a pre-alarm is raised in it, an activity trial with one as a
false alarm. After each pre-alarm the wearer cancels, so that later ones are counted too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_rt.adapters.tflite import Interpreter
from edge_rt.adapters.trials import Trial, read_trials
from edge_rt.bundle import Bundle
from edge_rt.core.errors import InputError, ManifestError
from edge_rt.core.fall import AlarmMachine
from edge_rt.core.fall_rules import FallRules, rules_for
from edge_rt.core.fall_table import Event
from edge_rt.core.manifest import FallManifest
from edge_rt.core.timebase import TICKS_PER_S, SampleClock, Stamps
from edge_rt.core.types import SampleBlock
from edge_rt.evaluation.stats import percentile, wilson
from edge_rt.falls.detector import FallDetector

BLOCK_S = 10.0  # replay hands over this much at a time; the scores do not depend on it
EARLY_S = 0.5  # a pre-alarm longer before the peak cannot be about the impact

Progress = Callable[[int, int], None]


class Outcome(NamedTuple):
    """What came of one trial.

    alarms_s  pre-alarms, seconds on the trial's clock
    peak_s    largest |a| of the trial, same clock
    hours     length of the trial
    highest   largest mean score, -inf if no window was scored
    """

    trial: Trial
    alarms_s: tuple[float, ...]
    peak_s: float
    hours: float
    highest: float

    @property
    def scored(self) -> bool:
        """Whether any window was judged: silence about none is no answer."""
        return self.highest > float("-inf")


def evaluate_fall(
    files: Sequence[Path],
    bundle: Bundle,
    *,
    range_g: float = 16.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score `trials/1` files with a bundle at its own threshold.

    range_g   of the sensors that recorded; only flags depend on it
    progress  called with trials done and in all

    Returns what `summary` returns, with `warnings` about trials that the figures should not rest
    on. Raises InputError for unusable files, ManifestError for a bundle of another task.
    """
    manifest = _manifest(bundle)
    trials = load(files)
    rules = rules_for(manifest)
    outcomes = []
    for done, trial in enumerate(trials):
        outcomes.append(run_trial(trial, bundle, rules, range_g))
        if progress:
            progress(done + 1, len(trials))
    return {
        **summary(outcomes),
        "threshold": rules.threshold,
        **_identity(bundle, manifest),
        "warnings": [*_warnings(trials, manifest), *_empty(outcomes)],
    }


def cross_validate_fall(
    files: Sequence[Path],
    bundle: Bundle,
    *,
    folds: int | None = 5,
    seed: int = 7,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and score subject-disjoint folds; the bundle gives only the decision rule.

    folds  how many groups of subjects; None leaves out one subject at a time

    All files train; scored are the trials of the bundle's placement (all, if none has it).
    Raises InputError without TensorFlow (extra [train]) or for too few subjects.
    """
    from edge_rt.falls import training

    manifest = _manifest(bundle)
    training.tensorflow()  # say so before minutes of reading
    trials = load(files)
    number = training.folds_of(trials, folds)
    warnings = []
    placement = manifest.decision.placement
    scored = {k for k, t in enumerate(trials) if t.placement == placement}
    if not scored:
        scored = set(range(len(trials)))
        warnings.append(f"no trial is from the {placement}, which the threshold was set for")
    bank = training.make_bank(trials, seed)
    rules = rules_for(manifest)
    engine = bundle.interpreter.engine.split()[0]
    grid = msgspec.structs.replace(
        manifest.input,
        rate_hz=training.GRID.rate_hz,
        window=training.GRID.window,
        hop=training.GRID.hop,
        channels=training.GRID.channels,
    )
    outcomes: list[Outcome] = []
    for fold in range(max(number) + 1):
        use = [k for k, f in enumerate(number) if f != fold]
        model = training.train(trials, bank, use, seed + fold)
        networks = training.convert(model, bank, use, seed)
        held_out = Bundle(
            msgspec.structs.replace(manifest, input=grid),
            Interpreter(networks.int8, engine),
            bundle.files,
        )
        for k in sorted(scored - set(use)):
            outcomes.append(run_trial(trials[k], held_out, rules, 16.0))
        if progress:
            progress(fold + 1, max(number) + 1)
    return {
        **summary(outcomes),
        "threshold": rules.threshold,
        "folds": max(number) + 1,
        **_identity(bundle, manifest),
        "warnings": [*warnings, *_empty(outcomes)],
    }


def load(files: Sequence[Path]) -> list[Trial]:
    """All trials of all files. Raises InputError for none."""
    trials = [trial for path in files for trial in read_trials(path)]
    if not trials:
        raise InputError("no trials to evaluate; name at least one trials/1 file")
    return trials


def run_trial(trial: Trial, bundle: Bundle, rules: FallRules, range_g: float = 16.0) -> Outcome:
    """Stream one trial through detector and alarm machine."""
    stamps: Stamps = "even" if trial.t_s is None else "arrival"
    detector = FallDetector(bundle, rate_hz=trial.rate_hz, range_g=range_g, stamps=stamps)
    times = trial.times_s()
    machine = AlarmMachine(rules, lambda: "trial", now_s=float(times[0]) if len(times) else 0.0)
    alarms, highest = [], float("-inf")
    size = max(1, round(BLOCK_S * trial.rate_hz))
    for begin in range(0, len(times), size):
        part = slice(begin, begin + size)
        for hop in detector.push(SampleBlock(times[part], trial.acc_g[part])):
            highest = max(highest, hop.mean)
            for step in machine.step(hop):
                if step.what == "prealarm":
                    alarms.append(hop.t_s)
                    machine.command(Event.CANCEL, hop.t_s)
    peak_s, length_s = _peak(trial, stamps)
    return Outcome(trial, tuple(alarms), peak_s, length_s / 3600.0, highest)


def _peak(trial: Trial, stamps: Stamps) -> tuple[float, float]:
    """When |a| is largest, and the length of the trial; seconds on the detector's clock."""
    clock = SampleClock(trial.rate_hz, stamps)
    runs = clock.place(trial.times_s())
    if not runs:
        return float("nan"), 0.0
    ticks = np.concatenate([run.ticks for run in runs])
    acc = np.concatenate([trial.acc_g[run.keep] for run in runs])
    power = np.square(acc, dtype=np.float64).sum(axis=1)
    at = int(ticks[power.argmax()]) / TICKS_PER_S + clock.origin_s
    return at, int(ticks[-1] - ticks[0]) / TICKS_PER_S + 1.0 / trial.rate_hz


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Figures of scored trials, JSON-able.

    sensitivity, specificity (None without falls or activities) with Wilson 95 % intervals; falls,
    adls, trials, hours (of activities); false_alarms_per_hour; delay_s of detected falls from peak
    to pre-alarm; early: falls whose pre-alarm came over 0.5 s before the peak; per_activity,
    per_subject; missed and false_alarms name the trials.

    unscored: trials without one judged window. Such a fall is missed; such an activity is in no
    figure but `trials`, for it would count as a perfect one.
    """
    every = list(outcomes)
    done = [o for o in every if o.scored or o.trial.is_fall]
    falls = [o for o in done if o.trial.is_fall]
    adls = [o for o in done if not o.trial.is_fall]
    detected = [o for o in falls if o.alarms_s]
    quiet = [o for o in adls if not o.alarms_s]
    delays = [o.alarms_s[0] - o.peak_s for o in detected]
    hours = sum(o.hours for o in adls)
    count = sum(len(o.alarms_s) for o in adls)
    return {
        "sensitivity": len(detected) / len(falls) if falls else None,
        "sensitivity_ci95": list(wilson(len(detected), len(falls))),
        "specificity": len(quiet) / len(adls) if adls else None,
        "specificity_ci95": list(wilson(len(quiet), len(adls))),
        "falls": len(falls),
        "adls": len(adls),
        "trials": len(every),
        "unscored": sum(not o.scored for o in every),
        "hours": hours,
        "false_alarms_per_hour": count / hours if hours else None,
        "delay_s": {"p50": percentile(delays, 0.50), "p95": percentile(delays, 0.95)},
        "early": sum(delay < -EARLY_S for delay in delays),
        "per_activity": _grouped(done, lambda o: o.trial.activity),
        "per_subject": _grouped(done, lambda o: o.trial.subject),
        "missed": [o.trial.trial for o in falls if not o.alarms_s],
        "false_alarms": [o.trial.trial for o in adls if o.alarms_s],
    }


def sweep(outcomes: Sequence[Outcome], threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of the same scores at another threshold."""
    falls = [o.highest >= threshold for o in outcomes if o.trial.is_fall]
    adls = [o.highest < threshold for o in outcomes if not o.trial.is_fall]
    return sum(falls) / max(len(falls), 1), sum(adls) / max(len(adls), 1)


def _grouped(outcomes: list[Outcome], key: Callable[[Outcome], str]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for outcome in sorted(outcomes, key=key):
        row = table.setdefault(
            key(outcome), {"falls": 0, "detected": 0, "adls": 0, "false_alarms": 0}
        )
        kind, hit = ("falls", "detected") if outcome.trial.is_fall else ("adls", "false_alarms")
        row[kind] += 1
        row[hit] += bool(outcome.alarms_s)
    return table


def _identity(bundle: Bundle, manifest: FallManifest) -> dict[str, Any]:
    return {
        "bundle": manifest.name,
        "version": manifest.version,
        "engine": bundle.interpreter.engine,
    }


def _warnings(trials: Sequence[Trial], manifest: FallManifest) -> list[str]:
    seen = sorted({t.subject for t in trials} & set(manifest.provenance.training_subjects))
    others = sorted({t.placement for t in trials} - {manifest.decision.placement})
    warnings = []
    if seen:
        some = ", ".join(seen[:5]) + (" ..." if len(seen) > 5 else "")
        warnings.append(
            f"the bundle was trained on {len(seen)} of these subjects ({some}): the figures are "
            "too good; use --cross-validate, or other subjects"
        )
    if others:
        warnings.append(
            f"trials from the {', '.join(others)}; the threshold of {manifest.name} was set for "
            f"the {manifest.decision.placement}"
        )
    return warnings


def _empty(outcomes: Sequence[Outcome]) -> list[str]:
    """Trials that tell nothing of the bundle."""
    unscored = [o.trial.trial for o in outcomes if not o.scored]
    frozen = [o.trial.trial for o in outcomes if o.scored and _frozen(o.trial)]
    warnings = []
    if unscored:
        warnings.append(
            f"{_named(unscored)}: too short, or with too many gaps, for one window to be scored; "
            "falls among them count as missed, activities not at all"
        )
    if frozen:
        warnings.append(
            f"{_named(frozen)}: frozen, at least two axes never change; a broken recording is no "
            "quiet activity, leave it out"
        )
    return warnings


def _frozen(trial: Trial) -> bool:
    """Two axes and more repeat one value all along, as core.signal has it of a broken sensor."""
    return int((np.ptp(trial.acc_g, axis=0) == 0.0).sum()) >= 2


def _named(trials: Sequence[str]) -> str:
    some = ", ".join(trials[:3]) + (" ..." if len(trials) > 3 else "")
    return f"{len(trials)} trial{'s' if len(trials) > 1 else ''} ({some})"


def _manifest(bundle: Bundle) -> FallManifest:
    if not isinstance(bundle.manifest, FallManifest):
        raise ManifestError(f"bundle {bundle.manifest.name} is not a fall model; name another")
    return bundle.manifest
