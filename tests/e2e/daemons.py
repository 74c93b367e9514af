"""Real daemons for end-to-end tests: a process, its folder, its control socket."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_rt.core.toml import write_toml
from edge_rt.runtime.client import Client
from edge_rt.runtime.protocol import socket_path

PATIENCE_S = 60.0  # two noisy cores; every wait below ends as soon as its condition holds


class Running:
    """A daemon that was started; `log` is what it wrote so far."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def call(self, command: str, **args: Any) -> dict[str, Any]:
        with Client(self.folder) as client:
            return client.call(command, **args)

    def status(self) -> dict[str, Any]:
        return self.call("status")

    def events(self) -> list[dict[str, Any]]:
        with Client(self.folder) as client:
            return list(client.stream("events", limit=10_000))

    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("edge_rt.") for event in self.events()]

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """What `condition` returns once that is true."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if found := condition():
                return found
            assert self.process.poll() is None, f"the daemon ended: {self.log}"
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}: {self.status()} {self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def daemon(
    folder: Path,
    config: dict[str, Any],
    log: str | None = "log",
    *,
    module: str = "edge_rt",
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Running]:
    """`edge-rt run` with `config`, state in folder/state unless it says otherwise.

    log: name of the file for its stderr; None for a pipe that nobody reads.
    module: run in place of edge_rt, with the same arguments.
    prefix: before the command line, and replaced by it at last (exec).
    """
    runtime = {"state_dir": str(folder / "state"), "run_dir": str(folder)}
    merged = {**config, "runtime": {**runtime, **config.get("runtime", {})}}
    (folder / "config.toml").write_text(write_toml(merged))
    socket_path(folder).unlink(missing_ok=True)  # of one that was killed
    with open(folder / (log or os.devnull), "ab") as file:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, "run", "--config", str(folder / "config.toml")],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file if log else subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
    running = Running(folder, process)
    try:
        end_s = time.monotonic() + PATIENCE_S
        while not socket_path(folder).exists():
            assert process.poll() is None, running.log
            assert time.monotonic() < end_s, running.log
            time.sleep(0.02)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()
