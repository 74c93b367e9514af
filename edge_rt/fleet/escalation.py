"""Who is told of what, and when: a pure function of what is open, what was said and the time.

All times are Unix seconds of the receiver's clock: the only one that outlives its restart. A clock
that jumps ahead tells early, one that jumps back tells late by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple

from msgspec import Meta

from edge_rt.core.manifest import Struct

# After a failed try; the last one again and again: a service that was down all night is asked
# 12 times an hour, which none of them minds.
RETRY_S = (5.0, 15.0, 60.0, 300.0)
# That it is over is worth less than that it began: 10 tries are half an hour.
CLOSING_TRIES = 10


class Kind(StrEnum):
    """What a person may be told of."""

    ALARM = "alarm"
    PREALARM = "prealarm"
    SILENT = "silent"  # a device that the broker, or everybody, has lost
    BLIND = "blind"  # this receiver has no broker: nothing can arrive
    GAP = "gap"  # events that were sent and never came


# Most urgent first; of the kinds with an end that is worth telling, those who heard hear that too.
URGENCY = tuple(Kind)
TELLS_END = frozenset((Kind.ALARM, Kind.PREALARM, Kind.SILENT, Kind.BLIND))

Seconds = Annotated[float, Meta(ge=0, le=7 * 86400)]


class Person(Struct, frozen=True):
    """One entry of the escalation list.

    urls     apprise URLs, each a service of its own: https://github.com/caronc/apprise
    after_s  told so long after it began, if it is still open
    about    kinds; a pre-alarm only if it is named
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    urls: Annotated[tuple[Annotated[str, Meta(max_length=2048)], ...], Meta(min_length=1)]
    after_s: Seconds = 0.0
    about: tuple[Kind, ...] = (Kind.ALARM, Kind.SILENT, Kind.BLIND, Kind.GAP)


class Rules(Struct, frozen=True):
    """The [escalation] section.

    repeat_s        an alarm is told again so often until it is resolved or cancelled
    repeat_other_s  the same for everything else; 0: told once
    gap_after_s     an outage leaves gaps that close as the backlog comes: only older ones count
    blind_after_s   without a broker for so long
    timeout_s       a service that has not answered by then has failed; others never wait for it
    """

    repeat_s: Annotated[float, Meta(ge=30, le=86400)] = 600.0
    repeat_other_s: Annotated[float, Meta(ge=0, le=7 * 86400)] = 0.0
    gap_after_s: Annotated[float, Meta(ge=1, le=7 * 86400)] = 3600.0
    blind_after_s: Annotated[float, Meta(ge=1, le=86400)] = 120.0
    timeout_s: Annotated[float, Meta(ge=1, le=120)] = 20.0


class Matter(NamedTuple):
    """Something a person may have to look after.

    key      the same over restarts
    device   its name; empty for what concerns this receiver
    since_s  when it became known here
    what     for a person: "fall alarm at 2026-01-01T00:00:00.000Z"
    end      how it ended ("resolved"); empty while it is open
    """

    key: str
    kind: Kind
    device: str
    since_s: float
    what: str
    end: str = ""


class Told(NamedTuple):
    """What was last said about a matter to one person by one service.

    round    0 is the first time, 1 the first repeat
    closing  it was said that it is over
    done     the service took it
    due_s    when it is tried again, if it was not done
    """

    round: int
    closing: bool
    done: bool
    tries: int
    due_s: float
    error: str = ""


class Wanted(NamedTuple):
    """What is to be said now."""

    round: int
    closing: bool
    tries: int  # failed ones before


def wanted(
    matter: Matter, person: Person, told: Told | None, rules: Rules, now_s: float
) -> Wanted | None:
    """What this person has to hear now of this matter by one service; None if nothing.

    Rounds that passed while nobody could send are not made up for: one message says since when.
    """
    if matter.kind not in person.about:
        return None
    if matter.end:
        if told is None or matter.kind not in TELLS_END:
            return None
        fresh = not told.closing
        round_ = told.round
    else:
        elapsed_s = now_s - matter.since_s - person.after_s
        if elapsed_s < 0 and told is None:
            return None
        repeat_s = rules.repeat_s if matter.kind is Kind.ALARM else rules.repeat_other_s
        round_ = int(max(0.0, elapsed_s) // repeat_s) if repeat_s else 0
        fresh = told is None or round_ > told.round
        if told is not None:
            round_ = max(round_, told.round)  # a clock that went back repeats nothing
    if told is None or fresh:
        return Wanted(round_, bool(matter.end), 0)
    given_up = told.closing and told.tries >= CLOSING_TRIES
    if told.done or given_up or now_s < told.due_s:
        return None
    return Wanted(told.round, told.closing, told.tries)


def settled(matter: Matter, tolds: Sequence[Told]) -> bool:
    """Whether nothing more will be said of a matter that has ended."""
    if not matter.end:
        return False
    if matter.kind not in TELLS_END:
        return True
    return all(t.closing and (t.done or t.tries >= CLOSING_TRIES) for t in tolds)


def retry_s(tries: int) -> float:
    """How long to wait after so many failed tries (1 or more)."""
    return RETRY_S[min(tries, len(RETRY_S)) - 1]


def text(matter: Matter, closing: bool, now_s: float) -> tuple[str, str]:
    """Title and body of the message."""
    where = matter.device or "receiver"
    if closing:
        return f"{matter.kind.upper()} over: {where}", f"{where}: {matter.what}: {matter.end}."
    minutes = int(max(0.0, now_s - matter.since_s) // 60)
    still = f" Still open after {minutes} min." if minutes else ""
    return f"{matter.kind.upper()}: {where}", f"{where}: {matter.what}.{still}"
