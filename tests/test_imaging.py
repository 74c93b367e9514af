"""Decoding, warping and measuring of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_rt.adapters.imaging import (
    decode_image,
    encode_jpeg,
    expose,
    find_images,
    histogram,
    read_image,
    sharpness,
    soften,
    to_gray,
    to_tensor,
    warp,
)
from edge_rt.core.errors import InputError


def ramp(height: int = 480, width: int = 640) -> np.ndarray:
    """Blue grows to the right, green downwards: a pixel's colour says where it came from."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, np.newaxis]
    return image


@pytest.mark.parametrize("scale", [1.7, 1.0, 0.8, 0.5, 0.26, 0.2, 0.1])
def test_a_point_lands_where_the_matrix_says(scale: float) -> None:
    image = ramp()
    out = np.empty((100, 100, 3), np.uint8)
    angle = 0.3
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[a, -b], [b, a]])
    centre = np.array([320.0, 240.0])
    matrix = np.column_stack([turn, [50, 50] - turn @ centre])
    warp(image, matrix, out)
    for u, v in ((50, 50), (35, 60), (62, 41)):
        x, y = np.linalg.solve(turn, [u, v] - matrix[:, 2])
        if 0 <= x < 639 and 0 <= y < 479:
            expected = (255 * x / 639, 255 * y / 479)
            assert out[v, u, :2].astype(float) == pytest.approx(expected, abs=1.5)


def test_reduction_averages_instead_of_picking() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    out = np.empty((64, 64, 3), np.uint8)
    warp(noise, np.array([[0.125, 0, 0], [0, 0.125, 0]]), out)
    assert out.std() < 20  # 74 for single pixels, 9 for the mean of 64


def test_outside_the_picture_its_border_goes_on() -> None:
    image = np.full((50, 50, 3), 200, np.uint8)
    out = np.empty((80, 80, 3), np.uint8)
    warp(image, np.array([[1.0, 0, 15], [0, 1.0, 15]]), out)
    assert (out == 200).all()
    warp(image, np.array([[0.3, 0, 900], [0, 0.3, 900]]), out)  # nothing of it is in view
    assert (out == 200).all()


def test_to_tensor_looks_up_and_swaps() -> None:
    image = ramp(8, 8)
    table = (np.arange(256) - 128).astype(np.int8)
    out = np.empty((8, 8, 3), np.int8)
    to_tensor(image, table, True, out)
    assert (out.astype(int) + 128 == image[..., ::-1]).all()
    to_tensor(image[:, ::-1], table, False, out)
    assert (out.astype(int) + 128 == image[:, ::-1]).all()


def test_jpeg_there_and_back() -> None:
    image = ramp(64, 64)
    back = decode_image(encode_jpeg(image, 95), "memory")
    assert np.abs(back.astype(int) - image).mean() < 4


@pytest.mark.parametrize("data", [b"", b"nonsense", encode_jpeg(ramp())[:30]])
def test_bytes_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(InputError, match="portrait.jpg: not a picture"):
        decode_image(data, "portrait.jpg")


def test_files_are_found_and_absent_ones_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "deep/a.jpg", "note.txt"):
        (tmp_path / name).write_bytes(encode_jpeg(ramp(16, 16)))
    assert [p.name for p in find_images(tmp_path)] == ["b.PNG", "a.jpg"]
    assert read_image(tmp_path / "deep" / "a.jpg").shape == (16, 16, 3)
    with pytest.raises(InputError, match=r"gone.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="no such folder"):
        find_images(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        find_images(tmp_path / "empty")


def test_sharpness_falls_with_blur_and_histogram_sums_to_one() -> None:
    image = np.random.default_rng(2).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    sharp = sharpness(to_gray(image))
    assert sharpness(to_gray(soften(image, 2.0))) < 0.02 * sharp
    assert sharpness(np.full((50, 50), 90, np.uint8)) == 0
    shares = histogram(to_gray(image))
    assert shares.shape == (256,)
    assert shares.sum() == pytest.approx(1)


def test_expose_gains_lifts_and_clips() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    quiet = np.full_like(image, 128)
    assert (expose(image, 1.5, -20.0, quiet) == 130).all()
    assert (expose(image, 3.0, 0.0, quiet) == 255).all()
    assert (expose(image, 1.0, 0.0, cv2.add(quiet, 5)) == 105).sum() >= 16
