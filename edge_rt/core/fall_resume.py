"""After a restart: which of two records of the last incident is right, the saved state or the log?

The alarm machine's state is saved beside the event log, not in one transaction with it, so a kill
may leave either behind. Whichever is further along tells the truth; what the log lacks is told
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edge_rt.core.fall_table import ANNOUNCED, State

# How far along a stage is. An incident only ever moves up.
RANK = {"suspected": 1, "prealarm": 2, "alarm": 3, "cancelled": 4, "resolved": 4}
_OPEN = {"prealarm": State.PREALARM, "alarm": State.ALARM}
_ENDED = 4


class Stage(NamedTuple):
    """A fall event of the log: its `what` and its incident."""

    what: str
    incident: str


class Plan(NamedTuple):
    """What to do with a machine that was restored from its saved state.

    adopt  go to this state with this incident instead: the log is further along, or knows of an
           incident that is more urgent
    reset  the saved incident has ended, by the log: nothing is at hand
    tell   announce this stage of the saved incident: the log does not have it
    """

    adopt: tuple[State, str] | None = None
    reset: bool = False
    tell: str | None = None


def plan(state: State, incident: str | None, stages: Sequence[Stage]) -> Plan:
    """state, incident: as saved; stages: the newest of the log, oldest first."""
    # A suspicion that calms down leaves no stage. It may have come after an alarm: a call for help
    # is answered beside the machine while that hangs.
    others = [s for s in stages if s.incident != incident and s.what != "suspected"]
    other = others[-1] if others else None
    if incident is None:
        return _adopt(other) or Plan()
    mine = RANK[ANNOUNCED[state]]
    own = max((stage for stage in stages if stage.incident == incident), key=_rank, default=None)
    theirs = _rank(own) if own is not None else 0
    ended = mine == _ENDED or theirs == _ENDED
    more_urgent = other is not None and (ended or _rank(other) > max(mine, theirs))
    if more_urgent and (adopted := _adopt(other)):
        return adopted
    if mine > theirs:
        return Plan(tell=ANNOUNCED[state])
    if ended:
        return Plan(reset=mine < theirs)
    return (_adopt(own) if theirs > mine else None) or Plan()


def _rank(stage: Stage) -> int:
    return RANK[stage.what]


def _adopt(stage: Stage | None) -> Plan | None:
    if stage is None or stage.what not in _OPEN:
        return None
    return Plan(adopt=(_OPEN[stage.what], stage.incident))
