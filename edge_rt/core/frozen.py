"""Whether a camera still sees: one that has hung delivers the same picture again and again.

A sensor's noise makes no two pictures alike, down to the last bit. Where there is no noise to be
seen, in the dark or behind a closed shutter, there is no face either.
"""

from __future__ import annotations

import zlib

import numpy as np

from edge_rt.core.types import ImageArray

ROWS = 8  # every eighth row: a face that is large enough to unlock covers eight of them
# Grey levels between the darkest and the brightest hundredth of the picture. A lamp in the dark
# covers less than a hundredth, and a face that is large enough to unlock more.
FLAT_LEVELS = 16


class Repeats:
    """Remembers the picture before, as a checksum."""

    def __init__(self) -> None:
        self._rows: ImageArray = np.empty((0, 0, 3), np.uint8)
        self._sum: int | None = None

    def repeats(self, image: ImageArray) -> bool:
        """Whether this is the picture before, bit for bit, and there is something in it.

        image  uint8 (height, width, 3)
        """
        rows = image[::ROWS]
        if self._rows.shape != rows.shape:
            self._rows = np.empty_like(rows, order="C")
        np.copyto(self._rows, rows)
        before, self._sum = self._sum, zlib.crc32(self._rows.data)
        return self._sum == before and not flat(self._rows)


def flat(rows: ImageArray) -> bool:
    """Whether the picture, uint8 (height, width, 3), is of one grey or colour all over."""
    low, high = np.percentile(rows[:, ::ROWS, 1], (1.0, 99.0))
    return bool(high - low < FLAT_LEVELS)
