"""How fall models have done on this device: hours of watching, pre-alarms, latency; by version.

It is what a model on trial is compared with, and what its own trial counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.core.latency import Snapshot, between
from edge_rt.runtime.teller import Notice

log = logging.getLogger(__name__)

HISTORY_NAME = "history.json"
MAX_MODELS = 4  # live, previous and two before: a device never goes back further
SAVE_S = 600.0  # of a count that only has to be about right
LEAST_BLOCKS = 1000  # the p99 of fewer is the handful of moments when the board did something else
# A gap between two looks longer than this was not watching: a suspended machine, a stopped process.
MAX_LOOK_S = 60.0


class Usage(msgspec.Struct, frozen=True):
    """hours with a working sensor; alarms: pre-alarms by the model itself; p99_ms: from the last
    sample of a window to its decision, None: not known."""

    hours: float = 0.0
    alarms: int = 0
    p99_ms: float | None = None


class History(msgspec.Struct, frozen=True):
    """By "name version", the last used last."""

    models: dict[str, Usage] = {}


class FallUsage:
    """Counts for the live model. `notice` on the teller's thread, the rest on one other."""

    def __init__(
        self,
        file: StateFile[History],
        watching: Callable[[], bool],
        latency: Callable[[], Snapshot],
        monotonic: Callable[[], float],
    ) -> None:
        """watching: whether usable samples come; latency: of the fall pipeline, so far."""
        self._file = file
        self._watching = watching
        self._latency = latency
        self._monotonic = monotonic
        self._models: dict[str, Usage] = {}
        try:
            kept = file.load()
            self._models = dict(kept.models) if kept else {}
        except StorageError as error:
            log.error("what models have done here is forgotten: %s", error)
        self._label = ""
        self._before = Usage()
        self._since = latency()
        self._raised = 0
        self._alarms = 0
        self._looked_s = self._saved_s = monotonic()

    def switch(self, label: str) -> None:
        """This model, "name version", is live from now on."""
        if label == self._label:
            return
        if self._label:
            self.look()
            self._before = self._models[self._label]
        self._label = label
        self._models[label] = self._models.pop(label, Usage())
        while len(self._models) > MAX_MODELS:
            del self._models[next(iter(self._models))]
        self._since = self._latency()

    def notice(self, notice: Notice) -> None:
        """For the recorder to call."""
        event = notice.event
        if event.kind == "fall" and event.what == "prealarm" and event.modelversion == self._label:
            self._raised += 1

    def look(self) -> None:
        """Bring the counts up to date; call it every now and then."""
        now_s = self._monotonic()
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        old = self._models[self._label]
        raised = self._raised
        alarms, self._alarms = raised - self._alarms, raised
        hours = passed_s / 3600.0 if self._watching() and passed_s <= MAX_LOOK_S else 0.0
        row = between(self._since, self._latency()).get("push")
        p99_ms = row["p99_ms"] if row and row["count"] >= LEAST_BLOCKS else old.p99_ms
        self._models[self._label] = Usage(old.hours + hours, old.alarms + alarms, p99_ms)
        if now_s - self._saved_s >= SAVE_S:
            self.save()

    def save(self) -> None:
        """Write it down; a disk that does not take it costs only the history."""
        self._saved_s = self._monotonic()
        if not self._file.file.path.parent.is_dir():
            return  # no update was ever possible here, and nothing will be compared
        try:
            self._file.save(History(self._models))
        except StorageError as error:
            log.warning("%s", error)

    @property
    def live(self) -> Usage:
        """Of the live model."""
        return self._models[self._label]

    @property
    def before(self) -> Usage:
        """Of the model that was live before it, in this run of the daemon."""
        return self._before
