"""The plugin that records figures, driven through a run of pytest of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MEASURED = """
def test_good(figure):
    figure("sensitivity", 0.995, at_least=0.99)
    figure("delay", 0.8, at_most=1.0, unit="s")

def test_bad(figure):
    figure("overhead", 1.2, at_most=1.05, unit="x")

def test_silent():
    pass
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_figures_are_held_and_recorded(tmp_path: Path, workers: int) -> None:
    result, table = record(tmp_path, workers)
    assert result["tests"] == {"passed": 2, "failed": 1, "skipped": 0}
    figures = {entry["name"]: entry for entry in result["figures"]}
    assert {name: (e["value"], e["passed"]) for name, e in figures.items()} == {
        "sensitivity": (0.995, True),
        "delay": (0.8, True),
        "overhead": (1.2, False),
    }
    assert figures["delay"]["test"] == "test_measured.py::test_good"
    assert "| overhead | 1.2 x | <= 1.05 | no | `test_measured.py::test_bad` |" in table
    assert "2 passed, 1 failed, 0 skipped" in table


def test_the_record_names_commit_and_changes(tmp_path: Path) -> None:
    repository = tmp_path / "checkout"
    repository.mkdir()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(repository)]
    (repository / "file").write_text("as committed")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    clean, _ = record(repository, 0)
    assert (clean["commit"], clean["changed_files"]) == (head.stdout.strip(), [])
    (repository / "file").write_text("changed since")
    changed, table = record(repository, 0)
    assert changed["changed_files"] == ["file"]
    assert "with uncommitted changes" in table


def record(folder: Path, workers: int) -> tuple[dict[str, Any], str]:
    """Run MEASURED in `folder` and return what was recorded, as JSON and as a table."""
    (folder / "test_measured.py").write_text(MEASURED)
    (folder / "pytest.ini").write_text("[pytest]\n")  # keeps this run to `folder`
    target = folder / "docs" / "release.json"
    options = ["-q", "-p", "figures", "-n", str(workers), "--record", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return json.loads(target.read_text()), target.with_suffix(".md").read_text()
