"""Axes and mount matrices: rotations, and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_rt.core.errors import ConfigError, SensorError
from edge_rt.core.orientation import parse_axes, parse_mount_matrix


def test_each_mounting_is_a_rotation_and_every_mirror_image_is_refused() -> None:
    good = 0
    for order in itertools.permutations("xyz"):
        for signs in itertools.product("+-", repeat=3):
            text = ",".join(map("".join, zip(signs, order, strict=True)))
            try:
                matrix = parse_axes(text)
            except ConfigError as error:
                assert "mirror image" in str(error)
                continue
            good += 1
            assert np.linalg.det(matrix) == pytest.approx(1.0)
            for row, (sign, axis) in enumerate(zip(signs, order, strict=True)):
                chip = np.zeros(3)
                chip["xyz".index(axis)] = 1.0
                assert (matrix @ chip)[row] == (1.0 if sign == "+" else -1.0)
    assert good == 24  # of a cube


def test_an_axis_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="an axis twice"):
        parse_axes("x,x,z")


def test_the_kernels_mount_matrix() -> None:
    matrix = parse_mount_matrix("0, 1, 0; -1, 0, 0; 0, 0, 1\n")
    assert (matrix @ [1.0, 0.0, 0.0]).tolist() == [0.0, -1.0, 0.0]
    turned = parse_mount_matrix("0.866, -0.5, 0; 0.5, 0.866, 0; 0, 0, 1")
    assert turned[0, 0] == 0.866


@pytest.mark.parametrize("text", ["", "1, 0; 0, 1", "1,0,0;0,1,0;0,0,-1", "2,0,0;0,1,0;0,0,1", "a"])
def test_what_is_no_rotation_is_named(text: str) -> None:
    with pytest.raises(SensorError, match="mount matrix"):
        parse_mount_matrix(text)
