"""Metadata: when it is verified, by whom, and what stays of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.catalog import Catalog
from edge_rt.core.errors import StorageError
from edge_rt.core.fetch_config import FetchConfig
from edge_rt.core.mirror import INDEX_NAME, TIMESTAMP_NAME
from edge_rt.core.retry import Retry
from edge_rt.core.update_task import Answer, Refresh, Task
from edge_rt.runtime.update_mirror import Mirror

log = logging.getLogger(__name__)

# No clock of a device that runs this is right with an earlier time: 2026-01-01.
FIRST_FLOOR_S = 1_767_225_600.0
SETTLE_S = 0.3  # index and timestamp come one after the other


class Saved(msgspec.Struct, frozen=True):
    """What is kept over restarts: the time before which no clock is believed, the catalog that was
    verified last, and until when it says what may come in (Unix seconds)."""

    floor_s: float = FIRST_FLOOR_S
    catalog: Catalog | None = None
    expires_s: float = 0.0


class Refreshing:
    """Use from one thread. due_s: when begin() has something to do, monotonic seconds.

    run  runs a task in the trust child
    """

    def __init__(
        self,
        folder: Path,
        rules: FetchConfig,
        run: Callable[[Task], Answer],
        clock: Callable[[], float],
    ) -> None:
        self.mirror = Mirror(folder / "mirror", folder / "trusted", rules.missing_s)
        self.retry = Retry(rules.retry_s, rules.retry_cap_s)
        self.due_s = float("inf")
        self.info: dict[str, Any] = {"root_version": 0, "version": 0, "expires_s": 0.0}
        self.runs = 0
        self._rules = rules
        self._task = Refresh(rules.root, str(folder / "trusted"), str(folder / "mirror"))
        self._run = run
        self._clock = clock
        self._started_s = clock()
        self._file = StateFile(folder / "fetch.json", Saved)
        self._saved = Saved()
        self._seen = b""  # the timestamp verified last
        self._looked_s = float("-inf")

    def load(self) -> Catalog | None:
        """The catalog verified last, before any restart."""
        try:
            self._saved = self._file.load() or self._saved
        except StorageError as error:  # the catalog comes again, signed
            log.warning("updates: %s", error)
        return self._saved.catalog

    def believes(self, wall_s: float, synchronised: bool) -> bool:
        """Whether the clock is good enough to judge what has expired.

        At 1970 nothing has: a board without a clock of its own starts there. wall_s: Unix seconds.
        """
        if wall_s < self._saved.floor_s:
            return False
        return synchronised or self._clock() - self._started_s >= self._rules.clock_grace_s

    def expired(self, wall_s: float) -> bool:
        """Whether the catalog says nothing any more of what may come in. Who keeps newer metadata
        from the device, a withdrawal say, could else have it take what is old for ever."""
        return self._saved.catalog is not None and wall_s >= self._saved.expires_s

    def connected(self) -> list[str]:
        """Names to ask for, as long as the connection lasts."""
        if not self._seen:  # no timestamp would be worth a word
            self._due_in(self._rules.missing_s)
        return [INDEX_NAME, TIMESTAMP_NAME]

    def lost(self) -> None:
        """The connection ended: what was begun begins anew."""
        if self.mirror.collecting:
            self.mirror.end()
            self.due_s = self._clock()

    def take(self, name: str, payload: bytes) -> bool:
        """A metadata message; False if nobody asked for it, or it is too long."""
        asked = self.mirror.take(name, payload)
        if name == TIMESTAMP_NAME and (self.mirror.stamp != self._seen or not self._seen):
            self._due_in(SETTLE_S)
        return asked

    def begin(self) -> list[str]:
        """It is due_s: names to ask for. Raises StorageError."""
        self.due_s = float("inf")
        self._looked_s = self._clock()
        return self.mirror.begin(self._looked_s)

    def verify(self, wall_s: float) -> tuple[list[str], Catalog | None, str]:
        """All has come that will: names to ask for besides, or the verified catalog if it is a new
        one, or why it was refused. Raises StorageError.

        wall_s: Unix seconds
        """
        stamp = self.mirror.stamp
        answer = self._run(self._task)
        now = self._clock()  # it took a while
        if answer.missing and (names := self.mirror.more(answer.missing, now)):
            return names, None, ""
        self.mirror.collecting = False
        self.runs += 1
        if answer.error or answer.catalog is None:
            self.due_s = self.retry.after(now)
            return [], None, self.mirror.explain(answer.missing) or answer.error
        self._seen = stamp
        self.retry.reset()
        self.info = {
            "root_version": answer.root_version,
            "version": answer.version,
            "expires_s": answer.expires_s,
        }
        # Not past what was signed: a clock that ran ahead must not shut the device out for years.
        floor_s = max(self._saved.floor_s, min(wall_s, answer.expires_s))
        fresh = answer.catalog != self._saved.catalog
        self._saved = Saved(floor_s, answer.catalog, answer.expires_s)
        try:
            self._file.save(self._saved)
        except StorageError as error:  # what was withdrawn is left all the same
            log.warning("updates: the catalog is not kept over a restart: %s", error)
        return [], answer.catalog if fresh else None, ""

    def _due_in(self, wait_s: float) -> None:
        earliest = max(self._clock() + wait_s, self._looked_s + self._rules.interval_s)
        self.due_s = min(self.due_s, earliest)
