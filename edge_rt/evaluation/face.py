"""Figures of the face line: verification of picture pairs, detection with and without faces."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_rt.adapters.imaging import find_images, read_image
from edge_rt.bundle import Bundle
from edge_rt.core.errors import InputError
from edge_rt.core.manifest import EmbedManifest
from edge_rt.core.types import Float32Array, FloatArray
from edge_rt.evaluation.stats import wilson
from edge_rt.faces.detector import FaceDetector
from edge_rt.faces.pipeline import FacePipeline

Progress = Callable[[int, int], None]


class Pair(NamedTuple):
    """Two pictures and whether they show the same person."""

    a: Path
    b: Path
    same: bool


def read_pairs(path: Path) -> list[Pair]:
    """Pairs from a csv with the columns a, b, same (0 or 1); paths are relative to it.

    Raises InputError for a missing file, missing columns, a bad value, or pairs all of one kind.
    """
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if not {"a", "b", "same"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}: the first line must name the columns a,b,same")
            pairs = []
            for row in reader:
                if row["same"] not in ("0", "1") or not row["a"] or not row["b"]:
                    raise InputError(f"{path}: line {reader.line_num}: want a,b and same 0 or 1")
                pair = Pair(path.parent / row["a"], path.parent / row["b"], row["same"] == "1")
                pairs.append(pair)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a csv of pairs") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a csv file ({error})") from None
    if len({pair.same for pair in pairs}) < 2:
        raise InputError(f"{path}: needs pairs of the same and of different persons")
    return pairs


def evaluate_face(
    pairs: Path | Sequence[Pair],
    detect: Bundle,
    embed: Bundle,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Verification through the whole pipeline; every picture is looked at once.

    A picture without a usable face is a failure to acquire; its pairs count as non-matches.
    Returns accuracy, far, frr at the bundle's threshold, best_accuracy with best_threshold (chosen
    on these very pairs), eer, tar_at_far_1e2, tar_at_far_1e3, failure_to_acquire, and how they came
    about. Intervals are 95 % Wilson intervals, which take pairs as independent; pairs that share
    pictures are not quite. Raises InputError.
    """
    listed = read_pairs(pairs) if isinstance(pairs, Path) else list(pairs)
    manifest = embed.manifest
    pipeline = FacePipeline(detect, embed)
    assert isinstance(manifest, EmbedManifest)  # FacePipeline refused anything else
    pictures = sorted({p for pair in listed for p in (pair.a, pair.b)})
    embeddings: dict[Path, Float32Array] = {}
    reasons: dict[str, int] = {}
    for done, path in enumerate(pictures, 1):
        # Stills do not follow one another: each is searched whole.
        pipeline.forget()
        seen = pipeline.process(read_image(path))
        if seen.embedding is not None:
            embeddings[path] = seen.embedding
        else:
            name = str(seen.reason or "no_face")
            reasons[name] = reasons.get(name, 0) + 1
        if progress:
            progress(done, len(pictures))
    distances = np.array([_distance(embeddings, pair) for pair in listed])
    same = np.array([pair.same for pair in listed])
    threshold = manifest.decision.threshold.value
    return {
        **verification(distances, same, threshold),
        "failure_to_acquire": (len(pictures) - len(embeddings)) / len(pictures),
        "failures": reasons,
        "pictures": len(pictures),
        "engine": embed.interpreter.engine,
        "bundles": {b.manifest.name: b.manifest.version for b in (detect, embed)},
    }


def _distance(embeddings: dict[Path, Float32Array], pair: Pair) -> float:
    if pair.a not in embeddings or pair.b not in embeddings:
        return float("inf")
    return float(np.linalg.norm(embeddings[pair.a] - embeddings[pair.b]))


def verification(distances: FloatArray, same: Any, threshold: float) -> dict[str, Any]:
    """Error rates of pair distances, float64 (n,), inf for a failed acquisition; same bool (n,).

    far is the share of different pairs accepted at a distance <= threshold, frr that of same pairs
    not accepted; eer is where they meet; tar_at_far_* the largest 1 - frr with far within bounds.
    """
    genuine, impostor = np.sort(distances[same]), np.sort(distances[~same])
    steps = np.concatenate([[-1.0], np.unique(distances[np.isfinite(distances)])])
    accepted = np.searchsorted(genuine, steps, side="right")
    false = np.searchsorted(impostor, steps, side="right")
    correct = accepted + len(impostor) - false
    best = int(np.argmax(correct))
    frr, far = 1.0 - accepted / len(genuine), false / len(impostor)
    meet = int(np.argmin(np.abs(far - frr)))
    at = int(np.searchsorted(steps, threshold, side="right")) - 1
    n = len(distances)
    return {
        "accuracy": int(correct[at]) / n,
        "accuracy_ci95": list(wilson(int(correct[at]), n)),
        "far": float(far[at]),
        "far_ci95": list(wilson(int(false[at]), len(impostor))),
        "frr": float(frr[at]),
        "frr_ci95": list(wilson(len(genuine) - int(accepted[at]), len(genuine))),
        "best_accuracy": int(correct[best]) / n,
        "best_accuracy_ci95": list(wilson(int(correct[best]), n)),
        "best_threshold": float(steps[best]),
        "eer": float((far[meet] + frr[meet]) / 2.0),
        "tar_at_far_1e2": _tar_at(far, frr, 1e-2),
        "tar_at_far_1e3": _tar_at(far, frr, 1e-3),
        "threshold": threshold,
        "pairs": n,
        "same_pairs": len(genuine),
    }


def _tar_at(far: FloatArray, frr: FloatArray, bound: float) -> float:
    return float(1.0 - frr[far <= bound][-1])


def evaluate_detector(
    faces: Path, no_faces: Path, detect: Bundle, progress: Progress | None = None
) -> dict[str, Any]:
    """Recall on pictures with a face each, false positives on pictures without any.

    A picture with a face counts as found if at least one face is found in it. Raises InputError.
    """
    detector = FaceDetector(detect)
    with_face, without = find_images(faces), find_images(no_faces)
    total = len(with_face) + len(without)
    found = 0
    false = 0
    for done, path in enumerate([*with_face, *without], 1):
        count = len(detector.find(read_image(path)))
        if done <= len(with_face):
            found += count > 0
        else:
            false += count
        if progress:
            progress(done, total)
    return {
        "recall": found / len(with_face),
        "recall_ci95": list(wilson(found, len(with_face))),
        "false_positives_per_image": false / len(without),
        "faces_found": found,
        "face_pictures": len(with_face),
        "false_positives": false,
        "no_face_pictures": len(without),
        "threshold": detector.threshold,
        "engine": detect.interpreter.engine,
    }
