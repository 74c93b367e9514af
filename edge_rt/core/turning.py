"""Whether every loop of the daemon has turned lately enough; only then is the watchdog fed.

A turn is one pass through a loop, whatever came of it: "sensor absent, trying again" is a turn, a
call into a driver that never returns is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Seconds without a turn after which only a new process helps. Each is several times what the loop
# may rightly spend in one pass on the slowest board.
PATIENCE_S: Mapping[str, float] = {
    # Ten turns a second; nothing in it waits for a disk or a socket.
    "falls": 10.0,
    # A read waits half a second, an I2C transfer is given up by the kernel within seconds.
    "accelerometer": 30.0,
    # One turn a second; starting a thread may take long while memory is short.
    "control": 30.0,
    # Whom it tells returns at once; the siren is among them.
    "teller": 30.0,
    # Four turns a second; closes a door that the lock's own thread has left open.
    "outputs": 30.0,
    # These may stand in a write to a card that stalls. A new process would stand there too and
    # would have forgotten what waits to be written, so this must be well beyond any stall.
    "recorder": 120.0,
    "faces": 120.0,
    "uplink": 120.0,
    # A driver answers in milliseconds, the time that a program may take is not counted, and a press
    # waits seconds for falls at most. Well beyond a healthy minute (core.crash_loop): a line that
    # hangs for good may cost restarts, but never the models.
    "siren": 120.0,
    "lock": 120.0,
    "cancel button": 120.0,
    "help button": 120.0,
    # The longest pass that may be: a challenge set that hangs for its 120 s in the fork server and
    # again in an interpreter of its own, then back through three models of 65 s each, before and
    # after: 11 minutes, and a card that stalls in between. Nobody waits for it.
    "updates": 1800.0,
}


class Late(NamedTuple):
    """A loop that has not turned for longer than it may."""

    loop: str
    stuck_s: float

    def __str__(self) -> str:
        return f"{self.loop} has not turned for {self.stuck_s:.0f} s"


def late(stuck_s: Mapping[str, float]) -> list[Late]:
    """The loops that are late, the longest stuck first.

    stuck_s  seconds since each loop last turned, by its name in PATIENCE_S; KeyError for another
    """
    found = [Late(loop, s) for loop, s in stuck_s.items() if s > PATIENCE_S[loop]]
    return sorted(found, key=lambda one: -one.stuck_s)
