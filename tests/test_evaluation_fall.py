"""Fall figures: what is counted as what, and the subject-disjoint figures of the stored folds."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_rt.adapters.tflite import Interpreter
from edge_rt.adapters.trials import Trial, write_trials
from edge_rt.bundle import Bundle, open_bundle
from edge_rt.core.errors import InputError
from edge_rt.core.fall_rules import rules_for
from edge_rt.evaluation.fall import (
    Outcome,
    cross_validate_fall,
    evaluate_fall,
    load,
    run_trial,
    summary,
    sweep,
)
from edge_rt.falls.simulate import FALLS, simulate


@pytest.fixture(scope="module")
def waist(factory_bundle: Callable[[str], Path]) -> Bundle:
    return open_bundle(factory_bundle("fall-waist"))


def trial(name: str, is_fall: bool, subject: str = "S1") -> Trial:
    acc = np.zeros((10, 3), np.float32)
    return Trial(subject, name, name[:3], is_fall, "waist", 50.0, acc)


def outcome(name: str, is_fall: bool, *alarms: float, subject: str = "S1") -> Outcome:
    return Outcome(trial(name, is_fall, subject), alarms, 5.0, 0.5, 1.0 if alarms else -1.0)


def test_what_is_counted_as_what() -> None:
    figures = summary(
        [
            outcome("F01_a", True, 6.0),
            outcome("F01_b", True, 5.8, 9.0),
            outcome("F02_a", True, 4.0, subject="S2"),  # before the peak: early, and detected
            outcome("F02_b", True),
            outcome("D01_a", False),
            outcome("D01_b", False, 1.0, 40.0),
            outcome("D02_a", False, subject="S2"),
        ]
    )
    assert (figures["falls"], figures["adls"], figures["trials"]) == (4, 3, 7)
    assert figures["sensitivity"] == 0.75
    assert figures["specificity"] == pytest.approx(2 / 3)
    assert figures["sensitivity_ci95"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert figures["hours"] == 1.5
    assert figures["false_alarms_per_hour"] == pytest.approx(2 / 1.5)
    assert figures["delay_s"]["p50"] == pytest.approx(0.8)
    assert figures["early"] == 1
    assert figures["missed"] == ["F02_b"]
    assert figures["false_alarms"] == ["D01_b"]
    row = {"falls": 2, "detected": 2, "adls": 0, "false_alarms": 0}
    assert figures["per_activity"]["F01"] == row
    assert figures["per_subject"]["S2"]["detected"] == 1
    json.dumps(figures, allow_nan=False)


def test_without_falls_or_activities_a_figure_is_unknown_not_perfect() -> None:
    figures = summary([outcome("F01_a", True, 6.0)])
    assert figures["specificity"] is None
    assert figures["false_alarms_per_hour"] is None
    assert figures["specificity_ci95"] == [0.0, 1.0]
    assert summary([outcome("D01_a", False)])["delay_s"] == {"p50": None, "p95": None}


def test_a_recording_that_was_never_scored_is_no_perfect_one(tmp_path: Path, waist: Bundle) -> None:
    rng = np.random.default_rng(1)
    quiet = rng.normal([0, 0, 1], 0.02, (1000, 3)).astype(np.float32)
    path = tmp_path / "a.npz"
    write_trials(
        path,
        [
            trial("D01_ok", False)._replace(acc_g=quiet),
            trial("D01_short", False),
            trial("D01_empty", False)._replace(acc_g=quiet[:0]),
            trial("F01_short", True),
        ],
    )
    figures = evaluate_fall([path], waist)
    assert (figures["trials"], figures["unscored"]) == (4, 3)
    assert (figures["adls"], figures["specificity"]) == (1, 1.0)
    assert (figures["falls"], figures["missed"]) == (1, ["F01_short"])
    assert figures["hours"] == pytest.approx(1000 / 50.0 / 3600.0)
    assert figures["per_activity"]["D01"]["adls"] == 1
    (warning,) = figures["warnings"]
    assert warning.startswith("3 trials (D01_short, D01_empty, F01_short): too short")


def test_a_sweep_counts_the_same_scores_again() -> None:
    outcomes = [outcome("F", True, 1.0), outcome("F", True), outcome("D", False, 1.0)]
    assert sweep(outcomes, 0.0) == (0.5, 0.0)
    assert sweep(outcomes, -2.0) == (1.0, 0.0)
    assert sweep(outcomes, 2.0) == (0.0, 1.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated falls and one quiet recording, as a trials/1 file."""
    trials = []
    for seed in (1, 2):
        block = simulate(FALLS["walking"], seed, rate_hz=50.0).block
        trials.append(Trial("X1", f"F{seed}", "F01", True, "waist", 50.0, block.acc_g))
    still = np.tile(np.float32([0, 0, 1]), (1000, 1))
    trials.append(Trial("X2", "D1", "D01", False, "waist", 50.0, still))
    path = tmp_path_factory.mktemp("trials") / "simulated.npz"
    write_trials(path, trials)
    return path


