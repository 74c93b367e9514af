"""The quality gate: is this face good enough to be compared, and if not, why."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import msgspec
import numpy as np

from edge_rt.core.types import Float32Array


class Reason(StrEnum):
    """Why a face was turned away; the worst first, in the order they are judged."""

    TOO_SMALL = "too_small"
    EDGE_OF_FRAME = "edge_of_frame"
    TWO_FACES = "two_faces"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    LOW_CONTRAST = "low_contrast"
    BLURRED = "blurred"
    TURNED = "turned"
    TILTED = "tilted"
    NODDING = "nodding"


ADVICE = {
    Reason.TOO_SMALL: "the face is too small; come closer",
    Reason.EDGE_OF_FRAME: "the face is cut off by the frame; move to the middle",
    Reason.TWO_FACES: "more than one face; let one person stand in front of the camera",
    Reason.TOO_DARK: "the face is too dark; put a light in front of it",
    Reason.TOO_BRIGHT: "the face is overexposed; turn away from the light",
    Reason.LOW_CONTRAST: "the face has no contrast; clean the lens or change the light",
    Reason.BLURRED: "the face is blurred; hold still",
    Reason.TURNED: "the face is turned aside; look at the camera",
    Reason.TILTED: "the head is tilted; hold it upright",
    Reason.NODDING: "the face points up or down; look at the camera",
}


class QualityRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Thresholds of the gate.

    They turn away what an embedder was never trained on, and are otherwise wide: a strict gate
    locks people out in a dim hallway. What they cost on news photographs (LFW) is on the card of
    the embedder's bundle.

    min_width_px     width of the face box in the frame; below it the chip is enlarged so much that
                     the embedding says little
    min_inside       share of the face box inside the frame
    second_face      further faces of this share of the first one's width make an enrolment
                     ambiguous (a bystander keeps nobody from being recognised)
    min_level, max_level  mean grey level of the aligned chip, 0 to 255
    max_clipped      share of the chip at grey levels below 4 or above 251: detail that is gone
    min_contrast     standard deviation of grey levels
    min_sharpness    variance of the Laplacian of the chip; news photographs have 9 to 330
    max_turn         nose tip off the middle of the eyes, in eye distances (0.5: nose under an eye)
    max_tilt_deg     slope of the line through the eyes
    nod_low, nod_high  height of the nose tip on the way from the eyes to the mouth, 0 to 1
    """

    min_width_px: float = 48.0
    min_inside: float = 0.75
    second_face: float = 0.25
    min_level: float = 25.0
    max_level: float = 235.0
    max_clipped: float = 0.5
    min_contrast: float = 10.0
    min_sharpness: float = 6.0
    max_turn: float = 0.9
    max_tilt_deg: float = 45.0
    nod_low: float = 0.05
    nod_high: float = 0.9


class Light(NamedTuple):
    """What the chip's grey levels say: mean, standard deviation, share of lost detail."""

    level: float
    contrast: float
    dark: float
    bright: float


class Pose(NamedTuple):
    """Head pose by proportions of keypoints; see `QualityRules` for the units."""

    turn: float
    tilt_deg: float
    nod: float


class Facts(NamedTuple):
    """Everything the gate judges. others: widths in pixels of further faces, when enrolling."""

    width_px: float
    inside: float
    light: Light
    sharpness: float
    pose: Pose
    others: tuple[float, ...] = ()


def judge(facts: Facts, rules: QualityRules) -> Reason | None:
    """The first reason to turn the face away, None for a good one."""
    light, pose = facts.light, facts.pose
    failed = {
        Reason.TOO_SMALL: facts.width_px < rules.min_width_px,
        Reason.EDGE_OF_FRAME: facts.inside < rules.min_inside,
        Reason.TWO_FACES: any(w >= rules.second_face * facts.width_px for w in facts.others),
        Reason.TOO_DARK: light.level < rules.min_level or light.dark > rules.max_clipped,
        Reason.TOO_BRIGHT: light.level > rules.max_level or light.bright > rules.max_clipped,
        Reason.LOW_CONTRAST: light.contrast < rules.min_contrast,
        Reason.BLURRED: facts.sharpness < rules.min_sharpness,
        Reason.TURNED: abs(pose.turn) > rules.max_turn,
        Reason.TILTED: abs(pose.tilt_deg) > rules.max_tilt_deg,
        Reason.NODDING: not rules.nod_low <= pose.nod <= rules.nod_high,
    }
    return next((reason for reason in Reason if failed[reason]), None)


def light_of(histogram: Float32Array) -> Light:
    """From the share of each grey level, float32 (256,), sum 1."""
    levels = np.arange(256, dtype=np.float32)
    mean = float(histogram @ levels)
    spread = float(histogram @ (levels * levels)) - mean * mean
    return Light(
        mean,
        math.sqrt(max(spread, 0.0)),
        float(histogram[:4].sum()),
        float(histogram[252:].sum()),
    )


def pose_of(keypoints: Float32Array) -> Pose:
    """From right eye, left eye, nose tip and mouth centre, float32 (4 or more, 2) pixels.

    The person's own right eye is the left one in the picture. Positive turn: nose to the picture's
    right. Coinciding eyes give an infinite turn.
    """
    right, left, nose, mouth = (keypoints[k].astype(np.float64) for k in range(4))
    across = left - right
    distance = float(np.hypot(*across))
    if distance < 1e-6:
        return Pose(math.inf, 0.0, 0.5)
    axis = across / distance
    down = np.array([-axis[1], axis[0]])
    middle = (right + left) / 2.0
    turn = float((nose - middle) @ axis) / distance
    drop = float((mouth - middle) @ down)
    nod = float((nose - middle) @ down) / drop if abs(drop) > 1e-6 else math.inf
    return Pose(turn, math.degrees(math.atan2(axis[1], axis[0])), nod)


def inside_share(box: Float32Array, width: int, height: int) -> float:
    """Share of a box (left, top, right, bottom) that lies within a frame."""
    left, top, right, bottom = (float(v) for v in box)
    area = (right - left) * (bottom - top)
    if area <= 0.0:
        return 0.0
    seen_x = max(0.0, min(right, width) - max(left, 0.0))
    seen_y = max(0.0, min(bottom, height) - max(top, 0.0))
    return seen_x * seen_y / area
