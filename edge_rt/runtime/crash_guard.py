"""Counts starts that fail, across processes, and takes away what may be the cause of it."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_rt import __version__
from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.statefile import StateFile
from edge_rt.bundle import factory_bundles, locate
from edge_rt.core import crash_loop
from edge_rt.core.config import Config
from edge_rt.core.crash_loop import Mode, Starts
from edge_rt.core.errors import EdgeRtError, StorageError
from edge_rt.core.manifest import FallManifest

log = logging.getLogger(__name__)

STARTS_NAME, STAND_IN_NAME = "starts.json", "starts-unsaved.json"
DEFAULT_BUNDLE = "fall-waist"

# From the bundle that the configuration names to the one to fall back on.
SpareBundle = Callable[[str], str]


def factory_spare(name: str) -> str:
    """The factory bundle for the same place on the body as bundle `name`."""
    factory = factory_bundles()
    if name in factory:
        return name
    try:
        manifest = read_bundle(locate(name)).manifest
    except EdgeRtError as error:
        log.warning("bundle %s cannot be read: %s", name, error)
        return DEFAULT_BUNDLE
    placement = manifest.decision.placement if isinstance(manifest, FallManifest) else ""
    fitting = f"fall-{placement}"
    return fitting if fitting in factory else DEFAULT_BUNDLE


class CrashGuard:
    """One for each start; the state folder must be ours.

    mode    how much of the configuration to run
    config  what to run

    memory  a folder that outlives a process and no more: the count goes there while the disk takes
            none, for a card that turns read-only may be just what starts fail on
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        spare: SpareBundle = factory_spare,
        memory: Path | None = None,
    ) -> None:
        self._file = StateFile(folder / STARTS_NAME, Starts)
        self._stand_in = None if memory is None else StateFile(memory / STAND_IN_NAME, Starts)
        # Another build of the same version is another one: it lies elsewhere.
        text = msgspec.json.encode([__version__, os.path.realpath(sys.prefix), config])
        made_of = hashlib.sha256(text).hexdigest()[:16]
        self._before = crash_loop.before(self._load(), made_of)
        self._proved = False
        self.mode = self._before.mode
        bundle = config.falls.bundle
        if self.mode is not Mode.FULL:
            bundle = spare(bundle)
        self.config = crash_loop.reduced(config, self.mode, bundle)
        self._asked = config
        self._left_out: dict[str, str] = {}

    def delay_s(self, alarm_open: bool) -> float:
        """How long this start should wait first."""
        return self._before.delay_s(alarm_open)

    def begin(self) -> None:
        """This start counts as failed from here on, until `healthy` or `stopped`."""
        self._save(crash_loop.begun(self._before))

    def healthy(self) -> None:
        """A healthy minute has passed."""
        if not self._proved:
            self._proved = True
            self._save(crash_loop.healthy(self._before))

    def stopped(self) -> None:
        """Asked to stop: that is no failure."""
        if not self._proved:
            self._save(self._before)

    def failed(self, reason: str) -> None:
        """It will end now, and why."""
        if not self._proved:
            self._save(crash_loop.ended(crash_loop.begun(self._before), reason))

    def try_again(self) -> None:
        """The next start may use models again."""
        self._proved = True
        self._save(crash_loop.spared(self._before))

    def leave_out(self, part: str, reason: str) -> None:
        """The daemon runs without this part too, for it cannot be made."""
        self._left_out[part] = reason

    def report(self) -> dict[str, Any]:
        """Data of the event device.degraded; empty in full mode."""
        if self.mode is Mode.FULL:
            return {}
        asked, run = self._asked, self.config
        reason = "; ".join(self._left_out.values()) or self._before.reason
        return {
            "mode": self.mode.value,
            "failed_starts": self._before.failed,
            "reason": reason or "killed or crashed; see the service log",
            "off": [
                name
                for name, was, now in (
                    ("falls", asked.falls.enabled, run.falls.enabled),
                    ("faces", asked.faces.enabled, run.faces.enabled),
                )
                if was and not now
            ]
            + list(self._left_out),
            "bundle": run.falls.bundle if run.falls.enabled else "",
        }

    def problem(self) -> str:
        """For the list of problems; empty in full mode."""
        found = self.report()
        if not found:
            return ""
        off = f", {' and '.join(found['off'])} off" if found["off"] else ""
        return f"degraded after {found['failed_starts']} failed starts{off}: {found['reason']}"

    def _load(self) -> Starts | None:
        # The stand-in is there only while it is the newer one.
        for file in (self._stand_in, self._file):
            try:
                starts = None if file is None else file.load()
            except StorageError as error:  # damaged, or no disk: counts from nothing
                log.warning("failed starts are not known: %s", error)
                starts = None
            if starts is not None:
                return starts
        return None

    def _save(self, starts: Starts) -> None:
        try:
            self._file.save(starts)
            if self._stand_in is not None:
                self._stand_in.remove()
        except StorageError as error:
            log.warning("failed starts are counted in memory: %s", error)
            self._save_in_memory(starts)

    def _save_in_memory(self, starts: Starts) -> None:
        try:
            if self._stand_in is not None:
                self._stand_in.save(starts)
        except StorageError as error:  # the watch goes on without the count
            log.warning("failed starts are not counted: %s", error)
