"""The unlock machine: frames to UNLOCKED / DENIED by k of n, rate limit, lockout with back-off.

An attempt is charged as failed, and saved so, before its first frame is judged; success takes the
charge back. So neither a kill nor a power cycle in the middle gives a free try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from edge_rt.core.errors import ConfigError, StorageError

Seconds = Annotated[float, Meta(ge=0, le=86400)]


class UnlockRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many looks make a decision, and what failures cost. The bounds keep a settings file from
    switching the limits off.

    matches, frames  k of n: `matches` of at most `frames` judged frames must show one person
    attempt_s        longest attempt; without a decision by then it is denied
    gone_s           no face for so long ends an attempt
    hold_s           after an unlock nothing more is decided for so long
    pause_s          after a denial likewise
    failures         denials in a row that start the first lockout; after that every one does
    lockout_s        the first lockout, counted only while the device runs; each further one
                     doubles, up to lockout_cap_s
    """

    matches: Annotated[int, Meta(ge=1, le=30)] = 3
    frames: Annotated[int, Meta(ge=1, le=30)] = 5
    attempt_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    gone_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    hold_s: Seconds = 5.0
    pause_s: Seconds = 2.0
    failures: Annotated[int, Meta(ge=1, le=10)] = 5
    lockout_s: Annotated[float, Meta(ge=10, le=86400)] = 30.0
    lockout_cap_s: Annotated[float, Meta(ge=10, le=86400)] = 900.0

    def __post_init__(self) -> None:
        if self.matches > self.frames:
            raise ValueError(f"matches {self.matches} is more than frames {self.frames}")
        if self.lockout_cap_s < self.lockout_s:
            raise ValueError(f"lockout_cap_s {self.lockout_cap_s} is below lockout_s")

    def lockout_after(self, denials: int) -> float:
        """Seconds of lockout that the `denials`-th failure in a row brings; 0 for none."""
        further = denials - self.failures
        if further < 0:
            return 0.0
        return min(self.lockout_s * 2.0 ** min(further, 32), self.lockout_cap_s)


class Verdict(StrEnum):
    """What one frame showed."""

    NO_FACE = "no_face"
    POOR = "poor"
    STRANGER = "stranger"
    MATCH = "match"