def test_a_file_is_evaluated_through_the_pipeline(simulated: Path, waist: Bundle) -> None:
    done: list[tuple[int, int]] = []
    figures = evaluate_fall([simulated], waist, progress=lambda k, n: done.append((k, n)))
    assert figures["sensitivity"] == figures["specificity"] == 1.0
    assert 0.0 < figures["delay_s"]["p50"] < 2.0
    assert figures["bundle"] == "fall-waist"
    assert figures["engine"] == waist.interpreter.engine
    (warning,) = figures["warnings"]  # of the third one, which no living sensor recorded
    assert warning.startswith("1 trial (D1): frozen")
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_every_alarm_of_a_trial_is_counted(waist: Bundle) -> None:
    falls = [simulate(FALLS["walking"], seed, rate_hz=50.0).block.acc_g for seed in (1, 2)]
    twice = trial("F01_a", True)._replace(acc_g=np.concatenate(falls))
    outcome = run_trial(twice, waist, rules_for(waist.manifest))
    assert len(outcome.alarms_s) == 2
    assert outcome.hours * 3600 == pytest.approx(len(twice.acc_g) / 50.0)
    assert outcome.highest >= waist.manifest.decision.threshold.value


def test_subjects_of_the_training_and_other_placements_are_warned_of(
    tmp_path: Path, waist: Bundle
) -> None:
    path = tmp_path / "a.npz"
    known = trial("F01_a", True, subject=waist.manifest.provenance.training_subjects[0])
    write_trials(path, [known._replace(placement="ankle")])
    warnings = evaluate_fall([path], waist)["warnings"]
    assert any("trained on 1 of these subjects" in w and known.subject in w for w in warnings)
    assert any("ankle" in w for w in warnings)


def test_nothing_to_evaluate_is_an_error(waist: Bundle) -> None:
    with pytest.raises(InputError, match="no trials"):
        evaluate_fall([], waist)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed here"
)
def test_training_without_tensorflow_says_what_to_install(simulated: Path, waist: Bundle) -> None:
    with pytest.raises(InputError, match=r"pip install -e '\.\[train\]'"):
        cross_validate_fall([simulated], waist)


# ---- the stored folds ----


def held_out(
    trials: list[Trial], bundle: Bundle, folder: Path, engine: str
) -> Iterator[tuple[Trial, Outcome]]:
    """Each trial scored by the fold that has not seen its subject, at the shipped threshold."""
    folds: dict[str, int] = json.loads((folder / "folds.json").read_text())["folds"]
    networks = {
        fold: bundle._replace(
            interpreter=Interpreter((folder / f"fold{fold}.tflite").read_bytes(), engine)
        )
        for fold in sorted(set(folds.values()))
    }
    rules = rules_for(bundle.manifest)
    for one in trials:
        yield one, run_trial(one, networks[folds[one.subject]], rules)


