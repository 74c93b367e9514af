"""Decoding of BlazeFace: anchors, boxes and keypoints, weighted non-maximum suppression.

Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs",
arXiv:1907.05047. Coordinates are pixels of the detector's square input, x before y.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_rt.core.types import Float32Array

ANCHORS_PER_LAYER = 2  # the published network has two anchors a cell for every entry of strides
MAX_CANDIDATES = 256  # strongest kept: a large face wakes about 60 of the 896 anchors


class Detection(NamedTuple):
    """One face.

    score      probability
    box        float32 (4,)    left, top, right, bottom
    keypoints  float32 (k, 2)  right eye, left eye, nose tip, mouth centre, right ear, left ear;
                               right and left are the person's own
    """

    score: float
    box: Float32Array
    keypoints: Float32Array


def make_anchors(size: int, strides: tuple[int, ...]) -> Float32Array:
    """Anchor centres, float32 (anchors, 2) in pixels; neighbours of equal stride share a grid.

    Raises ValueError when a stride does not divide the input size.
    """
    layers = []
    start = 0
    while start < len(strides):
        stride = strides[start]
        if stride < 1 or size % stride:
            raise ValueError(f"stride {stride} does not divide the input size {size}")
        end = start
        while end < len(strides) and strides[end] == stride:
            end += 1
        centres = (np.arange(size // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(centres, centres, indexing="ij")
        grid = np.stack([x, y], axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, ANCHORS_PER_LAYER * (end - start), axis=0))
        start = end
    return np.concatenate(layers)


def decode(
    scores: Float32Array,
    regressors: Float32Array,
    anchors: Float32Array,
    nms_iou: float,
) -> list[Detection]:
    """Candidates to faces, best first.

    scores      float32 (n,)         probabilities of the candidates
    regressors  float32 (n, 4 + 2k)  centre x, y relative to the anchor, width, height, then k
                                     points relative to the anchor
    anchors     float32 (n, 2)       the candidates' anchors

    Boxes that overlap the best one by more than nms_iou are averaged with it by score, as the
    paper does: it steadies the keypoints.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    scores, regressors, anchors = scores[order], regressors[order], anchors[order]
    centre = regressors[:, :2] + anchors
    half = regressors[:, 2:4] * np.float32(0.5)
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    points = regressors[:, 4:].reshape(len(order), -1, 2) + anchors[:, np.newaxis]
    faces = []
    while len(scores):
        same = overlap(boxes[0], boxes) > nms_iou
        same[0] = True  # an empty box overlaps nothing, not even itself
        weight = scores[same] / scores[same].sum()
        box = weight @ boxes[same]
        keypoints = np.tensordot(weight, points[same], axes=1)
        faces.append(Detection(float(scores[0]), box, keypoints))
        rest = ~same
        scores, boxes, points = scores[rest], boxes[rest], points[rest]
    return faces


def overlap(box: Float32Array, boxes: Float32Array) -> Float32Array:
    """Intersection over union of one box (4,) with each of boxes (n, 4): float32 (n,)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    np.maximum(sides, 0, out=sides)
    shared = sides[:, 0] * sides[:, 1]
    spans = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    own = max(float(box[2] - box[0]), 0.0) * max(float(box[3] - box[1]), 0.0)
    union = spans[:, 0] * spans[:, 1] + (np.float32(own) - shared)
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)