class Look(NamedTuple):
    """One judged frame. person: pseudonym, for MATCH; reason: a word, for POOR."""

    verdict: Verdict
    person: str | None = None
    reason: str | None = None


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What survives a restart.

    failures      denials in a row, the running attempt included
    attempting    an attempt is running; found so at start, it was cut off and counts as denied
    remaining_s   of the lockout, when the monotonic clock of boot `boot_id` showed `monotonic_s`
    """

    failures: int = 0
    attempting: bool = False
    remaining_s: float = 0.0
    boot_id: str = ""
    monotonic_s: float = 0.0


class State(StrEnum):
    WATCHING = "watching"  # no attempt
    LOOKING = "looking"  # an attempt runs
    HOLDING = "holding"  # just unlocked
    PAUSED = "paused"  # just denied
    LOCKED = "locked"  # lockout


class Input(StrEnum):
    FACE = "face"  # the first frame that can be judged
    AGREED = "agreed"  # k frames show one person
    REFUSED = "refused"  # no agreement within n frames or the time
    TOO_MANY = "too_many"  # refused once too often
    ELAPSED = "elapsed"  # hold, pause or lockout is over
    STOPPED = "stopped"  # disarmed


TABLE: Mapping[State, Mapping[Input, State]] = {
    State.WATCHING: {Input.FACE: State.LOOKING},
    State.LOOKING: {
        Input.AGREED: State.HOLDING,
        Input.REFUSED: State.PAUSED,
        Input.TOO_MANY: State.LOCKED,
        Input.STOPPED: State.WATCHING,
    },
    State.HOLDING: {Input.ELAPSED: State.WATCHING},
    State.PAUSED: {Input.ELAPSED: State.WATCHING},
    State.LOCKED: {Input.ELAPSED: State.WATCHING},
}


class Outcome(NamedTuple):
    """What is told. what: unlocked, denied or lockout; reason: a word, never a score."""

    what: str
    person: str | None = None
    reason: str | None = None

    def data(self, liveness: str) -> dict[str, Any]:
        """Data of the face event; holds nothing that core.wire.check_face_data refuses."""
        data = {"outcome": self.what, "liveness": liveness}
        if self.person is not None:
            data["person"] = self.person
        if self.reason is not None:
            data["reason"] = self.reason
        return data


# A countdown that was saved so long ago starts again there after a reboot: longer, never shorter.
SAVE_EVERY_S = 30.0

LIVENESS_NOT_CHECKED = "not_checked"


class UnlockMachine:
    """Frames in, outcomes out; one machine a device.

    counters  as saved last (a fresh one on a new device)
    boot_id   of this boot; now_s: its monotonic clock, in all calls
    save      makes counters durable before it returns; called before an outcome is returned. If
              it raises, nothing was decided, though the frame counts: no disk, no unlocking
    """

    def __init__(
        self,
        rules: UnlockRules,
        counters: Counters,
        save: Callable[[Counters], None],
        *,
        boot_id: str,
        now_s: float,
    ) -> None:
        self.rules = rules
        self._save = save
        self._boot_id = boot_id
        self._now_s = now_s
        self._begun_s = self._seen_s = now_s
        self._frames: list[Look] = []
        self.counters = counters
        remaining_s = counters.remaining_s
        if counters.attempting:
            remaining_s = max(remaining_s, rules.lockout_after(counters.failures))
        elif counters.boot_id == boot_id:
            remaining_s -= max(0.0, now_s - counters.monotonic_s)
        remaining_s = min(max(remaining_s, 0.0), rules.lockout_cap_s)
        if remaining_s or counters.attempting:
            self.counters = self._stamped(counters.failures, remaining_s=remaining_s)
            # A daemon must start on a full disk; what is saved there is at least as strict.
            with suppress(StorageError):
                save(self.counters)
        self.state = State.LOCKED if remaining_s else State.WATCHING
        self._until_s = now_s + remaining_s

    def lockout_s(self, now_s: float) -> float:
        """Seconds until the lockout ends; 0 when there is none."""
        return max(0.0, self._until_s - now_s) if self.state is State.LOCKED else 0.0

    def step(self, look: Look, now_s: float) -> list[Outcome]:
        """Judge one frame, taken at now_s. Raises what `save` raises."""
        self._now_s = now_s = max(now_s, self._now_s)
        if self.state in (State.HOLDING, State.PAUSED, State.LOCKED):
            if now_s < self._until_s:
                self._keep_countdown()
                return []
            if self.state is State.LOCKED:
                self._keep(self.counters.failures)
            self._enter(Input.ELAPSED)
        judged = look.verdict in (Verdict.STRANGER, Verdict.MATCH)
        if self.state is State.WATCHING:
            if not judged:
                return []
            self._keep(self.counters.failures + 1, attempting=True)
            self._enter(Input.FACE)
            self._frames.clear()
            self._begun_s = now_s
        return self._look(look, judged)

    def abandon(self, now_s: float) -> None:
        """Nobody is looked at any more: a running attempt ends and costs nothing, for whoever may
        disarm needs no door. Raises what `save` raises."""
        self._now_s = max(now_s, self._now_s)
        if self.state is State.LOOKING:
            self._frames.clear()  # should it not be saved: the attempt goes on from no frame
            self._keep(self.counters.failures - 1)
            self._enter(Input.STOPPED)

    def _look(self, look: Look, judged: bool) -> list[Outcome]:
        now_s = self._now_s
        if now_s - self._begun_s > self.rules.attempt_s:
            return self._refuse("timed_out")  # a late frame is no part of the attempt
        if look.verdict is not Verdict.NO_FACE:
            self._seen_s = now_s
        elif now_s - self._seen_s >= self.rules.gone_s:
            return self._refuse("left")
        if not judged:
            return []
        if len(self._frames) == self.rules.frames:  # agreed once, but it could not be saved
            return self._refuse("timed_out")
        # Counted before anything is saved: a sick disk must not give more looks.
        self._frames.append(look)
        votes = Counter(frame.person for frame in self._frames if frame.verdict is Verdict.MATCH)
        person, count = votes.most_common(1)[0] if votes else (None, 0)
        if count >= self.rules.matches and look.person == person:
            self._keep(0)
            self._enter(Input.AGREED, self.rules.hold_s)
            return [Outcome("unlocked", person)]
        # As soon as the frames that are left cannot make it any more, it is over.
        if count + self.rules.frames - len(self._frames) < self.rules.matches:
            return self._refuse("disagreement" if votes else "stranger")
        return []

    def _refuse(self, reason: str) -> list[Outcome]:
        denials = self.counters.failures
        lockout_s = self.rules.lockout_after(denials)
        self._keep(denials, remaining_s=lockout_s)
        if not lockout_s:
            self._enter(Input.REFUSED, self.rules.pause_s)
            return [Outcome("denied", reason=reason)]
        self._enter(Input.TOO_MANY, lockout_s)
        return [Outcome("denied", reason=reason), Outcome("lockout", reason="too_many_failures")]

    def _enter(self, event: Input, for_s: float = 0.0) -> None:
        self.state = transition(self.state, event)
        self._until_s = self._now_s + for_s

    def _keep(self, failures: int, *, attempting: bool = False, remaining_s: float = 0.0) -> None:
        counters = self._stamped(failures, attempting=attempting, remaining_s=remaining_s)
        self._save(counters)
        self.counters = counters

    def _stamped(
        self, failures: int, *, attempting: bool = False, remaining_s: float = 0.0
    ) -> Counters:
        return Counters(
            failures=min(failures, 1_000_000),
            attempting=attempting,
            remaining_s=remaining_s,
            boot_id=self._boot_id,
            monotonic_s=self._now_s,
        )

    def _keep_countdown(self) -> None:
        if self.state is State.LOCKED and self._now_s - self.counters.monotonic_s >= SAVE_EVERY_S:
            self._keep(self.counters.failures, remaining_s=self._until_s - self._now_s)


def transition(state: State, event: Input) -> State:
    """The next state. Raises ValueError naming both when the table has no such entry."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise ValueError(f"unlock machine: no {event} in state {state}") from None


def penalised(rules: UnlockRules) -> Counters:
    """Counters to start from when the saved ones are unreadable: the longest lockout, for who can
    damage the file must gain nothing by it."""
    return Counters(failures=rules.failures + 32, remaining_s=rules.lockout_cap_s)


def check_actuator(driver: str, liveness: str) -> None:
    """Raises ConfigError when a lock driver may not be driven: without a passed liveness check a
    photograph unlocks, so only "log" is allowed."""
    if driver != "log" and liveness != "passed":
        raise ConfigError(
            f"lock driver {driver!r} needs liveness, which is {liveness}; set the driver to 'log'"
        )
