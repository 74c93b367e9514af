"""Keeps one struct on disk up to date without making its owner wait for the disk."""

from __future__ import annotations

import logging
import threading
from typing import Generic, TypeVar

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError

T = TypeVar("T")

log = logging.getLogger(__name__)

RETRY_S = 1.0


class LatestSaver(Generic[T]):
    """Writes the newest state that it was given, in a thread of its own; older ones are skipped."""

    def __init__(self, file: StateFile[T], name: str) -> None:
        self._file = file
        self._name = name
        self._wanted: T | None = None
        self._problem = ""
        self._closing = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"save-{name}", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why the last write failed; empty when it did not."""
        return self._problem

    def save(self, state: T) -> None:
        """Have `state` written soon. Never blocks on the disk."""
        with self._change:
            self._wanted = state
            self._change.notify_all()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is outstanding, if the disk lets us in time."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._wanted is not None or self._closing)
                state, self._wanted = self._wanted, None
                closing = self._closing
            if state is None:
                return
            try:
                self._file.save(state)
                self._problem = ""
            except StorageError as error:
                if not self._problem:
                    log.error("%s: %s", self._name, error)
                self._problem = str(error)
                if closing:
                    return
                with self._change:
                    # Something newer may have come meanwhile; then that is written instead.
                    self._wanted = state if self._wanted is None else self._wanted
                    self._change.wait(RETRY_S)
