"""`edge-rt model`: what a person sees of a sound bundle and of each kind of broken one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models as tiny

from edge_rt.cli import main

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in this process: exit code, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return (code, *capfd.readouterr())

    return run


def test_inspect_shows_manifest_tensors_and_ops(tmp_path: Path, say: Say) -> None:
    folder = tiny.bundle(tmp_path / "b", tiny.scorer())
    code, out, _ = say("model", "inspect", folder)
    assert code == 0
    for word in ("tiny", "0.1.0", "1 x 1 x 8 x 3", "FULLY_CONNECTED", "threshold"):
        assert word in out
    code, out, _ = say("model", "inspect", folder, "--json")
    answer = json.loads(out)
    assert answer["task"] == "fall" and answer["hashes"] == "ok"
    assert answer["tensors"]["inputs"][0]["shape"] == [1, 1, 8, 3]


def test_inspect_takes_a_bare_model(tmp_path: Path, say: Say) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny.elementwise((1, 4)))
    code, out, _ = say("model", "inspect", path, "--json")
    assert code == 0 and json.loads(out)["ops"] == {"RELU": 1}
    code, _, err = say("model", "verify", path)
    assert code == 2 and "name a bundle" in err


def test_verify_says_what_it_proved(tmp_path: Path, say: Say, engine: str) -> None:
    folder = tiny.bundle(tmp_path / "b", tiny.scorer())
    code, out, _ = say("model", "verify", folder, "--engine", engine)
    assert code == 0 and out.endswith("verified\n") and "2 cases" in out
    code, out, _ = say("model", "verify", folder, "--engine", engine, "--json")
    answer = json.loads(out)
    assert answer["ok"] and answer["golden"]["worst"] == 0.0
    assert answer["engine"].startswith(engine)


def _remove_model(folder: Path) -> None:
    (folder / "tiny.tflite").unlink()


def _truncate_model(folder: Path) -> None:
    model = folder / "tiny.tflite"
    model.write_bytes(model.read_bytes()[:100])


def _flip_a_byte(folder: Path) -> None:
    model = folder / "tiny.tflite"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)


def _misspell_a_key(folder: Path) -> None:
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text().replace("rate_hz", "rate_herz"))


def _remove_manifest(folder: Path) -> None:
    (folder / "model.toml").unlink()


@pytest.mark.parametrize("verb", ["inspect", "verify"])
@pytest.mark.parametrize(
    ("harm", "exit_code", "words"),
    [
        (_remove_model, 3, "missing, though the manifest lists it"),
        (_truncate_model, 3, "100 bytes, the manifest says"),
        (_flip_a_byte, 3, "sha256 differs"),
        (_misspell_a_key, 3, "unknown key 'rate_herz' in [input]; did you mean 'rate_hz'?"),
        (_remove_manifest, 2, "no model.toml"),
    ],
)
def test_a_harmed_bundle_is_one_line_and_never_runs(
    tmp_path: Path, say: Say, verb: str, harm: Callable[[Path], None], exit_code: int, words: str
) -> None:
    folder = tiny.bundle(tmp_path / "b", tiny.scorer())
    harm(folder)
    code, out, err = say("model", verb, folder)
    assert (code, out) == (exit_code, "")
    assert err.startswith("edge-rt: ") and err.count("\n") == 1
    assert words in err and str(folder) in err


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (tiny.scorer(window=9), "the manifest's input is (1, 1, 8, 3), the model's is"),
        (tiny.scorer(channels=2), "the manifest's input is (1, 1, 8, 3), the model's is"),
        (tiny.elementwise((1, 1, 8, 3)), "the model's [(1, 1, 8, 3)]; correct [output]"),
        (tiny.elementwise((1, 1, 8, 3), custom="Frobnicate"), "op: Frobnicate; convert it with"),
        (b"<!doctype html> certainly no model", "not a TFLite file"),
    ],
)
def test_a_model_that_its_publisher_got_wrong(
    tmp_path: Path, say: Say, model: bytes, words: str, engine: str
) -> None:
    folder = tiny.bundle(tmp_path / "b", model)
    code, out, err = say("model", "verify", folder, "--engine", engine)
    assert (code, out) == (3, "")
    assert err.startswith("edge-rt: ") and err.count("\n") == 1
    assert words in err and str(folder) in err


def test_a_model_cut_off_before_it_was_hashed_names_a_remedy(
    tmp_path: Path, say: Say, engine: str
) -> None:
    whole = tiny.scorer()
    # Where it is cut decides whether the engine notices, or crashes in its own process.
    for size in (len(whole) // 2, 3 * len(whole) // 4):
        folder = tiny.bundle(tmp_path / str(size), whole[:size])
        code, out, err = say("model", "verify", folder, "--engine", engine)
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert str(folder) in err
        assert err.endswith(("or use another engine\n", "do not use this file\n"))


def test_limits_are_options(tmp_path: Path, say: Say) -> None:
    folder = tiny.bundle(tmp_path / "b", tiny.endless(60_000), 60_000, ("x", "y", "z", "jerk"))
    code, _, err = say("model", "verify", folder, "--timeout-s", 1)
    assert code == 3 and "no end after 1 s" in err


def test_names_that_are_not_there(say: Say) -> None:
    code, _, err = say("model", "inspect", "fall-ankle")
    assert code == 2 and "no factory bundle 'fall-ankle'" in err
    code, _, err = say("model", "inspect", "./nowhere")
    assert code == 2 and "no such folder" in err
    code, _, err = say("model", "inspect", "nothing.tflite", "--json")
    report = json.loads(err)["error"]
    assert code == report["exit_code"] == 2 and report["kind"] == "InputError"
