"""The state folder has one owner."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge_rt.adapters.statedir import LOCK_NAME, StateDir, held_by
from edge_rt.core.errors import DaemonError, StorageError


def test_it_is_made_private(tmp_path: Path) -> None:
    with StateDir(tmp_path / "a" / "b") as state:
        assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    (tmp_path / "wide").mkdir(mode=0o755)
    with StateDir(tmp_path / "wide") as state:
        assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


def test_a_second_owner_is_told_who_has_it(tmp_path: Path) -> None:
    with StateDir(tmp_path), pytest.raises(DaemonError, match=f"in use by process {os.getpid()}"):
        StateDir(tmp_path)
    StateDir(tmp_path).close()


def test_a_killed_owner_lets_go_and_its_children_hold_nothing(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from edge_rt.adapters.statedir import LOCK_NAME, StateDir, held_by
state = StateDir(Path({str(tmp_path)!r}))
child = subprocess.Popen(["cat"], stdin=sys.stdin, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        child = int(owner.stdout.readline())
        with pytest.raises(DaemonError, match=f"process {owner.pid}"):
            StateDir(tmp_path)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        os.kill(child, 0)  # still there
        StateDir(tmp_path).close()
        os.kill(child, signal.SIGKILL)


def test_who_holds_it_can_be_seen_without_taking_it(tmp_path: Path) -> None:
    assert held_by(tmp_path / "none") is None
    with StateDir(tmp_path):
        assert held_by(tmp_path) == os.getpid()
    assert held_by(tmp_path) is None
    (tmp_path / LOCK_NAME).write_text("1\n")  # a number that has become another's
    assert held_by(tmp_path) is None
    (tmp_path / LOCK_NAME).write_text("")
    assert held_by(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user: needs root")
@pytest.mark.parametrize(("uid", "name"), [(65534, "nobody"), (64999, "'#64999'")])
def test_root_leaves_no_files_in_a_folder_of_another_user(
    tmp_path: Path, uid: int, name: str
) -> None:
    os.chown(tmp_path, uid, uid)
    with pytest.raises(DaemonError, match=f"belongs to another user.*sudo -u {name} edge-rt"):
        StateDir(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="state folder"):
        StateDir(tmp_path / "file")
