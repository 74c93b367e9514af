"""Interpreters that behave as a rogue model would, for tests of the process that tries them.

A .tflite file cannot sleep, abort or open a socket by itself; code that a crafted one gets to run
inside the engine can. These stand where the engine is chosen.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_rt.adapters.tflite import Interpreter
from edge_rt.core.errors import ModelError

HOARD_BYTES = 4 * 1024**3


class Rogue(Interpreter):
    """A sound model that does something else as well, when it is loaded or when it runs."""

    def __init__(self, model: bytes, engine: str, at: str, deed: Callable[[], object]) -> None:
        if at == "load":
            deed()
        super().__init__(model, engine)
        self._deed = deed if at == "run" else None

    def invoke(self, raw: Any) -> Any:
        if self._deed is not None:
            self._deed()
        return super().invoke(raw)


def sleep() -> None:
    time.sleep(3600)


def spin() -> None:
    while True:
        pass


def hoard() -> None:
    bytes(HOARD_BYTES)


def hoard_in_parts() -> None:
    parts = []
    while sum(map(len, parts)) < HOARD_BYTES:
        parts.append(b"x" * 1_000_000)


def segfault() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(0)


def dawdle() -> None:
    """Takes 20 ms, processor idle."""
    time.sleep(0.02)


def break_out() -> None:
    """Tries what a confined process may not do; tells what worked."""
    own = os.getpid()
    attempts: dict[str, Callable[[], object]] = {
        "read a file": lambda: Path("/etc/hostname").read_bytes(),
        "write a file": lambda: Path(f"/tmp/rogue-{own}").write_bytes(b"x"),
        "open a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "open a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "open a Unix socket": lambda: socket.socket(socket.AF_UNIX),
        "take a closed number": lambda: (os.close(0), os.open("/dev/null", os.O_RDONLY)),
        "make a pipe": os.pipe,
        "fork": lambda: os.fork() or os._exit(0),
        "execute": lambda: os.execv("/bin/true", ["true"]),
        "signal its parent": lambda: os.kill(os.getppid(), signal.SIGWINCH),
        "raise its limits": lambda: __import__("resource").setrlimit(7, (64, 64)),
        "make a folder": lambda: os.mkdir(f"/tmp/rogue-{own}-folder"),
        "remove a file": lambda: os.unlink("/tmp/rogue-bait"),
    }
    worked = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, ValueError):
            continue
        worked.append(name)
    raise ModelError(f"worked: {', '.join(worked) or 'nothing'}; do not use this file")


DEEDS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "break_out": break_out,
    "dawdle": dawdle,
    "hoard": hoard,
    "hoard_in_parts": hoard_in_parts,
    "leave": leave,
    "segfault": segfault,
    "sleep": sleep,
    "spin": spin,
}


def rogue(deed: str, at: str) -> Callable[[bytes, str], Interpreter]:
    """A `load` of edge_rt.probe whose models do `deed` at "load" or at "run"."""
    return lambda model, engine: Rogue(model, engine, at, DEEDS[deed])
