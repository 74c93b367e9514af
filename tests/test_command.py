"""Programs with a limit: real ones, that hang, fork, fail and ignore what they are told."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_rt.adapters import command
from edge_rt.adapters.command import check_trusted, run
from edge_rt.core.errors import ConfigError, HardwareError

PATIENCE_S = 30.0
never = threading.Event()

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's files can only be made by root")


def wait(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_exit_codes_come_back() -> None:
    assert run(["/bin/true"], PATIENCE_S, never) == 0
    assert run(["/bin/sh", "-c", "exit 3"], PATIENCE_S, never) == 3


def test_a_program_that_is_missing_is_a_hardware_error() -> None:
    with pytest.raises(HardwareError, match=r"/nowhere/siren: .*correct the command"):
        run(["/nowhere/siren"], 1.0, never)


def test_arguments_are_not_read_by_a_shell(tmp_path: Path) -> None:
    run(["/bin/echo", f"$(touch {tmp_path}/made)", f"; touch {tmp_path}/made"], PATIENCE_S, never)
    assert not (tmp_path / "made").exists()


def test_nothing_of_our_environment_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edge-rt")
    run(["/bin/sh", "-c", f"env >{tmp_path}/env; ls -l /proc/$$/fd >{tmp_path}/fd"], 30.0, never)
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "LANG", "PWD", "SHLVL", "_"}
    assert "socket:" not in (tmp_path / "fd").read_text()


def test_at_its_limit_it_ends_with_all_its_children(tmp_path: Path) -> None:
    stubborn = f"trap '' TERM; sleep 600 & echo $! $$ >{tmp_path}/pids; wait; sleep 600"
    began_s = time.monotonic()
    assert run(["/bin/sh", "-c", stubborn], 0.3, never) is None
    assert time.monotonic() - began_s < 10.0
    pids = [int(text) for text in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait(lambda: not any(map(alive, pids)))


def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    assert run(["/bin/sh", "-c", f"sleep 600 & echo $! >{tmp_path}/pid"], PATIENCE_S, never) == 0
    pid = int((tmp_path / "pid").read_text())
    wait(lambda: not alive(pid))


def test_another_wish_ends_it_at_once() -> None:
    enough = threading.Event()
    threading.Timer(0.1, enough.set).start()
    began_s = time.monotonic()
    assert run(["/bin/sleep", "600"], 600.0, enough) is None
    assert time.monotonic() - began_s < 10.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of root's with a config and a program."""
    (tmp_path / "config.toml").write_text("")
    program = tmp_path / "siren"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


@as_root
def test_what_only_root_can_change_is_trusted(place: Path) -> None:
    check_trusted(place / "config.toml", [["/bin/true"], [str(place / "siren")]])
    check_trusted(place / "no such file", [])  # no programs, nothing to protect


@as_root
@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda p: (p / "siren").chmod(0o775), r"siren: others than root .*chmod go-w"),
        (lambda p: (p / "config.toml").chmod(0o666), "config.toml: others than root"),
        (lambda p: os.chown(p / "siren", 12345, 0), "siren: others than root"),
        (lambda p: os.chown(p / "config.toml", 12345, 0), "config.toml: others than root"),
        (lambda p: p.chmod(0o777), "others than root may change it"),
        (lambda p: (p / "siren").chmod(0o644), "is no program"),
        (lambda p: (p / "siren").unlink(), "is no program"),
    ],
)
def test_what_others_can_change_is_refused(
    place: Path, harm: Callable[[Path], object], complaint: str
) -> None:
    harm(place)
    with pytest.raises(ConfigError, match=complaint):
        check_trusted(place / "config.toml", [[str(place / "siren")]])


@as_root
def test_a_link_to_what_others_can_change_is_refused(place: Path) -> None:
    loose = place / "loose"
    loose.mkdir()
    (place / "siren").rename(loose / "siren")
    (place / "siren").symlink_to(loose / "siren")
    check_trusted(place / "config.toml", [[str(place / "siren")]])
    loose.chmod(0o777)
    with pytest.raises(ConfigError, match="loose: others than root"):
        check_trusted(place / "config.toml", [[str(place / "siren")]])


@as_root
def test_each_link_on_the_way_counts(place: Path) -> None:
    """A link into a folder of others, from where another link leads back to what is root's."""
    loose = place / "loose"
    loose.mkdir()
    (loose / "siren").symlink_to(place / "siren")
    (place / "linked").symlink_to("loose/../loose/siren")
    check_trusted(place / "config.toml", [[str(place / "linked")]])
    loose.chmod(0o777)
    with pytest.raises(ConfigError, match="loose: others than root"):
        check_trusted(place / "config.toml", [[str(place / "linked")]])
    loose.chmod(0o755)
    os.lchown(loose / "siren", 12345, 0)
    with pytest.raises(ConfigError, match=r"loose/siren: others than root .*chown -h"):
        check_trusted(place / "config.toml", [[str(place / "linked")]])


@as_root
def test_a_script_is_looked_at_like_its_interpreter(place: Path) -> None:
    argv = ["/bin/sh", str(place / "siren"), "loud", "/dev/null", str(place / "not there")]
    check_trusted(place / "config.toml", [argv])
    (place / "siren").chmod(0o666)
    with pytest.raises(ConfigError, match="siren: others than root"):
        check_trusted(place / "config.toml", [argv])
    (place / "siren").chmod(0o777)  # by whatever it may be run
    with pytest.raises(ConfigError, match="siren: others than root"):
        check_trusted(place / "config.toml", [["/usr/bin/nice", str(place / "siren")]])
    (place / "siren").chmod(0o666)  # data
    check_trusted(place / "config.toml", [["/usr/bin/touch", str(place / "siren")]])
    (place / "folder").mkdir()
    (place / "folder").chmod(0o777)
    check_trusted(place / "config.toml", [["/usr/bin/touch", str(place / "folder")]])


def test_programs_that_cannot_be_ended_do_not_pile_up() -> None:
    stuck = [subprocess.Popen(["/bin/sleep", "600"]) for _ in range(command.MAX_LEFT)]
    try:
        command._left.extend(stuck)
        with pytest.raises(HardwareError, match=rf"/bin/true: not started, .*{stuck[0].pid}"):
            run(["/bin/true"], PATIENCE_S, never)
        stuck[0].kill()
        stuck[0].wait(PATIENCE_S)
        assert run(["/bin/true"], PATIENCE_S, never) == 0
    finally:
        for process in stuck:
            process.kill()
            process.wait(PATIENCE_S)
    assert run(["/bin/true"], PATIENCE_S, never) == 0 and command._left == []


def test_a_program_needs_its_full_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs its full path"):
        check_trusted(tmp_path / "config.toml", [["siren"]])
