"""The scripts that a person runs first: what they say when the machine is not as they need it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = (
    *("scripts/setup", "scripts/demo", "scripts/test", "scripts/lint", ".ci/run"),
    *("scripts/install", "scripts/uninstall", "scripts/soak"),
)
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


# ---- scripts/install, up to where it would change something; the rest: e2e/test_service.py ----

INSTALL_TOOLS = (
    "awk",
    "cut",
    "grep",
    "find",
    "realpath",
    "sed",
    "sort",
    "xargs",
    "basename",
    "readlink",
)
DISK = "echo; echo disk 9000000 1 8000 1% /"


@pytest.fixture
def install(repository: Path, machine: Path) -> Setup:
    """`install("--dry-run")` on a machine that has all it takes."""
    for tool in (*INSTALL_TOOLS, "hostname", "tr", "mkdir", "head"):
        place = shutil.which(tool)
        assert place is not None, f"no {tool} on this machine"
        (machine / tool).symlink_to(place)
    add_command(machine, "uname", "echo aarch64")
    add_command(machine, "systemctl", "echo 'systemd 252 (252.1)'")
    add_command(machine, "df", DISK)
    add_command(machine, "python3", 'case $1 in -V) echo "Python 3.11.2";; esac')

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(repository / "scripts/install"), *arguments],
            env={"PATH": str(machine), **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_install_says_every_step_and_takes_none(install: Setup, tmp_path: Path) -> None:
    done = install("--dry-run", "--profile", "pi4")
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stderr.splitlines() if line.startswith("would run: ")]
    for part in (
        "-m venv /opt/edge-rt/",
        "systemd-sysusers",
        "profiles/pi4.toml",
        "restart edge-rt",
    ):
        assert [step for step in steps if part in step], f"no step with {part}: {done.stderr}"


def test_the_same_files_are_the_same_version(install: Setup) -> None:
    first, second = (install("--dry-run").stderr for _ in range(2))
    assert first == second and "/opt/edge-rt/0." in first
    other = install("--dry-run", "--engine", "tflite-runtime").stderr
    assert first.splitlines()[0] != other.splitlines()[0]


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("uname", "echo riscv64", "no wheels of the engines for riscv64"),
        ("systemctl", "echo 'systemd 247'", "needs systemd 252 or newer (Debian 12); found 247"),
        ("systemctl", "exit 1", "needs systemd 252 or newer (Debian 12); found none"),
        ("df", DISK.replace("8000", "100"), "needs 700 MB below /opt, 100 are free"),
    ],
)
def test_install_refuses_a_machine_that_will_not_do(
    install: Setup, machine: Path, name: str, body: str, said: str
) -> None:
    add_command(machine, name, body)
    done = install("--dry-run")
    assert done.returncode == 1 and said in done.stderr


def test_install_names_what_it_was_given_wrong(
    install: Setup, machine: Path, tmp_path: Path
) -> None:
    assert "unknown option --fast" in install("--fast").stderr
    assert "--profile needs a value" in install("--profile").stderr
    assert "unknown engine 'x'; choose" in install("--dry-run", "--engine", "x").stderr
    assert "must hold one edge_rt-*.whl" in install("--dry-run", "--offline", str(tmp_path)).stderr
    add_command(machine, "id", "echo 1000")
    assert "run it as root" in install().stderr


def test_install_without_a_network_asks_for_packages_by_name(
    install: Setup, machine: Path, tmp_path: Path
) -> None:
    add_command(machine, "python3", "exit 1")
    done = install("--dry-run", "--offline", str(tmp_path))
    assert "needs the packages python3 python3-venv: install them" in done.stderr


def test_install_takes_picamera2_from_debian(install: Setup) -> None:
    done = install("--dry-run", "--picamera2")
    assert "would run: env DEBIAN_FRONTEND=noninteractive apt-get install" in done.stderr
    assert "python3-picamera2" in done.stderr
    assert "would run: /usr/bin/python3 -m venv --system-site-packages" in done.stderr


def test_uninstall_says_what_it_would_remove(repository: Path) -> None:
    script = str(repository / "scripts/uninstall")

    def run(*options: str) -> str:
        return subprocess.run([script, *options], capture_output=True, text=True, timeout=60).stderr

    assert "unknown option --all" in run("--all")
    kept, purged = run("--dry-run"), run("--dry-run", "--purge")
    assert "/var/lib/edge-rt" not in kept.split("left in place")[0]
    assert "would run: rm -rf /var/lib/edge-rt" in purged
