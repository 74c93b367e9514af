"""The face pipeline: a frame in, an observation out. Detect, align, quality gate, embed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge_rt.adapters.imaging import histogram, sharpness, to_gray
from edge_rt.bundle import Bundle
from edge_rt.core.blazeface import Detection
from edge_rt.core.latency import LatencyRecorder
from edge_rt.core.quality import (
    ADVICE,
    Facts,
    QualityRules,
    Reason,
    inside_share,
    judge,
    light_of,
    pose_of,
)
from edge_rt.core.types import Float32Array, ImageArray
from edge_rt.faces.detector import FaceDetector
from edge_rt.faces.embedder import FaceEmbedder

STAGES = ("detect", "align", "quality", "embed", "frame")
# A lone face is followed from frame to frame by one close look; the whole frame is searched again
# every so many frames: who steps in front is noticed within half a second at 15 Hz.
FOLLOW_FRAMES = 6


class Observation(NamedTuple):
    """What a frame showed: no face (face is None), a bad one (reason), or a good one (embedding).

    embedding  float32 (size,), Euclidean distances compare
    sure       the detector takes it for a face. An unsure one is embedded all the same, for hats
               and profiles: if it matches somebody it was a face; if not, call it nobody
    """

    face: Detection | None = None
    reason: Reason | None = None
    embedding: Float32Array | None = None
    sure: bool = True

    def advice(self) -> str:
        """What the person in front of the camera can do, one line."""
        if self.face is None:
            return "no face found; look at the camera from about half a metre"
        return ADVICE[self.reason] if self.reason else "a good face"


class FacePipeline:
    """Owns one detector and one embedder; not safe for use from two threads at once."""

    def __init__(
        self,
        detect: Bundle,
        embed: Bundle,
        rules: QualityRules | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """clock: seconds, for the latency figures only. Raises ManifestError for other bundles."""
        self._detector = FaceDetector(detect)
        self._embedder = FaceEmbedder(embed)
        self._bundles = (detect, embed)
        self._rules = rules or QualityRules()
        self._clock = clock
        self._last: Detection | None = None
        self._followed = 0
        self.latency = LatencyRecorder(STAGES)

    def warm_up(self) -> None:
        """Run both models on nothing: first calls are slow."""
        for bundle in self._bundles:
            bundle.interpreter.warm_up()

    def forget(self) -> None:
        """The next picture does not follow on the last one."""
        self._last = None

    def process(self, image: ImageArray, enrolling: bool = False) -> Observation:
        """Look at a frame, uint8 (height, width, 3) blue-green-red.

        The most prominent face counts, and is followed from frame to frame. enrolling: the picture
        stands for itself; it is searched whole, and a second face is a reason to refuse it.
        """
        begun_s = self._clock()
        faces = self._find(image, enrolling)
        found_s = self._clock()
        self.latency.record("detect", found_s - begun_s)
        seen = self._examine(image, faces, found_s, enrolling) if faces else Observation()
        self.latency.record("frame", self._clock() - begun_s)
        return seen

    def _find(self, image: ImageArray, alone: bool) -> list[Detection]:
        if not alone and self._last is not None and self._followed < FOLLOW_FRAMES:
            self._followed += 1
            self._last = self._detector.follow(image, self._last, self._detector.floor)
            if self._last is not None:
                return [self._last]
        faces = self._detector.find(image, None if alone else self._detector.floor)
        self._last = faces[0] if len(faces) == 1 and not alone else None
        self._followed = 0
        return faces

    def _examine(
        self, image: ImageArray, faces: list[Detection], found_s: float, enrolling: bool
    ) -> Observation:
        face = faces[0]
        sure = face.score >= self._detector.threshold
        try:
            chip = self._embedder.align(image, face.keypoints)
        except ValueError:  # all keypoints in one place: no face looks like that
            return Observation()
        aligned_s = self._clock()
        self.latency.record("align", aligned_s - found_s)
        reason = judge(_facts(image, chip, faces if enrolling else faces[:1]), self._rules)
        judged_s = self._clock()
        self.latency.record("quality", judged_s - aligned_s)
        if reason is not None:
            return Observation(face, reason) if sure else Observation()
        embedding = self._embedder.embed(chip)
        self.latency.record("embed", self._clock() - judged_s)
        if not np.isfinite(embedding).all():
            return Observation()
        return Observation(face, None, embedding, sure)


def _facts(image: ImageArray, chip: ImageArray, faces: list[Detection]) -> Facts:
    face = faces[0]
    gray = to_gray(chip)
    height, width = image.shape[:2]
    return Facts(
        width_px=float(face.box[2] - face.box[0]),
        inside=inside_share(face.box, width, height),
        light=light_of(histogram(gray)),
        sharpness=sharpness(gray),
        pose=pose_of(face.keypoints),
        others=tuple(float(f.box[2] - f.box[0]) for f in faces[1:]),
    )
