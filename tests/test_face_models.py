"""Face models from afar: which may take the place of ours, and when a trial of one is over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.adapters.bundle_files import read_bundle, write_manifest
from edge_rt.core.config import Config, FaceConfig
from edge_rt.core.errors import ConfigError, ManifestError, ModelError
from edge_rt.core.update_config import UpdatesConfig
from edge_rt.runtime.face_messages import Compare, Compared
from edge_rt.runtime.face_models import FaceModel, Folders, Part
from edge_rt.runtime.face_watches import FaceShadow, FaceTrial, NoShadow


def changed(source: Path, folder: Path, **changes: Any) -> Path:
    """A bundle like `source` whose manifest says something else."""
    shutil.copytree(source, folder)
    manifest = {**msgspec.to_builtins(read_bundle(source).manifest), **changes}
    del manifest["files"]
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def embed(factory_bundle: Callable[[str], Path]) -> Path:
    return factory_bundle("face-embed")


def model(part: Part, folder: Path, config: Config | None = None) -> FaceModel:
    given = config or Config(faces=FaceConfig(enabled=True))
    return FaceModel(part, Folders(folder, given), given)


def test_a_newer_one_of_the_same_space_fits(embed: Path, tmp_path: Path) -> None:
    ours = model("embed", tmp_path)
    ours.fits(changed(embed, tmp_path / "next", version="9.0.0"))
    assert ours.name == "face-embed" and ours.shadow(tmp_path / "next", None).verdict().passed


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"embedding_space": "elsewhere"}, "every template would be worthless"),
        ({"name": "another"}, "configured is face-embed"),
    ],
)
def test_one_that_does_not_fit_says_why(
    embed: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    config = Config(faces=FaceConfig(enabled=True), updates=UpdatesConfig(faces="trial_only"))
    with pytest.raises(ManifestError, match=complaint):
        model("embed", tmp_path, config).fits(changed(embed, tmp_path / "next", **changes))


def test_with_a_shadow_another_space_may_come(embed: Path, tmp_path: Path) -> None:
    config = Config(faces=FaceConfig(enabled=True), updates=UpdatesConfig(faces="shadow"))
    model("embed", tmp_path, config).fits(
        changed(embed, tmp_path / "next", embedding_space="elsewhere")
    )


def test_one_for_another_task_does_not_fit(
    factory_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="a bundle for face-embed is needed"):
        model("embed", tmp_path).fits(factory_bundle("face-detect"))


def test_a_distance_of_the_household_must_stay_allowed(embed: Path, tmp_path: Path) -> None:
    config = Config(faces=FaceConfig(enabled=True, distance=0.9))
    limits = {"value": 1.2, "min": 1.1, "max": 1.3}
    manifest = msgspec.to_builtins(read_bundle(embed).manifest)
    decision = {**manifest["decision"], "threshold": limits}
    next_one = changed(embed, tmp_path / "next", decision=decision)
    with pytest.raises(ConfigError, match="outside 1.1 to 1.3"):
        model("embed", tmp_path, config).fits(next_one)


def test_the_worker_is_told_which_bundles_to_open(embed: Path, tmp_path: Path) -> None:
    config = Config(faces=FaceConfig(enabled=True))
    folders = Folders(tmp_path, config)
    ours = FaceModel("embed", folders, config)
    next_one = changed(embed, tmp_path / "next", version="9.0.0")
    ours.open(next_one)
    told = msgspec.json.decode(folders.arguments()[1], type=Config)
    assert (told.faces.embed, told.faces.detect) == (str(next_one), "face-detect")
    ours.open(None)
    assert msgspec.json.decode(folders.arguments()[1], type=Config) == config


@pytest.mark.parametrize(("policy", "declines"), [("off", True), ("trial_only", False)])
def test_none_comes_unless_the_household_wants_it(
    embed: Path, tmp_path: Path, policy: Any, declines: bool
) -> None:
    config = Config(faces=FaceConfig(enabled=True), updates=UpdatesConfig(faces=policy))
    assert bool(model("embed", tmp_path, config).declines) is declines
    assert NoShadow().verdict().figures == {"shadow": "none"}


class Worker:
    """What the face service says of its worker, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.said: dict[str, Any] = {"restarts": 5, "worker": "running", "problem": "it crashed"}

    def trial(self, seen: dict[str, Any] | None = None) -> FaceTrial:
        return FaceTrial(lambda: self.said, 2.0, seen, lambda: self.now_s)


def test_a_trial_of_a_face_model_ends_with_its_span() -> None:
    worker = Worker()
    trial = worker.trial()
    worker.now_s = 3600.0
    assert trial.verdict() is None
    again = worker.trial(trial.seen())
    worker.now_s = 3600.0 + 3601.0
    verdict = again.verdict()
    assert verdict is not None and verdict.passed
    worker.said["worker"] = "down"
    verdict = again.verdict()
    assert verdict is not None and not verdict.passed


def test_a_worker_that_ends_again_and_again_ends_the_trial() -> None:
    worker = Worker()
    trial = worker.trial()
    worker.said["restarts"] = 6
    assert trial.verdict() is None
    worker.said["restarts"] = 7
    verdict = trial.verdict()
    assert verdict is not None and not verdict.passed
    assert verdict.reasons == ("the worker ended 2 times: it crashed",)


class Comparing(Worker):
    """A worker that runs a candidate and says of it what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Compare | None = None
        self.word: Compared | None = None

    def compare(self, asked: Compare | None) -> None:
        self.asked = asked

    def compared(self) -> Compared | None:
        return self.word

    def status(self) -> dict[str, Any]:
        return self.said

    def shadow(self) -> FaceShadow:
        return FaceShadow(self, Path("/next"), 10, None, lambda: self.now_s)


def test_a_worker_that_ends_beside_a_candidate_ends_the_candidate() -> None:
    worker = Comparing()
    shadow = worker.shadow()
    worker.said["restarts"] = 6
    assert shadow.verdict() is None
    worker.now_s = 3601.0  # days later a camera may do so again
    assert shadow.verdict() is None
    worker.said["restarts"] = 7
    assert shadow.verdict() is None
    worker.said["restarts"] = 8
    verdict = shadow.verdict()
    assert verdict is not None and "ended 2 times beside it" in verdict.reasons[0]
    shadow.close()
    assert worker.asked is None


def test_what_a_candidate_raises_in_the_worker_is_raised_to_the_machine() -> None:
    worker = Comparing()
    shadow = worker.shadow()
    worker.word = Compared("/former", kind="ModelError", message="of the one before")
    assert shadow.verdict() is None
    worker.word = Compared("/next", kind="ModelError", message="it knows nobody")
    with pytest.raises(ModelError, match="it knows nobody"):
        shadow.verdict()
