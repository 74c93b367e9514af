"""Plugin: fixtures that try bundles in a process with a fork server (rogues/trial_peer.py)."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ANSWER_S = 120.0


class Peer:
    """The process at the other end; `ask` waits for its answer."""

    def __init__(self, engine: str, *prefix: str) -> None:
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH", ""))))
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(HERE / "rogues" / "trial_peer.py"), engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        self.hello = self._read()

    def ask(self, what: str, folder: Path | str = "", **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"ask": what, "folder": str(folder), **more}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def reason(self, folder: Path, deed: str = "", at: str = "", **more: Any) -> str:
        """Why a self-test refused; "" if it did not."""
        told = self.ask("self_test", folder, deed=deed, at=at, **more)
        assert told["left"] == 0, "a trial left a process behind"
        return str(told.get("error", ""))

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_S)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            raise AssertionError("the process that tries models did not answer")
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10.0)
        finally:
            self.process.kill()
            self.process.stdout.close()


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process ends (or is a zombie, which init would reap) within a time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="session")
def peer(engine: str) -> Iterator[Peer]:
    """One peer for each engine."""
    made = Peer(engine)
    yield made
    made.close()
