"""Anchors, decoding and weighted suppression on tensors made for the purpose."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.blazeface import decode, make_anchors, overlap


def regressor(x: float, y: float, w: float, h: float, points: list[float]) -> list[float]:
    return [x, y, w, h, *points]


def test_anchors_of_the_published_network() -> None:
    anchors = make_anchors(128, (8, 16, 16, 16))
    assert anchors.shape == (896, 2)
    assert anchors[:3].tolist() == [[4, 4], [4, 4], [12, 4]]  # two a cell, x runs first
    assert anchors[512:519].tolist() == [[8, 8]] * 6 + [[24, 8]]  # six where three layers share
    assert anchors[-1].tolist() == [120, 120]


def test_a_stride_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="stride 12"):
        make_anchors(128, (12,))


def test_a_single_candidate_is_decoded_relative_to_its_anchor() -> None:
    (face,) = decode(
        np.float32([0.9]),
        np.float32([regressor(2, -1, 20, 10, [-3, 4])]),
        np.float32([[50, 60]]),
        0.3,
    )
    assert face.score == pytest.approx(0.9)
    assert face.box.tolist() == [42, 54, 62, 64]
    assert face.keypoints.tolist() == [[47, 64]]


def test_overlapping_candidates_are_averaged_by_score_and_others_kept() -> None:
    rows = np.float32(
        [
            regressor(0, 0, 20, 20, [0, 0]),
            regressor(2, 0, 20, 20, [2, 0]),
            regressor(60, 0, 10, 10, [60, 0]),
        ]
    )
    faces = decode(np.float32([0.6, 0.9, 0.7]), rows, np.zeros((3, 2), np.float32), 0.3)
    assert [round(f.score, 2) for f in faces] == [0.9, 0.7]
    assert faces[0].keypoints[0, 0] == pytest.approx((0.9 * 2 + 0.6 * 0) / 1.5)
    assert faces[0].box.tolist() == pytest.approx([-8.8, -10, 11.2, 10])
    assert faces[1].box.tolist() == [55, -5, 65, 5]


def test_an_empty_box_ends_the_suppression() -> None:
    rows = np.zeros((3, 6), np.float32)
    assert len(decode(np.float32([0.9, 0.8, 0.7]), rows, np.zeros((3, 2), np.float32), 0.3)) == 3


def test_overlap_of_halves() -> None:
    boxes = np.float32([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]])
    assert overlap(boxes[0], boxes).tolist() == pytest.approx([1, 1 / 3, 0, 0])