def hold(figure: Any, figures: dict[str, Any], name: str, least: float) -> None:
    size = f"{figures['falls']} falls, {figures['adls']} activities"
    figure(f"{name} sensitivity, subject-disjoint ({size})", figures["sensitivity"], at_least=least)
    figure(f"{name} specificity, subject-disjoint ({size})", figures["specificity"], at_least=least)
    figure(f"{name} delay p50", figures["delay_s"]["p50"], at_most=1.0, unit="s")
    figure(f"{name} delay p95", figures["delay_s"]["p95"], at_most=1.5, unit="s")


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "tests/data/fall_folds"


def sisfall(shared: Path, share: float) -> list[Trial]:
    """A seeded share of the trials of every subject."""
    chance = random.Random(1)
    files = sorted((shared / "data/falls/sisfall").glob("*.npz"))
    return [t for path in files for t in load([path]) if chance.random() < share]


def test_weda_subject_disjoint(
    shared: Path, factory_bundle: Callable[[str], Path], folder: Path, figure: Any
) -> None:
    bundle = open_bundle(factory_bundle("fall-wrist"))
    trials = load([shared / "data/falls/weda_wrist.npz"])
    scored = [o for _, o in held_out(trials, bundle, folder, "auto")]
    hold(figure, summary(scored), "WEDA", 0.965)


def test_a_share_of_sisfall_subject_disjoint(
    shared: Path, waist: Bundle, folder: Path, figure: Any
) -> None:
    scored = [o for _, o in held_out(sisfall(shared, 0.2), waist, folder, "auto")]
    # A fifth of the trials: the bound is the release bound less one standard error.
    hold(figure, summary(scored), "SisFall, a fifth", 0.985)


@pytest.mark.release
def test_sisfall_subject_disjoint(
    shared: Path, waist: Bundle, folder: Path, figure: Any, engine: str
) -> None:
    scored = [o for _, o in held_out(sisfall(shared, 1.0), waist, folder, engine)]
    hold(figure, summary(scored), f"SisFall on {engine}", 0.990)


@pytest.mark.release
def test_weda_on_each_engine(
    shared: Path, factory_bundle: Callable[[str], Path], folder: Path, figure: Any, engine: str
) -> None:
    bundle = open_bundle(factory_bundle("fall-wrist"), engine)
    trials = load([shared / "data/falls/weda_wrist.npz"])
    scored = [o for _, o in held_out(trials, bundle, folder, engine)]
    hold(figure, summary(scored), f"WEDA on {engine}", 0.965)


@pytest.mark.parametrize("placement", ["waist", "wrist"])
def test_quantization_cost_nothing_when_it_was_measured(folder: Path, placement: str) -> None:
    """int8 within 0.5 points or 2 trials of float32, by the build's own figures."""
    figures = json.loads((folder / "figures.json").read_text())[placement]
    for name, of in (("sensitivity", "falls"), ("specificity", "adls")):
        n = figures["int8"][of]
        allowed = max(0.005, 2.0 / n) + 1e-9
        assert figures["float32"][name] - figures["int8"][name] <= allowed
        assert figures["float32"][of] == n


def test_the_shipped_threshold_lies_on_a_plateau(
    factory_bundle: Callable[[str], Path], folder: Path
) -> None:
    """Half a logit to either side must not break the figures."""
    figures = json.loads((folder / "figures.json").read_text())
    for placement, least in (("waist", 0.985), ("wrist", 0.95)):
        threshold = open_bundle(factory_bundle(f"fall-{placement}")).manifest.decision.threshold
        near = {
            float(t): pair
            for t, pair in figures[placement]["sweep"].items()
            if abs(float(t) - threshold.value) <= 0.5
        }
        assert len(near) >= 2
        assert min(min(pair) for pair in near.values()) >= least, near
