"""The twin: desired settings in, applied live, kept over restarts, reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.config import Config
from edge_rt.core.errors import EdgeRtError, InputError, StorageError
from edge_rt.core.twin import Desired, Rejected, Reported, choose, decode_desired, settings_of

log = logging.getLogger(__name__)

Apply = Callable[[Config], None]


class TwinService:
    """Use from one thread after load().

    base   the configuration file
    apply  makes a configuration live; raises an EdgeRtError that says why it cannot
    """

    def __init__(self, base: Config, file: StateFile[Desired], apply: Apply) -> None:
        self.config = base
        self.version = 0
        self.malformed = 0  # payloads that were no desired state at all
        self._base = base
        self._file = file
        self._apply = apply
        self._rejected: Rejected | None = None
        self.models: dict[str, Any] = {}  # replaced whole, from whichever thread

    def load(self) -> Config:
        """The configuration to start with: the file's, with the settings last applied.

        What cannot be read or no longer fits is left out: the file's own settings are safe.
        """
        try:
            saved = self._file.load()
            if saved is not None:
                # The allow-list may have shrunk, the types may have narrowed since.
                choice = choose(self._base, max(0, saved.version - 1), saved)
                self.config, self.version = choice.config, choice.version
        except (StorageError, InputError) as error:
            log.error("the settings from afar are left out: %s", error)
        return self.config

    def forget(self, reason: str) -> Config:
        """The loaded settings cannot be applied: back to the file's own."""
        log.error("the settings from afar cannot be applied: %s", reason)
        self._rejected = Rejected(self.version, reason[:300])
        self.config = self._base
        return self.config

    def desire(self, payload: bytes) -> bytes:
        """Handle `twin/desired`; the payload of `twin/reported`."""
        if not payload:  # the operator took the retained message back: nothing is desired
            return self.report()
        version = 0
        try:
            desired = self._decode(payload)
            version = desired.version
            choice = choose(self._base, self.version, desired)
            if choice.version == self.version and choice.config != self.config:
                raise InputError(f"version {version} is in force with other settings; raise it")
            if choice.version > self.version:
                self._take(desired, choice.config)
            self._rejected = None
        except EdgeRtError as error:
            log.warning("desired settings rejected: %s", error)
            self._rejected = Rejected(version, str(error)[:300])
        return self.report()

    def _decode(self, payload: bytes) -> Desired:
        try:
            return decode_desired(payload)
        except InputError:
            self.malformed += 1
            raise

    def _take(self, desired: Desired, config: Config) -> None:
        self._apply(config)
        try:
            self._file.save(desired)
        except StorageError:  # what a restart would forget must not be reported as in force
            self._apply(self.config)
            raise
        self.config, self.version = config, desired.version
        log.info("settings of version %d are in force", desired.version)

    def report(self) -> bytes:
        """The payload of `twin/reported`."""
        settings: dict[str, Any] = settings_of(self.config)
        return msgspec.json.encode(Reported(self.version, settings, self._rejected, self.models))
