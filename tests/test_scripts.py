"""The scripts that a person runs first: what they say when the machine is not as they need it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = ("scripts/setup", "scripts/demo", "scripts/test", "scripts/lint", ".ci/run")
# What scripts/setup itself calls; a machine without Python has at least these.
TOOLS = ("bash", "cat", "dirname", "flock", "id", "ls", "sha256sum", "env")

Setup = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands that stands for a whole machine: TOOLS and what a test adds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        place = shutil.which(tool)
        assert place is not None, f"no {tool} on this machine"
        (folder / tool).symlink_to(place)
    return folder


@pytest.fixture
def setup(repository: Path, machine: Path, tmp_path: Path) -> Setup:
    """`setup("dev", NAME="value")` runs scripts/setup on that machine, for a venv of its own."""

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(repository / "scripts/setup"), *arguments],
            env={"PATH": str(machine), "EDGE_RT_VENV": str(tmp_path / "venv"), **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def add_command(machine: Path, name: str, body: str) -> None:
    path = machine / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/usr/bin/bash\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_runs_and_says_how_to_call_it(repository: Path, name: str) -> None:
    path = repository / name
    lines = path.read_text().splitlines()
    assert os.access(path, os.X_OK)
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    head = [line for line in lines[1:12] if line.startswith("#")]
    assert any(name in line for line in head)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_no_python_and_no_apt_get(setup: Setup) -> None:
    done = setup()
    assert done.returncode == 1
    assert done.stderr.endswith(
        "needs the packages python3 python3-venv, and there is no apt-get: install them by hand\n"
    )


def test_no_python_and_no_right_to_install_it(setup: Setup, machine: Path) -> None:
    add_command(machine, "apt-get", "exit 1")
    add_command(machine, "id", "echo 1000")
    done = setup()
    assert done.returncode == 1
    assert "run 'apt-get install python3 python3-venv' as root" in done.stderr


def test_missing_packages_are_asked_of_apt_get(setup: Setup, machine: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    add_command(machine, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >>{asked}')
    add_command(machine, "id", "echo 0")
    done = setup()
    assert asked.read_text().splitlines() == [
        " update -qq",
        "noninteractive install -y -qq --no-install-recommends python3 python3-venv",
    ]
    # This apt-get installs nothing, so there is still no Python.
    assert done.returncode == 1
    assert "needs Python 3.11 to 3.13" in done.stderr


def test_sudo_is_used_when_not_root(setup: Setup, machine: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    add_command(machine, "apt-get", "exit 0")
    add_command(machine, "sudo", f'echo "$1" >>{asked}; exec "$@"')
    add_command(machine, "id", "echo 1000")
    setup()
    assert asked.read_text().split() == ["apt-get", "env"]


def test_an_old_python_is_passed_over(setup: Setup, machine: Path) -> None:
    add_command(machine, "python3", "exit 1")  # what the question for its version comes to
    assert "needs the packages python3" in setup().stderr
    named = setup(EDGE_RT_PYTHON="python3")
    assert named.returncode == 1
    assert "EDGE_RT_PYTHON=python3 is not a Python 3.11 to 3.13 with venv" in named.stderr


def test_a_folder_that_is_no_environment_is_left_alone(
    setup: Setup, machine: Path, tmp_path: Path
) -> None:
    add_command(machine, "python3", "exit 0")
    letter = tmp_path / "venv" / "letter"
    letter.parent.mkdir()
    letter.write_text("dear")
    done = setup()
    assert done.returncode == 1
    assert "is not a virtual environment: move it away" in done.stderr
    assert letter.read_text() == "dear"


def test_an_unknown_kind_is_named(setup: Setup) -> None:
    assert "unknown kind 'everything'" in setup("everything").stderr
