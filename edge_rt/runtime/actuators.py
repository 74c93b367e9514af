"""What acts in the room: the siren and the lock, chosen by name in the config."""

from __future__ import annotations

import logging
from typing import Protocol

from edge_rt.core.config import LogActuator

log = logging.getLogger(__name__)


class Siren(Protocol):
    """Sounds until told to stop. Commands may repeat."""

    name: str

    def sound(self, stage: str) -> None:
        """stage: "prealarm" (asks the wearer) or "alarm" (calls for help)."""
        ...

    def silence(self) -> None: ...

    def notice(self) -> None:
        """One short sound: something is about to be done from afar. A stage that sounds goes on
        sounding; returns at once."""
        ...


class Lock(Protocol):
    """Opens for one bounded moment."""

    name: str

    def pulse(self) -> None: ...


class LogSiren:
    """Writes what a siren would do to the service log."""

    name = "log"

    def sound(self, stage: str) -> None:
        log.warning("siren: sounding (%s)", stage)

    def silence(self) -> None:
        log.warning("siren: silent")

    def notice(self) -> None:
        log.warning("siren: notice")


class LogLock:
    """Writes what a lock would do to the service log."""

    name = "log"

    def pulse(self) -> None:
        log.warning("lock: would open now")


def make_siren(config: LogActuator) -> Siren:
    """The siren that the config names."""
    return LogSiren()


def make_lock(config: LogActuator) -> Lock:
    """The lock that the config names."""
    return LogLock()
