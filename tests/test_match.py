"""The gallery: nearest person, and nobody for nonsense."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.match import Gallery


def test_the_nearest_template_decides_not_the_nearest_mean() -> None:
    anna = np.float32([[0, 0], [10, 0]])  # mean at (5, 0)
    bert = np.float32([[5, 2]])
    gallery = Gallery([("anna", anna), ("bert", bert)])
    assert len(gallery) == 3
    match = gallery.best(np.float32([9, 0]))
    assert match is not None
    assert (match.person, match.distance) == ("anna", 1.0)
    assert gallery.best(np.float32([5, 0])) == ("bert", 2.0)


def test_nobody_enrolled_matches_nobody() -> None:
    assert Gallery([]).best(np.zeros(128, np.float32)) is None


def test_an_embedding_of_nan_is_infinitely_far() -> None:
    match = Gallery([("anna", np.zeros((1, 2), np.float32))]).best(np.float32([np.nan, 0]))
    assert match is not None
    assert match.distance == np.inf


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        Gallery([("a", np.zeros((1, 2), np.float32)), ("b", np.zeros((1, 3), np.float32))])
    with pytest.raises(ValueError, match="shape"):
        Gallery([("a", np.zeros((1, 2), np.float32))]).best(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="finite"):
        Gallery([("a", np.float32([[np.inf, 0]]))])
