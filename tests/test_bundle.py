"""Opening bundles: what the manifest says is what the tensors are, or nothing runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models as tiny

from edge_rt.bundle import factory_bundles, locate, open_bundle, verify_golden
from edge_rt.core.errors import InputError, ManifestError, ModelError


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "model.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_bundle_runs_real_values_in_and_out(tmp_path: Path, engine: str) -> None:
    bundle = open_bundle(tiny.bundle(tmp_path / "b", tiny.scorer()), engine)
    (score,) = bundle.run(np.ones((1, 1, 8, 3)))
    assert score.dtype == np.float32 and score.shape == (1, 1)
    assert verify_golden(bundle).passed
    with pytest.raises(ModelError, match=r"shape \(1, 8, 3\)"):
        bundle.run(np.ones((1, 8, 3)))


def test_golden_vectors_that_differ_are_told(tmp_path: Path, engine: str) -> None:
    bundle = open_bundle(tiny.bundle(tmp_path / "b", tiny.scorer(), golden=23.0), engine)
    result = verify_golden(bundle)
    assert not result.passed and result.worst == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('"y"', '"jrk"', "channel 'jrk' is unknown; this runtime knows x, y, z"),
        ("window = 8", "window = 9", "the manifest's input is (1, 1, 9, 3)"),
        ("window = 8", "windw = 8", "unknown key 'windw' in [input]; did you mean 'window'?"),
        ('task = "fall"', 'task = "fell"', "task: Invalid value 'fell'; choose fall, face-detect"),
        ('task = "fall"', "", "the top level has no key 'task'; choose fall, face-detect"),
        ("sha256 =", "sha =", "unknown key 'sha' in [files]; did you mean 'sha256'?"),
        ('kind = "score"', 'kind = "score"\nscale = "odds"', "odds"),
        ('minimum_runtime = "0.1.0"', 'minimum_runtime = "9.0.0"', "upgrade edge_rt"),
        ("schema = 1", "schema = 2", "too old or too new"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, old: str, new: str, part: str, engine: str
) -> None:
    folder = tiny.bundle(tmp_path / "b", tiny.scorer())
    change(folder, old, new)
    with pytest.raises(ManifestError) as caught:
        open_bundle(folder, engine)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_names_paths_and_what_is_neither(tmp_path: Path) -> None:
    for name, folder in factory_bundles().items():
        assert locate(name) == folder
    assert locate(str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match="no factory bundle 'fall-waits'; there are"):
        locate("fall-waits")
    with pytest.raises(InputError, match="no such folder"):
        locate(tmp_path / "nowhere")


def test_the_engine_says_nothing_of_itself(
    tmp_path: Path, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    open_bundle(tiny.bundle(tmp_path / "b", tiny.scorer()), engine)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_input_written_in_place_gives_the_same(engine: str) -> None:
    if "face-detect" not in factory_bundles():
        pytest.skip("no factory bundle face-detect")
    interpreter = open_bundle("face-detect", engine).interpreter
    (tensor,) = interpreter.inputs
    raw = np.random.default_rng(0).integers(-128, 128, tensor.shape).astype(tensor.dtype)
    copied = interpreter.invoke(raw)
    interpreter.input_view()[...] = raw
    for one, other in zip(copied, interpreter.invoke_filled(), strict=True):
        assert (one == other).all()
    interpreter.input_view()[...] = 0
    assert any(
        (one != other).any() for one, other in zip(copied, interpreter.invoke_filled(), strict=True)
    )
