"""The detector on the factory bundle: golden vectors, the demo's faces, pictures without any."""

from __future__ import annotations

import platform
import random
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from edge_rt.adapters.imaging import find_images, read_image
from edge_rt.bundle import Bundle, open_bundle, verify_golden
from edge_rt.core.errors import ManifestError
from edge_rt.faces.detector import FaceDetector, prominence

MEDIA = Path(str(files("edge_rt"))) / "demo_media"


@pytest.fixture(scope="module")
def bundle(factory_bundle: Callable[[str], Path], engine: str) -> Bundle:
    return open_bundle(factory_bundle("face-detect"), engine)


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> FaceDetector:
    return FaceDetector(bundle)


def test_golden_vectors_hold_on_every_engine(bundle: Bundle) -> None:
    result = verify_golden(bundle)
    assert result.cases >= 3
    assert result.passed, result


def test_a_bundle_of_another_task_is_refused(
    factory_bundle: Callable[[str], Path],
) -> None:
    with pytest.raises(ManifestError, match="no face detector"):
        FaceDetector(open_bundle(factory_bundle("face-embed")))


@pytest.mark.parametrize("photo", sorted(p.name for p in MEDIA.glob("*.jpg")))
def test_each_demo_photograph_has_one_face_with_points_in_their_places(
    detector: FaceDetector, photo: str
) -> None:
    (face,) = detector.find(read_image(MEDIA / photo))
    left, top, right, bottom = face.box
    (right_eye, left_eye, nose, mouth) = face.keypoints[:4]
    assert left < right_eye[0] < nose[0] < left_eye[0] < right
    assert top < right_eye[1] < nose[1] < mouth[1] < bottom


def test_a_moved_picture_moves_the_face_with_it(detector: FaceDetector) -> None:
    image = read_image(MEDIA / "owner_1.jpg")
    (before,) = detector.find(image)
    wide = np.full((480, 640, 3), 100, np.uint8)
    wide[40:440, 180:580] = image
    (after,) = detector.find(wide)
    width = before.box[2] - before.box[0]
    moved = after.keypoints[:4] - before.keypoints[:4] - [180, 40]
    assert np.abs(moved).max() < 0.06 * width


def test_a_face_is_followed_and_a_gone_one_is_not(detector: FaceDetector) -> None:
    image = read_image(MEDIA / "owner_2.jpg")
    (face,) = detector.find(image)
    shifted = np.roll(image, 12, axis=1)
    followed = detector.follow(shifted, face)
    assert followed is not None
    gap = followed.keypoints[:4] - face.keypoints[:4] - [12, 0]
    assert np.abs(gap).max() < 0.06 * (face.box[2] - face.box[0])
    assert detector.follow(np.full_like(image, 90), face) is None


def test_two_faces_are_two(detector: FaceDetector) -> None:
    pair = np.hstack([read_image(MEDIA / n) for n in ("owner_1.jpg", "stranger_1.jpg")])
    assert len(detector.find(pair)) == 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (480, 640), (641, 7)])
@pytest.mark.parametrize("level", [0, 255])
def test_odd_and_flat_pictures_hold_no_face(
    detector: FaceDetector, shape: tuple[int, int], level: int
) -> None:
    assert detector.find(np.full((*shape, 3), level, np.uint8)) == []


def test_the_middle_wins_over_a_face_of_like_size_at_the_side(
    detector: FaceDetector,
) -> None:
    (face,) = detector.find(read_image(MEDIA / "owner_1.jpg"))
    aside = face._replace(box=face.box + np.float32([150, 0, 150, 0]))
    assert prominence(face, 400, 400) > prominence(aside, 400, 400)


def test_pictures_of_objects_and_a_sample_of_lfw(
    detector: FaceDetector, engine: str, shared: Path, figure: Callable[..., None]
) -> None:
    folder = shared / "data" / "faces"
    objects = find_images(folder / "detector" / "none")
    false_ones = sum(len(detector.find(read_image(p))) for p in objects)
    # int8 kernels round differently on ARM: a pizza with 0.63 elsewhere has 0.73 there.
    most = {"litert": 3, "tflite-runtime": 4}[engine] if platform.machine() == "aarch64" else 2
    figure(f"detector false positives in {len(objects)} on {engine}", false_ones, at_most=most)
    faces = random.Random(7).sample(find_images(folder / "lfw_gray"), 100)
    found = sum(bool(detector.find(read_image(p))) for p in faces)
    figure(f"faces found in 100 of LFW on {engine}", found, at_least=99)
