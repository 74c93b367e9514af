"""Matching an embedding against the enrolled ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from edge_rt.core.types import Float32Array


class Match(NamedTuple):
    """The nearest enrolled person and the Euclidean distance to their nearest template."""

    person: str
    distance: float


class Gallery:
    """Templates of the persons that may be recognised; immutable."""

    def __init__(self, persons: Iterable[tuple[str, Float32Array]]) -> None:
        """persons: id and templates, float32 (m, size), m >= 1.

        Raises ValueError when templates differ in size or are not finite.
        """
        known = [(person, np.atleast_2d(np.asarray(t, np.float32))) for person, t in persons]
        self._persons = tuple(person for person, rows in known for _ in rows)
        sizes = {rows.shape[1] for _, rows in known}
        if len(sizes) > 1:
            raise ValueError(f"templates of different sizes: {sorted(sizes)}")
        self._size = sizes.pop() if sizes else 0
        rows = [rows for _, rows in known]
        self._templates = np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
        if not np.isfinite(self._templates).all():
            raise ValueError("a template holds numbers that are not finite")

    def __len__(self) -> int:
        """Number of templates."""
        return len(self._persons)

    def best(self, embedding: Float32Array) -> Match | None:
        """The nearest template's person; None when nobody is enrolled.

        embedding  float32 (size,). Raises ValueError for another size. An embedding with NaN is
        infinitely far from everyone, so that a broken model opens no door.
        """
        if not self._persons:
            return None
        if embedding.shape != (self._size,):
            raise ValueError(f"embedding has shape {embedding.shape}, templates {self._size}")
        distances = np.linalg.norm(self._templates - embedding, axis=1)
        distances[np.isnan(distances)] = np.inf
        nearest = int(np.argmin(distances))
        return Match(self._persons[nearest], float(distances[nearest]))
