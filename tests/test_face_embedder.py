"""The embedder on the factory bundle."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from edge_rt.adapters.imaging import read_image
from edge_rt.bundle import Bundle, open_bundle, verify_golden
from edge_rt.core.errors import ManifestError
from edge_rt.faces.embedder import FaceEmbedder

MEDIA = Path(str(files("edge_rt"))) / "demo_media"


@pytest.fixture(scope="module")
def bundle(factory_bundle: Callable[[str], Path], engine: str) -> Bundle:
    return open_bundle(factory_bundle("face-embed"), engine)


def test_golden_vectors_hold_on_every_engine(bundle: Bundle) -> None:
    result = verify_golden(bundle)
    assert result.cases >= 3
    assert result.passed, result


def test_a_bundle_of_another_task_is_refused(
    factory_bundle: Callable[[str], Path],
) -> None:
    with pytest.raises(ManifestError, match="no face embedder"):
        FaceEmbedder(open_bundle(factory_bundle("face-detect")))


def test_a_chip_whose_points_lie_on_the_template_is_left_alone(bundle: Bundle) -> None:
    embedder = FaceEmbedder(bundle)
    image = np.random.default_rng(1).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    points = embedder.template.astype(np.float32)
    assert np.abs(embedder.align(image, points).astype(int) - image).max() <= 2
    with pytest.raises(ValueError, match="coincide"):
        embedder.align(image, np.zeros((6, 2), np.float32))


def test_a_mirrored_chip_gives_the_same_embedding(bundle: Bundle) -> None:
    embedder = FaceEmbedder(bundle)
    chip = read_image(MEDIA / "owner_1.jpg")[100:250, 125:275].copy()
    one, other = (
        embedder.embed(chip),
        embedder.embed(np.ascontiguousarray(chip[:, ::-1])),
    )
    assert one.shape == (embedder.size,)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, other)
    assert np.linalg.norm(one) > 0.5
