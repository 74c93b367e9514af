"""What a running daemon costs: time from its start to the first possible decision, and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edge_rt.core.errors import DaemonError
from edge_rt.core.toml import write_toml
from edge_rt.runtime.client import Client

START_S = 60.0  # a slow board loading models for the first time
POLL_S = 0.002
END_S = 10.0


class Footprint(NamedTuple):
    """Of one fresh daemon with both pipelines.

    falls_s, faces_s  from exec until the first block was judged (its window need not be full), and
                      until the face worker took pictures; seconds
    pss_mb            proportional set size after `settle_s`, by process (proc(5), smaps_rollup)
    """

    engine: str
    falls_s: float
    faces_s: float
    pss_mb: dict[str, float]


def measure(engine: str = "auto", settle_s: float = 5.0, faces: bool = True) -> Footprint:
    """Start a daemon on simulated input in a folder of its own, watch it, end it.

    Raises DaemonError with its last words when it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="edge-rt-bench-") as name:
        folder = Path(name)
        (folder / "config.toml").write_text(write_toml(_config(folder, engine, faces)))
        with _daemon(folder) as (process, begun):
            client = _connect(folder, process)
            with client:
                falls_s = _until(client, folder, begun, lambda s: s["falls"]["blocks"] > 0)
                faces_s = falls_s
                if faces:
                    faces_s = _until(client, folder, begun, lambda s: s["faces"]["frames"] > 0)
                time.sleep(settle_s)  # measured is what stays, not what starting needs
                status = client.call("status")
                return Footprint(status["engine"], falls_s, faces_s, memory(process.pid))


def _config(folder: Path, engine: str, faces: bool) -> dict[str, Any]:
    return {
        "runtime": {
            "engine": engine,
            "state_dir": str(folder / "state"),
            "run_dir": str(folder),
        },
        "falls": {"source": {"driver": "simulated", "scene": "walking", "repeat": True}},
        "faces": {"enabled": faces, "camera": {"driver": "demo"}},
    }


@contextlib.contextmanager
def _daemon(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    with open(folder / "log", "wb") as log:
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_rt", "run", "--config", str(folder / "config.toml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process, begun
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _connect(folder: Path, process: subprocess.Popen[bytes]) -> Client:
    end = time.monotonic() + START_S
    while True:
        try:
            return Client(folder)
        except DaemonError:
            if process.poll() is not None or time.monotonic() > end:
                raise DaemonError(f"the daemon did not start: {_last_words(folder)}") from None
        time.sleep(POLL_S)


def _until(client: Client, folder: Path, begun: float, ready: Any) -> float:
    while not ready(client.call("status")):
        if time.monotonic() - begun > START_S:
            raise DaemonError(f"a pipeline did not start: {_last_words(folder)}")
        time.sleep(POLL_S)
    return round(time.monotonic() - begun, 3)


def _last_words(folder: Path) -> str:
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def memory(root: int) -> dict[str, float]:
    """PSS in MB of a process and all below it, and their total."""
    found = {}
    for pid in family(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found["daemon" if pid == root else f"child {pid}"] = _pss_mb(pid)
    return {**found, "total": round(sum(found.values()), 1)}


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0  # a zombie has none


def family(root: int) -> list[int]:
    """A process and all its descendants, itself first."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            # The name in parentheses may hold spaces: fields count from behind it.
            fields = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    family = [root]
    for pid in family:
        family += parents.get(pid, [])
    return family
