#!/usr/bin/env python3
"""Build the factory bundles fall-waist and fall-wrist from recordings, with every figure on them.

    pip install -e '.[train]'
    scripts/models/build_fall.py --data DIR [--out models] [--folds tests/data/fall_folds]

DIR holds trials/1 files (.npz, at any depth): SisFall and WEDA-FALL. Trains one network per fold
of subjects (for the figures) and one on everything (which ships), quantizes them, writes the
bundles with golden vectors and CARD.md, and the fold networks with their subjects, so that tests
can score them again without training. Ten minutes on one core. Same packages and seed, same
figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt
from fall_card import card

from edge_rt.adapters.bundle_files import write_manifest
from edge_rt.adapters.tflite import ENGINES, Interpreter, installed_engines
from edge_rt.adapters.trials import Trial
from edge_rt.bundle import Bundle, open_bundle
from edge_rt.core.fall_rules import rules_for
from edge_rt.core.resample import to_fixed
from edge_rt.core.windows import FeatureStream
from edge_rt.evaluation.fall import Outcome, load, run_trial, summary, sweep
from edge_rt.falls import training
from edge_rt.falls.training import GRID

SEED = 7
FOLDS = 5
VERSION = "1.0.0"
SMOOTH = 3
# Threshold on the mean logit, and how far settings may move it. Set in the middle of the range
# where both figures hold in cross-validation, not where one of them peaks: thresholds shift
# between networks, sensors and people. The card prints the sweep.
THRESHOLDS = {"waist": (0.0, -1.5, 1.5), "wrist": (2.0, 0.5, 3.0)}
SWEEP = np.arange(-2.0, 3.01, 0.5)
PACKAGES = ("tensorflow-cpu", "keras", "numpy")
GOLDEN_CASES = 32
GOLDEN_STEPS = 2  # engines round differently in the requantization of each layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of trials/1 files")
    parser.add_argument("--out", type=Path, default=Path("models"))
    parser.add_argument("--folds", type=Path, default=Path("tests/data/fall_folds"))
    arguments = parser.parse_args()

    trials = load(sorted(arguments.data.rglob("*.npz")))
    say(f"{len(trials)} trials; making examples")
    bank = training.make_bank(trials, SEED)
    everything = range(len(trials))
    networks = training.convert(
        training.train(trials, bank, everything, SEED + FOLDS), bank, everything, SEED
    )
    bundles = {}
    for placement in THRESHOLDS:
        folder = arguments.out / f"fall-{placement}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fall.tflite").write_bytes(networks.int8)
        write_golden(folder / "golden.npz", networks.int8)
        (folder / "CARD.md").write_text("The card is written when the figures are known.\n")
        write_manifest(folder, manifest(placement, trials))
        bundles[placement] = open_bundle(folder)
        for engine in ENGINES:
            check_golden(folder, engine)

    figures = cross_validate(trials, bank, bundles, arguments.folds)
    for placement, bundle in bundles.items():
        text = card(placement, bundle.manifest, figures[placement])
        (bundle.files.folder / "CARD.md").write_text(text)
        write_manifest(bundle.files.folder, manifest(placement, trials))
        open_bundle(bundle.files.folder)
    (arguments.folds / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def manifest(placement: str, trials: Sequence[Trial]) -> dict[str, Any]:
    value, low, high = THRESHOLDS[placement]
    return {
        "schema": 1,
        "task": "fall",
        "name": f"fall-{placement}",
        "version": VERSION,
        "model": "fall.tflite",
        "license": "Apache-2.0",
        "minimum_runtime": "0.1.0",
        "security_epoch": 1,
        "latency_budget_ms": 5.0,  # 1/30 of a hop, on a core far slower than any supported one
        "input": {
            "kind": "window",
            "rate_hz": GRID.rate_hz,
            "window": GRID.window,
            "hop": GRID.hop,
            "channels": list(GRID.channels),
            "units": "g",
        },
        "output": {"kind": "score", "scale": "logit"},
        "decision": {
            "smooth": SMOOTH,
            "placement": placement,
            "threshold": {"value": value, "min": low, "max": high},
        },
        "golden": {"file": "golden.npz", "tolerance": float(GOLDEN_STEPS)},
        "provenance": {
            "source": "trained from scratch on SisFall (doi 10.3390/s17010198) and WEDA-FALL "
            "(doi 10.3390/s23031146); no recording is part of this bundle",
            "script": "scripts/models/build_fall.py",
            "seed": SEED,
            "packages": [f"{name}=={version(name)}" for name in PACKAGES],
            "training_subjects": sorted({t.subject for t in trials}),
        },
    }


def cross_validate(
    trials: Sequence[Trial], bank: training.Bank, bundles: dict[str, Bundle], folder: Path
) -> dict[str, Any]:
    """Train, keep and score the fold networks; figures per placement, int8 and float32."""
    folder.mkdir(parents=True, exist_ok=True)
    number = training.folds_of(trials, FOLDS)
    subjects = {t.subject: f for t, f in zip(trials, number, strict=True)}
    table = {"folds": subjects, "seed": SEED, "channels": list(GRID.channels)}
    (folder / "folds.json").write_text(json.dumps(table, indent=1) + "\n")
    scored: dict[str, dict[str, list[Outcome]]] = {p: {"int8": [], "float32": []} for p in bundles}
    for fold in range(FOLDS):
        say(f"fold {fold + 1} of {FOLDS}")
        use = [k for k, f in enumerate(number) if f != fold]
        model = training.train(trials, bank, use, SEED + fold)
        networks = training.convert(model, bank, use, SEED)
        (folder / f"fold{fold}.tflite").write_bytes(networks.int8)
        for kind, content in (("int8", networks.int8), ("float32", networks.float32)):
            interpreter = Interpreter(content, "litert")
            for k in sorted(set(range(len(trials))) - set(use)):
                shipped = bundles[trials[k].placement]
                outcome = run_trial(
                    trials[k],
                    shipped._replace(interpreter=interpreter),
                    rules_for(shipped.manifest),
                )
                scored[trials[k].placement][kind].append(outcome)
    engine = f"ai-edge-litert {version('ai-edge-litert')}"
    return {
        placement: {
            "folds": FOLDS,
            "engine": engine,
            "sweep": {f"{t:g}": sweep(kinds["int8"], t) for t in SWEEP.tolist()},
            **{kind: summary(outcomes) for kind, outcomes in kinds.items()},
        }
        for placement, kinds in scored.items()
    }


def write_golden(path: Path, model: bytes) -> None:
    """Windows of made-up motion (no recording), and what the model answers on LiteRT."""
    interpreter = Interpreter(model, "litert")
    rng = np.random.default_rng(SEED)
    inputs = [interpreter.quantize(made_up(rng)[None]) for _ in range(GOLDEN_CASES)]
    outputs = [interpreter.invoke(window[None])[0][0] for window in inputs]
    np.savez_compressed(path, input_0=np.stack(inputs), output_0=np.stack(outputs))


def made_up(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Channels of a window in which gravity turns, with shaking and a blow."""
    n = GRID.window
    turn = rng.uniform(0.0, np.pi) / (1.0 + np.exp(-(np.arange(n) - n / 2) / rng.uniform(2, 10)))
    acc = np.stack([np.sin(turn), np.zeros(n), np.cos(turn)], axis=1)
    acc += rng.normal(0.0, rng.uniform(0.01, 0.4), (n, 3))
    at = rng.integers(n // 3, n - 10)
    acc[at : at + 3] += rng.normal(0.0, rng.uniform(0.0, 5.0), (3, 3))
    stream = FeatureStream(GRID.rate_hz, GRID.channels)
    return stream.push(to_fixed(acc.astype(np.float32)))


def check_golden(folder: Path, engine: str) -> None:
    """Verify on an engine, in a process of its own: TensorFlow and tflite-runtime do not mix."""
    if engine not in installed_engines():
        say(f"{engine} is not installed here: golden vectors of {folder} unchecked on it")
        return
    command = [sys.executable, "-m", "edge_rt", "model", "verify", str(folder)]
    if subprocess.run([*command, "--engine", engine]).returncode:
        raise SystemExit(f"{folder}: golden vectors fail on {engine}")


def say(text: str) -> None:
    print(f"build_fall: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
