"""The metadata of one refresh, as the broker sends it: files in a folder for the child to judge."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.mirror import (
    INDEX_NAME,
    TIMESTAMP_NAME,
    decode_index,
    expected,
    limit_of,
)

log = logging.getLogger(__name__)

# The names that the child finds missing one by one: snapshot, targets, catalog, and roots.
MAX_EXTRA = 40


class Mirror:
    """Use from one thread. Times are monotonic seconds.

    folder   emptied at each begin()
    trusted  where the child keeps verified metadata; read for the version of its root
    wait_s   what has not come for so long is not there
    """

    def __init__(self, folder: Path, trusted: Path, wait_s: float) -> None:
        self.counts = dict.fromkeys(("files", "oversized", "unasked", "bad_index"), 0)
        self.stamp = b""  # the timestamp that came last
        self.collecting = False
        self._folder = folder
        self._trusted = trusted
        self._wait_s = wait_s
        self._listed: tuple[str, ...] = ()
        self._asked: set[str] = set()
        self._waiting: set[str] = set()
        self._deadline_s = 0.0
        self._oversized: dict[str, int] = {}

    def begin(self, now_s: float) -> list[str]:
        """Names to ask for; the timestamp, which comes unasked, is in the folder already."""
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(mode=0o700, parents=True)
            if self.stamp:
                (self._folder / TIMESTAMP_NAME).write_bytes(self.stamp)
        except OSError as error:
            raise StorageError(f"{self._folder}: {error.strerror}; free or mend the disk") from None
        self.collecting = True
        self._asked.clear()
        self._waiting.clear()
        self._oversized = {n: size for n, size in self._oversized.items() if n == TIMESTAMP_NAME}
        wanted = expected(self._listed, self._root_version())
        return self._ask((name for name in wanted if name != TIMESTAMP_NAME), now_s)

    def more(self, name: str, now_s: float) -> list[str]:
        """The child missed a file: ask for it too, if it is one of ours and new."""
        fresh = limit_of(name) is not None and name not in self._asked and name != TIMESTAMP_NAME
        return self._ask([name], now_s) if fresh and len(self._asked) < MAX_EXTRA else []

    def ready_s(self) -> float:
        """When the child may look: at once when all has come."""
        return self._deadline_s if self._waiting else 0.0

    def end(self) -> list[str]:
        """The refresh is over; names that need not be asked for any longer."""
        self.collecting = False
        return list(self._asked)

    def explain(self, missing: str) -> str:
        """Why a file was not there; empty if it just did not come."""
        size = self._oversized.get(missing)
        return f"{missing}: {size} bytes, {limit_of(missing)} are taken" if size else ""

    def take(self, name: str, payload: bytes) -> bool:
        """A metadata message came. False when it was not asked for, or is too long to be looked at.

        Raises StorageError when the disk does not take it.
        """
        limit = limit_of(name)
        if limit is None or (name not in (INDEX_NAME, TIMESTAMP_NAME) and name not in self._asked):
            self.counts["unasked"] += 1
            return False
        if len(payload) > limit:
            self.counts["oversized"] += 1
            self._oversized[name] = len(payload)
            self._waiting.discard(name)
            if name == TIMESTAMP_NAME:
                self.stamp = b""
            return False
        self.counts["files"] += 1
        if name == INDEX_NAME:
            self._index(payload)
        elif name == TIMESTAMP_NAME:
            self.stamp = payload
            self._oversized.pop(name, None)
        else:
            self._keep(name, payload)
        return True

    def _ask(self, names: Iterable[str], now_s: float) -> list[str]:
        fresh = [name for name in names if name not in self._asked]
        self._asked.update(fresh)
        self._waiting.update(fresh)
        self._deadline_s = now_s + self._wait_s
        return fresh

    def _keep(self, name: str, payload: bytes) -> None:
        self._waiting.discard(name)
        if not self.collecting or not payload:  # an empty one is the broker's word for: gone
            return
        try:
            (self._folder / name).write_bytes(payload)
        except OSError as error:
            raise StorageError(f"{self._folder}: {error.strerror}; free or mend the disk") from None

    def _index(self, payload: bytes) -> None:
        try:
            self._listed = tuple(decode_index(payload).files)
        except InputError as error:
            self.counts["bad_index"] += 1
            log.warning("updates: %s", error)

    def _root_version(self) -> int:
        versions = [1]
        for path in (self._trusted / "root_history").glob("*.root.json"):
            head = path.name.split(".")[0]
            versions += [int(head)] if head.isdigit() else []
        return max(versions)
