"""The command line as its users meet it: a process, its exit code, its two streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_rt.cli import COMMANDS, SECTIONS, main


def edge_rt(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_rt", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], exit_code: int, *parts: str) -> None:
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("edge-rt: ") and done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


def test_help_names_every_command_under_its_heading() -> None:
    done = edge_rt("--help")
    assert done.returncode == 0 and done.stderr == ""
    headings = [line.rstrip(":") for line in done.stdout.splitlines() if line.endswith(":")]
    assert headings == ["Options", *SECTIONS]
    for name, (_, line) in COMMANDS.items():
        assert f"  {name}" in done.stdout and line in " ".join(done.stdout.split())


def test_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom edge_rt.cli import main\nassert main(['--help']) == 0\n"
        "print(sorted(m for m in sys.modules if m.startswith(('edge_rt.', 'numpy', 'rich'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == str(
        ["edge_rt.cli", "edge_rt.core", "edge_rt.core.errors"]
    )


def test_the_face_worker_imports_nothing_of_the_daemon() -> None:
    """It is the largest process of a small board."""
    code = "import sys, edge_rt.runtime.face_worker\nprint(*(m for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = done.stdout.split()
    assert "edge_rt.runtime.cameras" in loaded
    others = ("edge_rt.falls", "edge_rt.runtime.accelerometers", "sqlite3", "ssl", "paho")
    assert [name for name in loaded if name.startswith(others)] == []


@pytest.mark.parametrize(
    "words", [("--help",), ("doctor", "--help"), ("bench", "--nothing", "--json"), ("--version",)]
)
def test_output_that_cannot_be_written_is_one_line(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edge_rt", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    if "--nothing" in words:  # nothing was printed: its own error stands
        assert done.returncode == 2
        return
    assert done.returncode == 4
    assert done.stderr.startswith("edge-rt: the output cannot be written (No space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: edge-rt {name}")


def test_version() -> None:
    from edge_rt import __version__

    assert edge_rt("--version").stdout == f"edge-rt {__version__}\n"


def test_no_command_prints_help_and_fails() -> None:
    done = edge_rt()
    assert done.returncode == 2 and done.stdout.startswith("Usage: edge-rt")


def test_wrong_words_are_one_line_with_a_hint() -> None:
    assert_one_line(edge_rt("stauts"), 2, "no command 'stauts'", "did you mean status")
    assert_one_line(edge_rt("arm", "doors"), 2, "'doors' is not one of", "see edge-rt arm --help")
    assert_one_line(edge_rt("status", "--jsno"), 2, "--jsno", "see edge-rt status --help")
    assert_one_line(edge_rt("face", "enrol"), 2, "NAME", "see edge-rt face enrol --help")


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("cancel",),
        ("resolve",),
        ("help-now",),
        ("arm", "falls"),
        ("disarm", "faces"),
        ("events", "--follow"),
        ("face", "list"),
        ("face", "verify"),
        ("face", "enrol", "ann"),
        ("face", "remove", "ann"),
        ("face", "anew", "ann"),
    ],
)
def test_without_a_daemon_the_socket_and_the_remedy_are_named(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--run-dir", str(tmp_path)]) == 5
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"{tmp_path}/control.sock" in err and "edge-rt run --config FILE" in err


def test_run_dir_comes_from_the_environment_and_errors_as_json(tmp_path: Path) -> None:
    done = edge_rt("status", "--json", env={"EDGE_RT_RUN_DIR": str(tmp_path)})
    assert done.returncode == 5 and done.stdout == ""
    report = json.loads(done.stderr)["error"]
    assert report["kind"] == "DaemonError" and report["exit_code"] == 5
    assert str(tmp_path) in report["message"]


def test_pictures_for_enrolment_are_looked_at_before_they_are_sent(tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    done = edge_rt("face", "enrol", "ann", "--image", gone, "--run-dir", tmp_path)
    assert_one_line(done, 2, str(gone), "No such file")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    done = edge_rt("face", "verify", "--image", empty, "--run-dir", tmp_path)
    assert_one_line(done, 2, "empty.jpg: 0 bytes")
    many = [word for _ in range(9) for word in ("--image", empty)]
    assert_one_line(edge_rt("face", "enrol", "ann", *many), 2, "at most 8")


def test_a_reader_that_leaves_is_no_traceback() -> None:
    shell = f"{sys.executable} -m edge_rt --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")  # 0 when help fitted into the pipe in time


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fals]\nenabled = true\n", "did you mean 'falls'"),
        ("[falls]\nbundel = 'x'\n", "did you mean 'bundle'"),
        ("falls = 3\n", "falls"),
        ("[falls\n", "not valid TOML"),
        ("[runtime]\nthreads = 99\n", "runtime.threads"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_file_and_key(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    for command in (["run", "--check"], ["run"], ["doctor"]):
        assert main([*command, "--config", str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert str(path) in err and words in err


def test_run_check_accepts_a_config_of_defaults_and_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.touch()  # a power cut leaves this of a longer one
    assert_one_line(edge_rt("run", "--config", path, "--check"), 2, "config.toml: an empty file")
    path.write_text("# all as it comes\n")
    done = edge_rt("run", "--config", path, "--check")
    assert (done.returncode, done.stdout) == (0, f"{path}: ok\n")
    assert_one_line(edge_rt("run", "--config", tmp_path / "gone"), 2, "gone: No such file")
