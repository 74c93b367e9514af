"""The face pipeline on the demo's photographs: each outcome provoked, stages timed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from edge_rt.adapters.imaging import read_image, soften
from edge_rt.bundle import open_bundle
from edge_rt.core.errors import ManifestError
from edge_rt.core.manifest import EmbedManifest
from edge_rt.core.quality import Reason
from edge_rt.core.types import ImageArray
from edge_rt.faces.pipeline import FOLLOW_FRAMES, FacePipeline

MEDIA = Path(str(files("edge_rt"))) / "demo_media"


@pytest.fixture(scope="module")
def pipeline(factory_bundle: Callable[[str], Path], engine: str) -> FacePipeline:
    pipeline = FacePipeline(
        open_bundle(factory_bundle("face-detect"), engine),
        open_bundle(factory_bundle("face-embed"), engine),
    )
    pipeline.warm_up()
    return pipeline


def photo(name: str) -> ImageArray:
    return read_image(MEDIA / f"{name}.jpg")


def embedding(pipeline: FacePipeline, image: ImageArray) -> np.ndarray:
    pipeline.forget()
    seen = pipeline.process(image)
    assert seen.embedding is not None, seen
    return seen.embedding


def test_the_owner_is_near_on_other_photographs_and_strangers_are_far(
    pipeline: FacePipeline, factory_bundle: Callable[[str], Path]
) -> None:
    manifest = open_bundle(factory_bundle("face-embed")).manifest
    assert isinstance(manifest, EmbedManifest)
    threshold = manifest.decision.threshold.value
    owner = embedding(pipeline, photo("owner_1"))
    for name in ("owner_2", "owner_3"):
        assert np.linalg.norm(owner - embedding(pipeline, photo(name))) <= threshold
    for name in ("stranger_1", "stranger_2"):
        assert np.linalg.norm(owner - embedding(pipeline, photo(name))) > threshold + 0.05


def test_no_face(pipeline: FacePipeline) -> None:
    pipeline.forget()
    seen = pipeline.process(np.full((480, 640, 3), 120, np.uint8))
    assert (seen.face, seen.reason, seen.embedding) == (None, None, None)
    assert "no face" in seen.advice()


def tiny() -> ImageArray:
    image = np.full((300, 300, 3), 110, np.uint8)
    image[100:200, 100:200] = photo("owner_1")[::4, ::4]
    return image


BAD: dict[Reason, Callable[[], ImageArray]] = {
    Reason.TOO_SMALL: tiny,
    Reason.BLURRED: lambda: soften(photo("owner_1"), 7.0),
    Reason.TOO_DARK: lambda: (photo("owner_2") // 12).astype(np.uint8),
    Reason.TILTED: lambda: np.ascontiguousarray(np.rot90(photo("owner_1"))),
    Reason.TWO_FACES: lambda: np.hstack([photo("owner_1"), photo("stranger_1")]),
}


@pytest.mark.parametrize("reason", [Reason.TOO_SMALL, Reason.BLURRED, Reason.TWO_FACES])
def test_bad_pictures_are_turned_away_at_enrolment(pipeline: FacePipeline, reason: Reason) -> None:
    seen = pipeline.process(BAD[reason](), enrolling=True)
    assert seen.reason is reason
    assert seen.embedding is None
    assert seen.advice()


def test_a_face_is_followed_and_searched_anew_every_so_often(
    pipeline: FacePipeline,
) -> None:
    image = photo("owner_3")
    shifted = [np.roll(image, 2 * k, axis=1) for k in range(FOLLOW_FRAMES + 3)]
    first = embedding(pipeline, shifted[0])
    for frame in shifted[1:]:
        seen = pipeline.process(frame)
        assert seen.embedding is not None
        assert np.linalg.norm(seen.embedding - first) < 0.25
    # Who steps in front is noticed at the next search of the whole picture, and not before.
    scene = np.full((600, 600, 3), 100, np.uint8)
    scene[:200, :200] = image[::2, ::2]
    behind = embedding(pipeline, scene)
    scene[200:, 200:] = photo("stranger_1")
    seen = [pipeline.process(scene).embedding for _ in range(FOLLOW_FRAMES + 1)]
    gaps = [np.linalg.norm(e - behind) for e in seen if e is not None]
    assert len(gaps) == FOLLOW_FRAMES + 1
    assert max(gaps[:-1]) < 0.25
    assert gaps[-1] > 0.55


def test_the_next_picture_may_hold_another_face(pipeline: FacePipeline) -> None:
    owner = embedding(pipeline, photo("owner_1"))
    seen = pipeline.process(photo("stranger_2"))  # followed into another scene
    if seen.embedding is not None:
        assert np.linalg.norm(seen.embedding - owner) > 0.55


def test_stages_are_timed_on_the_given_clock(
    factory_bundle: Callable[[str], Path],
) -> None:
    ticks = iter(range(1000))
    pipeline = FacePipeline(
        open_bundle(factory_bundle("face-detect")),
        open_bundle(factory_bundle("face-embed")),
        clock=lambda: float(next(ticks)),
    )
    pipeline.process(photo("owner_1"))
    counts = {stage: row["count"] for stage, row in pipeline.latency.summary().items()}
    assert counts == dict.fromkeys(("detect", "align", "quality", "embed", "frame"), 1.0)
    assert pipeline.latency.percentile("frame", 50) == pytest.approx(5.0, rel=0.05)


def test_bundles_in_the_wrong_place_are_refused(
    factory_bundle: Callable[[str], Path],
) -> None:
    detect = open_bundle(factory_bundle("face-detect"))
    with pytest.raises(ManifestError):
        FacePipeline(detect, detect)
