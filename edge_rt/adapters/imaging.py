"""Picture arithmetic with OpenCV: decode, crop, warp, table look-up, sharpness.

Pictures are uint8 (height, width, 3), blue-green-red, unless said otherwise. Points are (x, y) in
pixels; the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import InputError
from edge_rt.core.types import Float32Array, ImageArray

# The pictures here are small: OpenCV's pool costs a frame more than it gives, and would take its
# cores from whatever else runs.
cv2.setNumThreads(1)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".bmp", ".webp"})
MAX_PIXELS = 64_000_000  # a 64 MP still is 192 MB decoded; more would not fit beside the models

GrayArray = npt.NDArray[np.uint8]


def read_image(path: Path) -> ImageArray:
    """A still from a file. Raises InputError when it is missing, empty or not a picture."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise InputError(f"{path}: {reason}; name a picture that can be read") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, where: str) -> ImageArray:
    """A still from the bytes of a JPEG, PNG, PGM, BMP or WebP file; `where` names it in errors."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{where}: not a picture that OpenCV can decode; use a JPEG or PNG file")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise InputError(f"{where}: over {MAX_PIXELS // 1_000_000} megapixels; shrink it first")
    return image  # type: ignore[return-value]


def encode_jpeg(image: ImageArray, quality: int = 90) -> bytes:
    """The picture as a JPEG file."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def find_images(folder: Path) -> list[Path]:
    """Every still below `folder`, sorted by path. Raises InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of pictures")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder}: holds no picture ({' '.join(sorted(SUFFIXES))})")
    return found


def warp(image: ImageArray, matrix: npt.NDArray[np.float64], out: ImageArray) -> None:
    """Resample `image` so that point p lands at matrix @ (p, 1).

    matrix  float64 (2, 3), a similarity; out uint8 (n, m, 3)
    What lies outside the picture repeats its border: black bars would drive BlazeFace's activations
    far outside the range it was quantized for. A strong reduction first averages areas, else
    single pixels would stand for whole patches; by halves, which OpenCV does fastest.
    """
    size = (out.shape[1], out.shape[0])
    if np.hypot(matrix[0, 0], matrix[1, 0]) < 0.75:
        image, matrix = _needed(image, matrix, size)
    while np.hypot(matrix[0, 0], matrix[1, 0]) < 0.75 and min(image.shape[:2]) >= 2:
        image, matrix = _halve(image, matrix)
    cv2.warpAffine(
        image,
        matrix,
        size,
        dst=out,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _needed(
    image: ImageArray, matrix: npt.NDArray[np.float64], size: tuple[int, int]
) -> tuple[ImageArray, npt.NDArray[np.float64]]:
    """The part of `image` (a view) that a warp to `size` will read, and the matrix for it."""
    # Plain numbers: numpy's calls on six of them cost more than the arithmetic.
    (a, _, x), (b, _, y) = matrix.tolist()
    norm = a * a + b * b
    corners = [(u - x, v - y) for u in (0, size[0]) for v in (0, size[1])]
    across = [(a * u + b * v) / norm for u, v in corners]
    down = [(a * v - b * u) / norm for u, v in corners]
    height, width = image.shape[:2]
    left, right = _clip(min(across), max(across), width)
    top, bottom = _clip(min(down), max(down), height)
    moved = matrix.copy()
    moved[0, 2] += a * left - b * top
    moved[1, 2] += b * left + a * top
    return image[top:bottom, left:right], moved


def _clip(low: float, high: float, limit: int) -> tuple[int, int]:
    """A span of pixels with a margin for averaging and bilinear neighbours; never empty."""
    start = min(max(math.floor(low) - 8, 0), limit - 1)
    return start, min(max(math.ceil(high) + 8, start + 1), limit)


def _halve(
    image: ImageArray, matrix: npt.NDArray[np.float64]
) -> tuple[ImageArray, npt.NDArray[np.float64]]:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    part = image[: height * 2, : width * 2]
    small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    moved = matrix * 2.0
    # The centre of small pixel s is at 2 s + 1/2.
    moved[:, 2] = matrix[:, 2] + (matrix[:, 0] + matrix[:, 1]) * 0.5
    return small, moved  # type: ignore[return-value]


def to_tensor(
    image: ImageArray, table: npt.NDArray[Any], swap: bool, out: npt.NDArray[Any]
) -> None:
    """Fill a model's input: out[..., c] = table[image[..., c]], with red and blue swapped or not.

    table  (256,) of the input tensor's dtype; out (height, width, 3) of the same dtype.
    """
    if swap:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
    cv2.LUT(image, table, dst=out)


def mirror(tensor: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Fill out with (height, width, 3) tensor reversed along its width."""
    cv2.flip(tensor, 1, dst=out)


def expose(image: ImageArray, gain: float, lift: float, noise: ImageArray) -> ImageArray:
    """image * gain + lift + (noise - 128), clipped to 0..255; noise has the picture's shape."""
    return cv2.addWeighted(image, gain, noise, 1.0, lift - 128.0)  # type: ignore[return-value]


def soften(image: ImageArray, sigma_px: float) -> ImageArray:
    """Gaussian blur."""
    return cv2.GaussianBlur(image, (0, 0), sigma_px)  # type: ignore[return-value]


def to_gray(image: ImageArray) -> GrayArray:
    """Luma (ITU-R BT.601), uint8 (height, width)."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]


def sharpness(gray: GrayArray) -> float:
    """Variance of the Laplacian, in squared grey levels (Pech-Pacheco et al. 2000, ICPR)."""
    _, deviation = cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))
    return float(deviation[0, 0]) ** 2


def histogram(gray: GrayArray) -> Float32Array:
    """Share of each grey level, float32 (256,), sum 1."""
    counts = cv2.calcHist([gray], [0], None, [256], [0, 256])
    return (counts[:, 0] / gray.size).astype(np.float32)


def thumbnail(image: ImageArray, width: int, height: int) -> GrayArray:
    """Grey means of width x height cells, uint8 (height, width)."""
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return to_gray(small)  # type: ignore[arg-type]


def from_yuv420(planes: ImageArray, width: int, height: int) -> ImageArray:
    """The picture in planar YUV 4:2:0: uint8 (3 height / 2, stride), as the Pi's camera system
    delivers it, rows padded to the stride. Returns uint8 (height, width, 3)."""
    stride = planes.shape[1]
    full = cv2.cvtColor(planes[: height * 3 // 2], cv2.COLOR_YUV2BGR_I420)
    return full[:, :width] if stride != width else full  # type: ignore[return-value]
