"""An output and its thread: the newest wish wins, and whoever wishes never waits."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from edge_rt.core.errors import HardwareError

log = logging.getLogger(__name__)

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # a line that fails may come back; an alarm keeps trying
JOIN_S = 2.5  # longer than the end of a program that will not end (adapters.command)
HANG_S = 5.0  # a step that takes longer than it may by so much hangs


class Wish(NamedTuple):
    """What an output is to do, since when; number counts the wishes.

    renewed_s  when it was last asked for again without beginning anew
    """

    what: str
    since_s: float
    number: int
    renewed_s: float = -math.inf


class Act(Protocol):
    """Makes wishes come true; called in the output's thread only, but for `overdue`."""

    def step(self, wish: Wish, now_s: float, changed: threading.Event) -> float:
        """Do what is to be done now; in how many seconds there is more (infinity: never).

        What takes long ends as soon as `changed` is set. Raises HardwareError.
        """
        ...

    def guard(self, now_s: float) -> None:
        """Called from another thread now and then: end what should have ended long ago."""
        ...

    def stop(self) -> None:
        """Called from another thread: a step that goes on ends soon, for `close` comes next."""
        ...

    def close(self) -> None:
        """Leave it as it is safe."""
        ...


class Output:
    """Runs an act between `start` and `close`."""

    def __init__(
        self, name: str, act: Act, at_rest: str, monotonic: Callable[[], float], step_s: float = 0.0
    ) -> None:
        """at_rest: the wish it begins with; step_s: how long one step may take."""
        self.name = name
        self._act = act
        self._monotonic = monotonic
        self._wish = Wish(at_rest, monotonic(), 0)
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._settled = threading.Condition()
        self._done = -1  # number of the wish that was last stepped through
        self._problem = ""
        self._step_s = step_s
        self._stepping_s: float | None = None  # since when a step has been going on
        self._stopping = False
        self._unrest = False  # it could not be brought to rest at the end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # ---- from any thread ----

    def start(self) -> None:
        """Begin, with what it does at rest."""
        self._thread.start()

    def wish(self, what: str, *, again: bool = False) -> int:
        """Do this from now on; the number of the wish. The same wish twice changes nothing,
        unless `again`. Returns at once."""
        with self._lock:
            if again or what != self._wish.what:
                self._wish = Wish(what, self._monotonic(), self._wish.number + 1)
                self._changed.set()
            return self._wish.number

    def renew(self) -> None:
        """There is one more cause for the newest wish: its limit begins anew. Returns at once."""
        with self._lock:
            self._wish = self._wish._replace(renewed_s=self._monotonic())
            self._changed.set()

    def wait(self, number: int, timeout_s: float) -> str:
        """Wait until a wish has been taken up; the problem with it, if any."""
        with self._settled:
            if not self._settled.wait_for(lambda: self._done >= number, timeout_s):
                return f"{self.name}: does not react"
            return self._problem

    def wanted(self) -> str:
        """The newest wish."""
        return self._wish.what

    def problem(self) -> str:
        """Why it cannot do what it should, or nothing."""
        since_s = self._stepping_s
        if since_s is not None and self._monotonic() - since_s > self._step_s + HANG_S:
            return f"{self.name}: hangs for {self._monotonic() - since_s:.0f} s"
        return self._problem

    def stuck_s(self) -> float:
        """How long its thread has been in one step, beyond what that may take.

        0 before it has ever ended one: what does not come up in this process will not in another.
        """
        since_s = self._stepping_s
        if since_s is None or self._done < 0:
            return 0.0
        return max(0.0, self._monotonic() - since_s - self._step_s)

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        return {"state": self._wish.what, "problem": self.problem()}

    def guard(self) -> None:
        """See Act.guard."""
        self._act.guard(self._monotonic())

    def stop(self) -> None:
        """Begin to come to rest."""
        self._stopping = True
        self._changed.set()
        self._act.stop()

    def close(self) -> None:
        """Come to rest; see `at_rest`. A thread that hangs is left behind (a daemon thread)."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def at_rest(self) -> bool:
        """After `close`: whether it is known to be at rest."""
        return not self._unrest and not self._thread.is_alive()

    # ---- in the output's thread ----

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            self._changed.clear()
            wish = self._wish  # after clear: a wish that comes now sets it again
            if self._stopping:
                break
            now_s = self._stepping_s = self._monotonic()
            try:
                wait_s = self._act.step(wish, now_s, self._changed)
                failures = 0
                self._note(wish, "")
            except Exception as error:  # an output tries again, whatever its driver raises
                if not isinstance(error, HardwareError):
                    log.exception("%s: unexpected failure", self.name)
                self._note(wish, f"{self.name}: {error}")
                wait_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
                failures += 1
            self._stepping_s = None
            self._changed.wait(None if math.isinf(wait_s) else wait_s)
        try:
            self._act.close()
        except Exception as error:  # the thread ends here; what is left on is told by at_rest
            log.error("%s: not at rest: %s", self.name, error)
            self._unrest = True

    def _note(self, wish: Wish, problem: str) -> None:
        if problem and problem != self._problem:
            log.error("%s", problem)
        elif self._problem and not problem:
            log.info("%s: works again", self.name)
        with self._settled:
            self._problem, self._done = problem, wish.number
            self._settled.notify_all()
