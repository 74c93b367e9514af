"""Alignment: the similarity transform from a face's keypoints to the embedder's template."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fit_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Least-squares similarity (rotation, one scale, shift) that takes source to target.

    source, target  (n, 2) points, n >= 2, in pixels
    Returns float64 (2, 3): target ~ M[:, :2] @ source + M[:, 2]. Never mirrors.

    Closed form of Umeyama 1991, IEEE TPAMI 13(4); in the plane its rotation and scale are one
    complex number a = sum(conj(p) q) / sum(|p|^2) over the centred points, no SVD needed.
    Raises ValueError when all source points coincide.
    """
    # Plain numbers: numpy's calls on four points cost ten times the arithmetic.
    p = np.asarray(source, np.float64).tolist()
    q = np.asarray(target, np.float64).tolist()
    px, py = (sum(column) / len(p) for column in zip(*p, strict=True))
    qx, qy = (sum(column) / len(q) for column in zip(*q, strict=True))
    spread = cos = sin = 0.0
    for (a, b), (u, v) in zip(p, q, strict=True):
        a, b, u, v = a - px, b - py, u - qx, v - qy
        spread += a * a + b * b
        cos += a * u + b * v
        sin += a * v - b * u
    if spread <= 1e-12:
        raise ValueError("the points to align coincide")
    cos, sin = cos / spread, sin / spread
    return np.array([[cos, -sin, qx - cos * px + sin * py], [sin, cos, qy - sin * px - cos * py]])
