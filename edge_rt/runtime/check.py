"""One line of the doctor, and what an error becomes in it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from edge_rt.core.errors import EdgeRtError

State = Literal["ok", "warning", "failed"]

DISK_FULL = "free some space on this disk"
# What a person does about it; anything else is the kernel speaking of a device.
_REMEDIES = {
    errno.EACCES: "run doctor as the user that the daemon runs as",
    errno.EPERM: "run doctor as the user that the daemon runs as",
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EROFS: "mount it for writing; a card that fails turns read-only",
}


class Check(NamedTuple):
    """One line: `name  state  found`, and what to do unless it is ok."""

    name: str
    state: State
    found: str
    remedy: str = ""


def run_checks(checks: Iterable[tuple[str, Callable[[], Iterable[Check]]]]) -> Iterator[Check]:
    """The lines of checks by their names; what one raises becomes its failed line."""
    for name, check in checks:
        try:
            yield from check()
        except EdgeRtError as error:
            yield failed(name, str(error), "mend what the message names")
        except OSError as error:
            yield failed_call(name, error)


def failed(name: str, message: str, otherwise: str) -> Check:
    """A failed line of one of our messages, which end in `; remedy`, or else with `otherwise`."""
    found, mark, remedy = message.rpartition("; ")
    return Check(name, "failed", *((found, remedy) if mark else (message, otherwise)))


def in_use(name: str, owner: int) -> Check:
    """A line for a device of a daemon that nobody can ask; a second reader would empty its FIFO."""
    found = f"not looked at: process {owner} may be reading it"
    return Check(name, "warning", found, "stop that first: systemctl stop edge-rt")


def failed_call(name: str, error: OSError) -> Check:
    """A failed line of a call to the kernel."""
    reason = error.strerror or type(error).__name__
    found = f"{error.filename}: {reason}" if error.filename else reason
    remedy = _REMEDIES.get(error.errno or 0, "look at the device in the kernel's log: dmesg")
    return Check(name, "failed", found, remedy)
