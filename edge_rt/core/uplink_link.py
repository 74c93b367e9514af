"""The connection to the broker as a table: when to try, when to wait, and for how long.

python -m edge_rt.core.uplink_link        prints the table as Markdown
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from edge_rt.core.table import markdown


class State(StrEnum):
    """Where the connection is."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    ONLINE = "online"
    STOPPED = "stopped"


class Event(StrEnum):
    """What moves it."""

    DUE = "due"  # the wait is over
    ACCEPTED = "accepted"  # CONNACK success
    REFUSED = "refused"  # the broker answered no: CONNACK, or DISCONNECT with a reason
    FAILED = "failed"  # no answer: network, name, TLS, time-out
    LOST = "lost"  # it was up and went away
    STOP = "stop"


TABLE: dict[State, dict[Event, State]] = {
    State.WAITING: {Event.DUE: State.CONNECTING, Event.STOP: State.STOPPED},
    State.CONNECTING: {
        Event.ACCEPTED: State.ONLINE,
        Event.REFUSED: State.WAITING,
        Event.FAILED: State.WAITING,
        Event.LOST: State.WAITING,
        Event.STOP: State.STOPPED,
    },
    State.ONLINE: {
        Event.REFUSED: State.WAITING,
        Event.LOST: State.WAITING,
        Event.STOP: State.STOPPED,
    },
    # What an ended connection still reports changes nothing.
    State.STOPPED: dict.fromkeys(Event, State.STOPPED),
}


class Backoff(msgspec.Struct, frozen=True):
    """Full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): a
    fleet whose broker returns does not come back in one wave.

    first_s, cap_s  the bound of the random wait doubles from the one to the other
    refused_cap_s   its cap when the broker said no: only a person can mend that
    stable_s        a connection that held for so long begins anew; one that ends sooner (two
                    devices with one name throwing each other out) goes on backing off
    """

    first_s: float = 1.0
    cap_s: float = 60.0
    refused_cap_s: float = 300.0
    stable_s: float = 10.0


class Link:
    """Runs TABLE. `random()` gives floats in [0, 1)."""

    def __init__(self, backoff: Backoff, random: Callable[[], float]) -> None:
        self.state = State.WAITING
        self.due_s = 0.0  # monotonic; meaningful while WAITING
        self.tries = 0
        self._backoff = backoff
        self._random = random
        self._online_s = 0.0

    def step(self, event: Event, now_s: float) -> State:
        """Move. Raises ValueError, naming state and event, for a missing entry."""
        row = TABLE[self.state]
        if event not in row:
            raise ValueError(f"the link has no entry for {event} while {self.state}")
        old, self.state = self.state, row[event]
        if self.state is State.ONLINE:
            self._online_s = now_s
        elif self.state is State.WAITING:
            if old is State.ONLINE and now_s - self._online_s >= self._backoff.stable_s:
                self.tries = 0
            self.due_s = now_s + self._wait_s(refused=event is Event.REFUSED)
            self.tries += 1
        return self.state

    def _wait_s(self, *, refused: bool) -> float:
        rules = self._backoff
        cap = rules.refused_cap_s if refused else rules.cap_s
        # 2 ** 30 is past any cap; the exponent must not grow with the weeks offline.
        bound = min(cap, rules.first_s * 2.0 ** min(self.tries, 30))
        # Never below a tenth: "full" jitter may give 0 and hammer the broker.
        return bound * max(0.1, self._random())


def table_markdown() -> str:
    """TABLE for people."""
    return markdown(TABLE, Event)


if __name__ == "__main__":
    print(table_markdown())
