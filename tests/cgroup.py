"""A control group with little memory and a slice of a core: a small board's share of this machine.

Needs root, and cgroup v1 with the controllers cpu and memory, or v2 with both for its root's
children (Linux admin guide, cgroup-v1/memory, sched-bwc and cgroup-v2).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_rt.runtime.footprint import family

ROOT = Path("/sys/fs/cgroup")
# A quota is handed out once a period and who has used it up stands still until the next. With the
# kernel's default of 100 ms all threads would stop for 75 ms at a time, which no slow core does.
PERIOD_US = 10_000


class Group:
    """Limits for the processes in it, and what the kernel counted."""

    def __init__(self, cpu: Path, memory: Path, unified: bool) -> None:
        self._cpu, self._memory, self._unified = cpu, memory, unified

    @property
    def folders(self) -> set[Path]:
        return {self._cpu, self._memory}

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command line: runs it inside."""
        inside = "".join(f"echo $$ >{folder}/cgroup.procs && " for folder in sorted(self.folders))
        return ("sh", "-c", inside + 'exec "$@"', "sh")

    def limit(self, memory_mb: int, cores: float) -> None:
        quota_us = round(cores * PERIOD_US)
        if self._unified:
            (self._cpu / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
            (self._memory / "memory.max").write_text(str(memory_mb << 20))
            return
        (self._cpu / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (self._cpu / "cpu.cfs_quota_us").write_text(str(quota_us))
        (self._memory / "memory.limit_in_bytes").write_text(str(memory_mb << 20))

    def kills(self) -> int:
        """How many processes the kernel ended for want of memory."""
        name = "memory.events" if self._unified else "memory.oom_control"
        return _field(self._memory / name, "oom_kill")

    def throttled(self) -> int:
        """Periods in which the slice was used up."""
        return _field(self._cpu / "cpu.stat", "nr_throttled")

    def members(self) -> set[int]:
        return {int(pid) for pid in (self._memory / "cgroup.procs").read_text().split()}

    def holds(self, root: int) -> bool:
        """Whether a process and all below it are inside."""
        return set(family(root)) <= self.members()


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.split()[0] == name:
            return int(line.split()[1])
    raise ValueError(f"{path} counts no {name}")


@pytest.fixture
def small_board() -> Iterator[Group]:
    """A group without limits yet, removed after the test. Skips where there can be none."""
    if os.getuid() != 0:
        pytest.skip("needs root to make a control group")
    unified = (ROOT / "cgroup.controllers").is_file()
    name = f"edge-rt-test-{os.getpid()}"
    if unified:
        given = (ROOT / "cgroup.subtree_control").read_text().split()
        parents = [ROOT, ROOT] if {"cpu", "memory"} <= set(given) else []
    else:
        parents = [ROOT / "cpu", ROOT / "memory"]
    group = Group(*(parent / name for parent in parents), unified) if parents else None
    if group is None or not all(parent.is_dir() for parent in parents):
        pytest.skip("this machine has no control groups for cpu and memory (v1, or v2 at its root)")
    try:
        for folder in group.folders:
            folder.mkdir()
    except OSError as error:
        pytest.skip(f"this machine lets nobody make a control group: {error.strerror}")
    yield group
    for folder in group.folders:
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
