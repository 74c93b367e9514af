"""Which way a sensor sits: rotations between its axes and those of the body it is worn on.

Body axes of a person standing upright: x ahead, y to the left, z up; at rest the sensor then feels
(0, 0, +1) g, the push of the ground. Right-handed, as is the kernel's mount matrix.
"""

from __future__ import annotations

import re

import numpy as np

from edge_rt.core.errors import ConfigError, SensorError
from edge_rt.core.types import FloatArray

_AXIS = re.compile(r"([+-]?)([xyz])")


def parse_axes(text: str) -> FloatArray:
    """ "y,-x,z" -> float64 (3, 3): body = matrix @ chip; body x is the chip's y, and so on.

    Raises ConfigError for what is no rotation: an axis twice, or a mirror image.
    """
    matrix = np.zeros((3, 3))
    for row, (sign, axis) in enumerate(_AXIS.findall(text)):
        matrix[row, "xyz".index(axis)] = -1.0 if sign == "-" else 1.0
    determinant = round(float(np.linalg.det(matrix)))
    if determinant == 0:
        raise ConfigError(
            f"falls.source.axes {text!r} names an axis twice; use each of x, y, z once"
        )
    if determinant < 0:
        raise ConfigError(
            f"falls.source.axes {text!r} is a mirror image, which no mounting gives; "
            "turn one sign round"
        )
    return matrix


def parse_mount_matrix(text: str) -> FloatArray:
    """The kernel's "1, 0, 0; 0, 1, 0; 0, 0, 1" -> float64 (3, 3): mounted = matrix @ sensor.

    Kernel documentation, Documentation/devicetree/bindings/iio/mount-matrix.txt.
    Raises SensorError for anything but a rotation.
    """
    try:
        rows = [[float(cell) for cell in row.split(",")] for row in text.strip().split(";")]
        matrix = np.array(rows, np.float64)
        if matrix.shape != (3, 3):
            raise ValueError("it has not three rows of three")
        if not np.allclose(matrix @ matrix.T, np.eye(3), atol=0.02) or np.linalg.det(matrix) < 0:
            raise ValueError("it is no rotation")
    except ValueError as error:
        raise SensorError(f"mount matrix {text.strip()!r}: {error}; mend the device tree") from None
    return matrix
