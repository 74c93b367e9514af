"""`replay` and `evaluate` on small recordings: figures, formats, and each kind of bad file."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models as tiny

from edge_rt.adapters.trials import Trial, write_trials
from edge_rt.cli import main
from edge_rt.falls.simulate import ACTIVITIES, FALLS, simulate

Say = Callable[..., tuple[int, str, str]]
WINDOW = 50


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores the sum of jerk over a second: a crude model, but violent motion scores high."""
    folder = tmp_path_factory.mktemp("bundle") / "b"
    model = tiny.scorer(WINDOW, 1)
    return tiny.bundle(folder, model, WINDOW, ("jerk",), threshold=(12.0, 0.0, 100.0))


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated fall, f1, and a simulated quiet sitting, a1."""
    path = tmp_path_factory.mktemp("trials") / "simulated.npz"
    recorded = []
    for name, is_fall, script in (
        ("f1", True, FALLS["standing"]),
        ("a1", False, ACTIVITIES["sitting"]),
    ):
        acc_g = simulate(script, 3).block.acc_g
        recorded.append(Trial("s1", name, name[0], is_fall, "waist", 50.0, acc_g))
    write_trials(path, recorded)
    return path


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return (code, *capfd.readouterr())

    return run


def one_line(done: tuple[int, str, str], exit_code: int, *parts: str) -> None:
    code, out, err = done
    assert (code, out) == (exit_code, "")
    assert err.startswith("edge-rt: ") and err.count("\n") == 1
    for part in parts:
        assert part in err


def test_replay_tells_what_the_daemon_would_announce(say: Say, trials: Path, bundle: Path) -> None:
    code, out, _ = say("replay", "fall", trials, "--bundle", bundle, "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert "fall.prealarm" in [line.get("event") for line in lines]
    summary = lines[-1]["summary"]
    assert summary["trial"] == "f1" and summary["is_fall"] is True and summary["hops"] > 100
    code, out, _ = say("replay", "fall", trials, "--bundle", bundle, "--trial", "a1")
    assert code == 0 and "fall.prealarm" not in out and out.startswith("\nsummary")


def test_a_terminal_sees_progress_and_a_file_none_of_it(trials: Path, bundle: Path) -> None:
    ours, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "edge_rt", "replay", "fall", trials, "--bundle", bundle],
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        timeout=20,
        env={**os.environ, "TERM": "xterm"},
        check=False,
    )
    os.close(terminal)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "samples" in seen and "fall.prealarm" not in seen
    assert "fall.prealarm" in done.stdout and "\x1b" not in done.stdout


def test_what_is_told_stands_above_the_bar(trials: Path, bundle: Path) -> None:
    ours, terminal = pty.openpty()
    words = ["replay", "fall", trials, "--bundle", bundle, "--speed", "30"]
    with subprocess.Popen(
        [sys.executable, "-m", "edge_rt", *map(str, words)],
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    ) as child:
        os.close(terminal)
        seen = b""
        while b"summary" not in seen:  # the bar is gone by then
            seen += os.read(ours, 65536)
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            while os.read(ours, 65536):
                pass
        assert child.wait(60) == 0
    os.close(ours)
    before = seen[: seen.index(b"fall.suspected")].rsplit(b"\n", 1)[-1].rsplit(b"\x1b[2K", 1)[-1]
    assert b"samples" in seen and b"samples" not in before


def test_nothing_is_told_before_it_was_decided(say: Say, trials: Path, bundle: Path) -> None:
    code, out, _ = say("replay", "fall", trials, "--bundle", bundle, "--scores", "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    told = next(k for k, line in enumerate(lines) if line.get("event") == "fall.prealarm")
    decided = next(line for line in lines[told:] if "score" in line)
    assert decided["state"] == "prealarm" and decided["t_s"] <= lines[told]["t_s"]
    assert lines[told]["t_s"] < decided["t_s"] + 0.5  # nor long afterwards


def test_a_recording_without_one_scored_window_is_no_quiet_one(
    say: Say, bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "short.npz"
    acc_g = np.random.default_rng(1).normal(0, 1, (3, 3)).astype(np.float32)
    write_trials(path, [Trial("s", "brief", "a", False, "waist", 50.0, acc_g)])
    done = say("replay", "fall", path, "--bundle", bundle)
    one_line(done, 2, f"{path}: no window of trial brief was scored (3 samples at 50 Hz)")


def test_another_placement_is_warned_of(say: Say, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrist.npz"
    acc_g = simulate(ACTIVITIES["sitting"], 3).block.acc_g
    write_trials(path, [Trial("s", "w", "a", False, "wrist", 50.0, acc_g)])
    code, _, err = say("replay", "fall", path, "--bundle", bundle)
    assert code == 0 and "warning: a trial from the wrist" in err and "for the waist" in err


def test_a_folder_is_called_one(say: Say, bundle: Path, tmp_path: Path) -> None:
    one_line(say("replay", "fall", tmp_path, "--bundle", bundle), 2, f"{tmp_path}: a folder; name")


def test_a_bundle_of_junk_is_named(say: Say, trials: Path, tmp_path: Path) -> None:
    folder = tiny.bundle(tmp_path / "junk", b"<!doctype html> certainly no model")
    one_line(
        say("replay", "fall", trials, "--bundle", folder), 3, f"{folder}: not a TFLite file", "; "
    )


def test_recordings_are_opened_before_models(say: Say, tmp_path: Path) -> None:
    gone, still = tmp_path / "gone.mp4", tmp_path / "grey.pgm"
    still.write_bytes(b"P5 160 120 255\n" + bytes([128]) * (160 * 120))
    no_models = ("--detect", "./none", "--embed", "./none")
    one_line(say("replay", "face", gone, *no_models), 2, f"{gone}: no such file")
    one_line(say("replay", "face", still, "--owner", gone, *no_models), 2, f"{gone}: No such file")


def test_replay_help_says_json_lines(say: Say) -> None:
    for kind in ("fall", "face"):
        assert "JSON lines" in say("replay", kind, "--help")[1]


def test_replay_with_scores_and_speed(say: Say, trials: Path, bundle: Path) -> None:
    words = ("replay", "fall", trials, "--bundle", bundle, "--scores", "--json")
    code, fast, _ = say(*words)
    assert code == 0
    code, paced, _ = say(*words, "--speed", 400)

    def scores(out: str) -> list[float]:
        return [line["score"] for line in map(json.loads, out.splitlines()) if "score" in line]

    assert len(scores(fast)) > 20 and scores(fast) == scores(paced)


def test_evaluate_counts_trials(say: Say, trials: Path, bundle: Path) -> None:
    code, out, err = say("evaluate", "fall", trials, "--bundle", bundle, "--json")
    assert code == 0 and "warning" not in err
    answer = json.loads(out)
    assert (answer["falls"], answer["adls"]) == (1, 1)
    assert (answer["sensitivity"], answer["specificity"]) == (1.0, 1.0)
    low, high = answer["sensitivity_ci95"]
    assert 0 < low < high == 1.0
    assert set(answer["delay_s"]) == {"p50", "p95"}
    assert answer["per_subject"]["s1"]["falls"] == 1
    code, out, _ = say("evaluate", "fall", trials.parent, "--bundle", bundle)
    assert code == 0 and "sensitivity" in out and "ACTIVITY" in out


def test_bad_words_for_evaluate(say: Say, trials: Path, bundle: Path, tmp_path: Path) -> None:
    use = ("--bundle", bundle)
    one_line(say("evaluate", "fall", tmp_path, *use), 2, f"{tmp_path}: no .npz in this folder")
    one_line(say("evaluate", "fall", trials, *use, "--folds", "one"), 2, "'one' is neither loso")
    one_line(say("evaluate", "fall", *use), 2, "FILES", "see edge-rt evaluate fall --help")
    one_line(say("replay", "fall", trials, *use, "--trial", "zz"), 2, "2 trials (f1, a1", "'zz'")
    one_line(say("replay", "fall", trials, *use, "--speed", "0"), 2, "'0' is neither max nor")


def _write(path: Path, **arrays: object) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", ["evaluate", "replay"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "not a readable .npz"),
        (b"PK\x03\x04 but no archive", "not a readable .npz"),
        (b"subject,trial\n1,2\n", "not a readable .npz"),
        ("truncated", "not a readable .npz"),
        ("other arrays", "not a trials/1 file"),
    ],
)
def test_a_bad_recording_is_one_line(
    say: Say, trials: Path, bundle: Path, tmp_path: Path, verb: str, content: object, words: str
) -> None:
    path = tmp_path / "bad.npz"
    if content == "truncated":
        path.write_bytes(trials.read_bytes()[:1000])
    elif content == "other arrays":
        _write(path, x=np.zeros(3))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    one_line(say(verb, "fall", path, "--bundle", bundle), 2, str(path), words)


def test_a_stream_of_nan_or_of_one_value_is_said_and_survived(
    say: Say, bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "constant.npz"
    acc_g = np.tile(np.float32([0, 0, 1]), (1000, 1))
    write_trials(path, [Trial("s", "c", "a", False, "waist", 50.0, acc_g)])
    code, out, _ = say("replay", "fall", path, "--bundle", bundle, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and lines[-1]["summary"]["detector_failures"] == 0
    told = [line["event"] for line in lines[:-1]]
    assert told and all(event.startswith("device.") for event in told), told


@pytest.fixture
def faces(factory_bundle: Callable[[str], Path]) -> None:
    """The face bundles that come with edge_rt."""
    factory_bundle("face-detect")
    factory_bundle("face-embed")


@pytest.mark.usefixtures("faces")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.mp4", None, "no such file"),
        ("zero.mp4", b"", "the file is empty"),
        ("cut.mp4", b"\x00\x00\x00\x20ftypisom" + bytes(500), "not a video"),
        ("text.png", b"a text", "not a picture"),
    ],
)
def test_a_bad_video_is_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "edge_rt", "replay", "face", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    # The engine announces itself on stderr too.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]
    assert len(lines) == 1 and lines[0].startswith("edge-rt: ")
    assert str(path) in lines[0] and words in lines[0]


@pytest.mark.usefixtures("faces")
def test_pictures_without_a_face(tmp_path: Path, say: Say) -> None:
    folder = tmp_path / "stills"
    folder.mkdir()
    still = folder / "grey.pgm"
    still.write_bytes(b"P5 160 120 255\n" + bytes([128]) * (160 * 120))
    code, out, _ = say("replay", "face", folder, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["summary"]["seen"] == {"no_face": 1}
    code, out, err = say("replay", "face", folder, "--owner", still)
    assert code == 2 and "no face" in err.splitlines()[-1]
    words = ("evaluate", "detector", "--faces", folder, "--no-faces", folder, "--json")
    code, out, _ = say(*words)
    answer = json.loads(out)
    assert code == 0 and answer["recall"] == answer["false_positives_per_image"] == 0.0
    assert list(answer["bundles"]) == ["face-detect"]
    assert '"faces_found":0,' in out  # a count, not 0.0
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(f"a,b,same\n{still},{still},1\n{still},{still},0\n")
    code, out, _ = say("evaluate", "face", pairs, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["failure_to_acquire"] == 1.0 and answer["frr"] == 1.0
