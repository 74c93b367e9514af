"""The similarity fit: exact where an exact one exists, least squares where not, never a mirror."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.faces.align import fit_similarity

POINTS = np.array([[45.0, 46.0], [103.0, 46.0], [75.0, 78.0], [75.0, 107.0]])


@given(
    st.floats(-math.pi, math.pi),
    st.floats(0.05, 20.0),
    st.floats(-500.0, 500.0),
    st.floats(-500.0, 500.0),
)
def test_recovers_any_similarity_exactly(angle: float, scale: float, x: float, y: float) -> None:
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    expected = np.array([[a, -b, x], [b, a, y]])
    moved = POINTS @ expected[:, :2].T + expected[:, 2]
    np.testing.assert_allclose(fit_similarity(POINTS, moved), expected, atol=1e-8 * (1 + scale))


def test_no_similarity_fits_better() -> None:
    random = np.random.default_rng(3)
    target = POINTS + random.normal(0, 4, POINTS.shape)
    fitted = fit_similarity(POINTS, target)

    def cost(matrix: np.ndarray) -> float:
        return float(((POINTS @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

    for _ in range(200):
        a, b, x, y = random.normal(0, 0.02, 4)
        nudge = np.array([[a, -b, 50 * x], [b, a, 50 * y]])
        assert cost(fitted + nudge) >= cost(fitted)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    matrix = fit_similarity(POINTS * [-1, 1], POINTS)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_coinciding_points_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        fit_similarity(np.full((4, 2), 7.0), POINTS)
