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
    p = np.asarray(source, np.float64)
    q = np.asarray(target, np.float64)
    p_mean, q_mean = p.mean(axis=0), q.mean(axis=0)
    p, q = p - p_mean, q - q_mean
    spread = float((p * p).sum())
    if spread <= 1e-12:
        raise ValueError("the points to align coincide")
    cos = float((p * q).sum()) / spread
    sin = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / spread
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, q_mean - turn @ p_mean])
