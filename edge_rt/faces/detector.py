"""Face detector: a BlazeFace bundle on pictures of any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_rt.adapters.imaging import to_tensor, warp
from edge_rt.bundle import Bundle
from edge_rt.core.blazeface import Detection, decode, make_anchors, overlap
from edge_rt.core.errors import ManifestError
from edge_rt.core.manifest import DetectManifest
from edge_rt.core.types import Float32Array, ImageArray

# Side of the second look in units of the face box: the face then fills half of the input.
NEAR_SIDE = 2.0
# Probability at which the first look calls for a second: low, for hats, glasses and profiles; what
# is no face seldom looks like one twice (figures on the bundle's card).
CANDIDATE = 0.4
MAX_FACES = 3  # second looks a picture; who stands behind the third-largest face cannot unlock


def prominence(face: Detection, width: int, height: int) -> float:
    """How much a face is the subject of a picture: its width, less the farther off the middle."""
    x, y = (face.box[:2] + face.box[2:]) / 2.0
    away = math.hypot(x - width / 2.0, y - height / 2.0) / math.hypot(width / 2.0, height / 2.0)
    return float(face.box[2] - face.box[0]) * (1.0 - min(away, 1.0))


class FaceDetector:
    """Finds faces; not safe for use from two threads at once."""

    def __init__(self, bundle: Bundle, threshold: float | None = None) -> None:
        """threshold: probability at which a face counts; the bundle's own by default.

        Raises ManifestError for a bundle of another task or with strides that do not fit.
        """
        manifest = bundle.manifest
        if not isinstance(manifest, DetectManifest):
            raise ManifestError(f"{manifest.name} is no face detector; name a face-detect bundle")
        spec, output = manifest.input, manifest.output
        interpreter = bundle.interpreter
        try:
            self._anchors = make_anchors(spec.height, output.strides)
        except ValueError as error:
            raise ManifestError(f"{manifest.name}: {error}; correct [output] strides") from None
        if spec.width != spec.height or len(self._anchors) != output.anchors:
            raise ManifestError(
                f"{manifest.name}: {len(self._anchors)} anchors on a {spec.width}x{spec.height} "
                f"input, the manifest says {output.anchors} on a square; correct the manifest"
            )
        self._interpreter = interpreter
        self._size = spec.height
        self._nms_iou = manifest.decision.nms_iou
        self._scale, self._offset = output.score_scale, output.score_offset
        self._box_scale, self._box_offset = output.box_scale, output.box_offset
        self._scores_at = next(k for k, o in enumerate(interpreter.outputs) if o.shape[-1] == 1)
        self._table = interpreter.quantize(np.linspace(spec.low, spec.high, 256))
        self._swap = spec.colour == "rgb"
        self._square: ImageArray = np.empty((spec.height, spec.width, 3), np.uint8)
        # One byte a score: every value it can take is worked out once.
        self._score_table: Float32Array | None = None
        head = interpreter.outputs[self._scores_at].dtype
        if head.itemsize == 1:
            self._score_table = self._scores(np.arange(256, dtype=np.uint8).view(head))
        # Told what the network is shown, uint8 (size, size, 3) blue-green-red: for calibration.
        self.on_look: Callable[[ImageArray], None] | None = None
        self.threshold = manifest.decision.threshold.value if threshold is None else threshold
        self.floor = min(manifest.decision.threshold.min, self.threshold)

    def find(self, image: ImageArray, threshold: float | None = None) -> list[Detection]:
        """Faces in a picture, uint8 (height, width, 3) blue-green-red, in its pixels.

        threshold: probability at which a face counts, the detector's own by default. The first
        look takes everything down to CANDIDATE; a closer second look at each decides, and gives
        the better keypoints. Most prominent face first.
        """
        height, width = image.shape[:2]
        side = float(max(height, width))
        seen = self._look(image, (width - side) / 2.0, (height - side) / 2.0, side, CANDIDATE)
        seen.sort(key=lambda face: -prominence(face, width, height))
        faces: list[Detection] = []
        for candidate in seen[:MAX_FACES]:
            face = self.follow(image, candidate, threshold)
            # Two candidates may lead to one face.
            if face and all(overlap(face.box, f.box[np.newaxis]) <= self._nms_iou for f in faces):
                faces.append(face)
        return faces

    def follow(
        self, image: ImageArray, face: Detection, threshold: float | None = None
    ) -> Detection | None:
        """Look closely where a face was: in this picture, or in the one before. None if gone."""
        left, top, right, bottom = (float(v) for v in face.box)
        side = max((right - left) * NEAR_SIDE, 8.0)
        x, y = (left + right) / 2.0, (top + bottom) / 2.0
        reach = (right - left) / 2.0
        least = self.threshold if threshold is None else threshold
        for found in self._look(image, x - side / 2.0, y - side / 2.0, side, least):
            u, v = (found.box[:2] + found.box[2:]) / 2.0
            if abs(u - x) < reach and abs(v - y) < reach:
                return found
        return None

    def _scores(self, raw: npt.NDArray[Any]) -> Float32Array:
        """Probabilities of the score head's raw values, same shape."""
        if self._score_table is not None:
            return self._score_table[raw.view(np.uint8)]
        logits = self._interpreter.dequantize(raw, self._scores_at)
        logits = (logits - np.float32(self._offset)) * np.float32(self._scale)
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0))), np.float32)

    def _look(
        self, image: ImageArray, left: float, top: float, side: float, threshold: float
    ) -> list[Detection]:
        # Frame edge coordinate x + 0.5 = left + (u + 0.5) / shrink, for pixel centres x and u.
        shrink = self._size / side
        matrix = np.array(
            [
                [shrink, 0.0, (0.5 - left) * shrink - 0.5],
                [0.0, shrink, (0.5 - top) * shrink - 0.5],
            ]
        )
        warp(image, matrix, self._square)
        if self.on_look is not None:
            self.on_look(self._square)
        # Straight into the tensor's memory; no name may hold on to it while the model runs.
        to_tensor(self._square, self._table, self._swap, self._interpreter.input_view()[0])
        raw = self._interpreter.invoke_filled()
        k = self._scores_at
        scores = self._scores(raw[k][0, :, 0])
        chosen = np.flatnonzero(scores >= threshold)
        if not len(chosen):
            return []
        regressors = self._interpreter.dequantize(raw[1 - k][0, chosen], 1 - k)
        regressors = (regressors - np.float32(self._box_offset)) * np.float32(self._box_scale)
        faces = decode(scores[chosen], regressors, self._anchors[chosen], self._nms_iou)
        zoom = np.float32(1.0 / shrink)  # the network counts from pixel edges, we from centres
        shift = np.array([left - 0.5, top - 0.5], np.float32)
        corners = np.concatenate([shift, shift])
        return [
            Detection(f.score, f.box * zoom + corners, f.keypoints * zoom + shift) for f in faces
        ]
