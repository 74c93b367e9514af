"""A chip made of files, for boards without one and for tests: a line is a file that holds 0 or 1.

cat  /run/edge-rt/pins/27        1 while the siren's line is active
echo 1 > /run/edge-rt/pins/5     presses the button on line 5, echo 0 releases it
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_rt.core.errors import HardwareError
from edge_rt.core.pins import Edge, InputSettings

POLL_S = 0.01  # how finely presses are seen: a tenth of the shortest that a finger manages


class ModelChip:
    """Lines as files in `folder`, which is made."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder, self._clock, self._sleep = folder, clock, sleep

    def output(self, line: int, active_low: bool, user: str) -> ModelOutput:
        """An output, inactive. Levels in the file are logical: active is 1, whatever active_low."""
        with _ours(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return ModelOutput(self._folder / str(line))

    def input(self, settings: InputSettings, user: str) -> ModelInput:
        """An input, released until somebody writes into its file."""
        path = self._folder / str(settings.line)
        with _ours(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_text("0\n")
        return ModelInput(path, self._clock, self._sleep)


class ModelOutput:
    """One file that we write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(False)

    def set(self, on: bool) -> None:
        """Raises HardwareError when the file cannot be written."""
        # Whole or not at all: a reader never finds it empty.
        with _ours(self._path):
            new = self._path.with_name(f".{self._path.name}.new")
            new.write_text("1\n" if on else "0\n")
            os.replace(new, self._path)

    def close(self) -> None:
        """Inactive."""
        self.set(False)


class ModelInput:
    """One file that we read."""

    def __init__(
        self, path: Path, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._path, self._clock, self._sleep = path, clock, sleep
        self._known = self.level()

    def level(self) -> bool:
        """Whether it is active. Raises HardwareError: the file is gone or holds something else."""
        with _ours(self._path):
            text = self._path.read_text().strip()
        if text not in ("", "0", "1"):  # empty: a shell is about to write it
            raise HardwareError(f"{self._path}: holds {text[:20]!r}; write 1 (active) or 0")
        return text == "1"

    def edges(self, timeout_s: float) -> list[Edge]:
        """Raises HardwareError."""
        end_s = self._clock() + timeout_s
        while True:
            now_s, level = self._clock(), self.level()
            if level != self._known:
                self._known = level
                return [Edge(level, now_s)]
            if now_s >= end_s:
                return []
            self._sleep(min(POLL_S, end_s - now_s))

    def close(self) -> None:
        """Nothing to give back."""


@contextlib.contextmanager
def _ours(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise HardwareError(f"{path}: {reason}; see gpio.folder in the config") from None
