"""The scripts that a person runs first: what they say when the machine is not as they need it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
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
    "rm",
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
    # Not /usr/bin/python3, which becomes another one when the distribution is upgraded.
    assert re.search(
        r"would run: /usr/bin/python3\.\d+ -m venv --system-site-packages", done.stderr
    )


# ---- its parts, on real files ----


@pytest.fixture
def part(repository: Path, tmp_path: Path) -> Setup:
    """`part("way_back", current="...")` calls one function of scripts/install on environments
    below `tmp_path`/opt."""
    text = (repository / "scripts/install").read_text().removesuffix("\nmain\n")
    parts = tmp_path / "scripts" / "parts"
    parts.parent.mkdir()
    parts.write_text(text.replace("home=/opt/edge-rt", f"home={tmp_path}/opt"))

    def run(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", f". {parts}; before= release= dry=yes; {script}"],
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def opt(part: Setup, tmp_path: Path) -> Callable[..., Path]:
    """`opt("1.0-aaaaaaaa")` makes a sealed environment with a command that runs."""

    def make(name: str, good: float = 0.0) -> Path:
        path = tmp_path / "opt" / name
        (path / "bin").mkdir(parents=True)
        add_command(path / "bin", "edge-rt", "exit 0")
        (path / "lib.py").write_text("x = 1\n")
        sealed = part(f"seal {path}")
        assert sealed.returncode == 0, sealed.stderr
        if good:
            (path / "good").touch()
            os.utime(path / "good", (good, good))
        return path

    return make


def test_a_sealed_version_is_intact_until_a_file_of_it_is_lost_or_cut(
    part: Setup, opt: Callable[..., Path]
) -> None:
    path = opt("1.0-aaaaaaaa")
    intact = f"intact {path}"
    assert part(intact).returncode == 0
    (path / "more.pyc").touch()  # what Python itself adds is no damage
    assert part(intact).returncode == 0
    (path / "lib.py").write_text("")  # what a power cut leaves of a file that was not synced
    assert part(intact).returncode == 1
    (path / "lib.py").write_text("x = 1\n")
    assert part(intact).returncode == 0
    (path / "bin/edge-rt").rename(path / "bin/gone")
    assert part(intact).returncode == 1
    add_command(path / "bin", "edge-rt", "exit 1")
    assert part(intact).returncode == 1
    (path / "complete").write_text("")
    assert part(intact).returncode == 1


def test_the_way_back_is_the_last_undamaged_version_that_has_run_well(
    part: Setup, opt: Callable[..., Path]
) -> None:
    first, second = opt("1.0-aaaaaaaa", good=1000.0), opt("1.1-bbbbbbbb", good=2000.0)
    third = opt("1.2-cccccccc")  # made, switched to, and then the power went

    def back(before: Path, release: str = "/opt/edge-rt/new") -> str:
        done = part(f"before={before} release={release}; way_back")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert back(first) == str(first)
    assert back(third) == str(second)
    (second / "lib.py").write_text("")
    assert back(third) == back(second) == str(first)
    assert back(third, release=str(first)) == ""
    (first / "good").unlink()
    assert back(third) == ""


def test_a_full_disk_leaves_the_file_that_was_there(
    part: Setup, tmp_path: Path, disk: Path
) -> None:
    unit, new = disk / "unit", tmp_path / "new"
    new.write_bytes(b"n" * 4096)
    unit.write_text("old")
    put = f"put {new} {unit}"
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"f" * 4096)
    assert part(put).returncode == 1
    assert unit.read_text() == "old" and not unit.with_name("unit.new").exists()
    (disk / "filler").unlink()
    assert part(put).returncode == 0
    assert unit.read_bytes() == new.read_bytes() and unit.stat().st_mode & 0o777 == 0o644


@pytest.fixture
def system(tmp_path: Path) -> dict[str, str]:
    """PATH of commands that stand for systemd: a unit that is active, or does not start (FAILS)."""
    folder = tmp_path / "system"
    folder.mkdir()
    add_command(
        folder,
        "systemctl",
        'case "$*" in restart*) exit ${FAILS:-0};; is-active*) echo active;; '
        "*MainPID*) echo 7;; *Result*) echo exit-code;; *StatusText*) echo words;; esac",
    )
    add_command(
        folder,
        "journalctl",
        'case "$*" in *show-cursor*) echo "-- cursor: s=1";; *--cursor=s=1*) ;; '
        '*) echo "of last week";; esac',
    )
    for name in ("systemd-sysusers", "systemd-tmpfiles", "udevadm", "logger"):
        add_command(folder, name, "exit 0")
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("before", "now", "code", "lost"),
    [
        ("sensor camera broker", "sensor camera broker", 0, ""),
        ("", "", 0, ""),
        ("sensor", "sensor camera", 0, ""),
        ("sensor broker", "broker", 1, "no sensor within 1 s, which was there before: words"),
        ("sensor camera", "", 1, "no sensor and no camera within 1 s"),
        ("sensor broker", "sensor", 0, "warning: the broker, there before, is not reached yet"),
    ],
)
def test_ready_is_not_enough_the_new_version_has_to_see_what_the_old_one_saw(
    part: Setup, system: dict[str, str], before: str, now: str, code: int, lost: str
) -> None:
    short = f"SETTLE_S=0 WATCH_S=1 CAMERA_S=1 LOOK_S=1 cursor=; sees() {{ echo {now}; }}"
    done = part(f'{short}; reaches_ready "{before}" || {{ why_not; exit 1; }}', **system)
    assert done.returncode == code, done.stderr
    assert lost in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("faces", "before", "after"),
    [
        ('{"camera": "on", "armed": true}', "camera", "camera"),
        ('{"camera": "lost", "armed": true}', "", ""),
        ('{"camera": "off", "armed": false}', "", "camera"),  # nobody wants to see
        ("null", "", ""),
    ],
)
def test_a_camera_that_is_not_wanted_is_not_missed(
    part: Setup, opt: Callable[..., Path], faces: str, before: str, after: str
) -> None:
    path = opt("1.0-aaaaaaaa")
    add_command(path / "bin", "edge-rt", f"echo '{{\"faces\": {faces}}}'")
    (path / "bin/python").symlink_to(sys.executable)
    (path.parent / "current").symlink_to(path)
    done = part("sees; sees after")
    assert (done.returncode, done.stdout) == (0, f"{before}\n{after}\n")


@pytest.mark.parametrize("same", [False, True])
def test_what_cannot_be_put_in_place_leaves_what_runs(
    part: Setup, opt: Callable[..., Path], system: dict[str, str], same: bool
) -> None:
    old, last = opt("1.0-aaaaaaaa"), opt("0.9-cccccccc", good=1000.0)
    new = old if same else opt("1.1-bbbbbbbb")
    (old.parent / "current").symlink_to(old)
    full = 'put_system_files() { [ "$tried" ] || { tried=yes; return 1; }; echo "$1"; }'
    done = part(
        f"before={old} release={new} version=1.1 dry= tried=; {full}; switch {last}", **system
    )
    assert done.returncode == 1
    assert "1.1 could not be put in place" in done.stderr and f"{old.name} runs on" in done.stderr
    assert (old.parent / "current").resolve() == old and done.stdout == f"{old}\n"
    assert old.exists() and new.exists() is same


def test_the_reason_is_one_of_this_start_and_not_of_last_week(
    part: Setup, system: dict[str, str]
) -> None:
    done = part("cursor=; reaches_ready '' || why_not", FAILS="1", **system)
    assert done.stdout == "exit-code; see: journalctl -u edge-rt\n"


def test_what_a_version_does_not_have_is_no_hindrance_and_does_not_stay(
    part: Setup, opt: Callable[..., Path], system: dict[str, str], tmp_path: Path
) -> None:
    old = opt("1.0-aaaaaaaa")
    files = old / "lib/python3.11/site-packages/edge_rt/firmware_configs/systemd"
    files.mkdir(parents=True)
    (files / "edge-rt.service").write_text("[Unit]\n")
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "newer.service").write_text("[Unit]\n")
    pairs = f"(newer.service:{etc}/newer.service edge-rt.service:{etc}/edge-rt.service)"
    script = f"dry=; system_files={pairs}"
    assert part(f"{script}; system_files_differ {old}", **system).returncode == 0
    done = part(f"{script}; put_system_files {old}", **system)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in etc.iterdir()] == ["edge-rt.service"]
    assert part(f"{script}; system_files_differ {old}", **system).returncode == 1
    # udev that does not answer is said, and holds up nothing.
    add_command(tmp_path / "system", "udevadm", "exit 1")
    assert part(f"{script}; put_system_files {old}", **system).returncode == 0


def test_the_unit_ends_are_answered_more_and_more_slowly(repository: Path, tmp_path: Path) -> None:
    script = repository / "firmware_configs/systemd/edge-rt-ended"
    text = script.read_text()
    for old, new in (("/run/edge-rt/ends", f"{tmp_path}/ends"), ("exec sleep", "echo sleep")):
        assert old in text
        text = text.replace(old, new)
    uptime = tmp_path / "uptime"
    text = text.replace("/proc/uptime", str(uptime))
    (tmp_path / "bin").mkdir()
    ended = tmp_path / "bin" / "ended"
    ended.write_text(text)

    def end(at_s: float, result: str = "exit-code", status: str = "70") -> str:
        uptime.write_text(f"{at_s:.2f} 1.00\n")
        environ = {"PATH": os.environ["PATH"], "SERVICE_RESULT": result, "EXIT_STATUS": status}
        done = subprocess.run(
            ["sh", str(ended)], env=environ, capture_output=True, text=True, check=True
        )
        assert done.stderr == "" or status == "203"
        return done.stdout + done.stderr

    at_s, delays = 100.0, []
    for _ in range(8):
        delays.append(int(end(at_s).split()[1]))
        at_s += delays[-1] + 1.0
    assert delays == [0, 0, 1, 2, 4, 8, 10, 10]
    assert end(at_s + 70.0).split()[1] == "0"  # after a healthy minute a crash is a first one
    assert end(at_s + 71.0, "success", "0") == ""
    (tmp_path / "ends").write_text("half of a li")
    assert end(at_s).split()[1] == "0"
    uptime.write_text("")
    said = end(at_s, "exit-code", "203")
    assert "has no Python that runs it" in said and "run scripts/install again" in said
    assert ended.read_text().count("sleep 10") == 1  # the rest: e2e/test_service.py


def test_uninstall_says_what_it_would_remove(repository: Path) -> None:
    script = str(repository / "scripts/uninstall")

    def run(*options: str) -> str:
        return subprocess.run([script, *options], capture_output=True, text=True, timeout=60).stderr

    assert "unknown option --all" in run("--all")
    kept, purged = run("--dry-run"), run("--dry-run", "--purge")
    drop_ins = "/etc/systemd/system/edge-rt.service.d"
    assert drop_ins not in kept.split("left in place")[0] and drop_ins in purged
    assert "/var/lib/edge-rt" not in kept.split("left in place")[0]
    assert "would run: rm -rf /var/lib/edge-rt" in purged
