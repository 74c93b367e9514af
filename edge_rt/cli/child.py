"""Processes that a command starts for as long as it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

END_S = 10.0


@contextlib.contextmanager
def child(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to the file `log`; ended with the context, whatever ends that."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with log.open("wb") as file, _uninterrupted():
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        yield process
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def last_words(log: Path) -> str:
    """The last line that a process wrote."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """What would end us comes after the block: nobody else has the new process's handle."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
