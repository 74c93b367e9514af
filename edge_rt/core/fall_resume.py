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
_RANK = {"suspected": 1, "prealarm": 2, "alarm": 3, "cancelled": 4, "resolved": 4}
_OPEN = {"prealarm": State.PREALARM, "alarm": State.ALARM}
_ENDED = 4


class Stage(NamedTuple):
    """A fall event of the log: its `what` and its incident."""

    what: str
    incident: str


class Plan(NamedTuple):
    """What to do with a machine that was restored from its saved state.

    adopt  go to this state with this incident instead: the log is further along
    reset  the saved incident has ended, by the log: nothing is at hand
    tell   announce this stage of the saved incident: the log does not have it
    """

    adopt: tuple[State, str] | None = None
    reset: bool = False
    tell: str | None = None


def plan(state: State, incident: str | None, stages: Sequence[Stage]) -> Plan:
    """state, incident: as saved; stages: the newest of the log, oldest first."""
    newest = stages[-1] if stages else None
    other = newest if newest is not None and newest.incident != incident else None
    if incident is None:
        return _adopt(other) or Plan()
    mine = _RANK[ANNOUNCED[state]]
    own = max((stage for stage in stages if stage.incident == incident), key=_rank, default=None)
    theirs = _rank(own) if own is not None else 0
    if mine > theirs:
        return Plan(tell=ANNOUNCED[state])
    if theirs == _ENDED or mine == _ENDED:
        return _adopt(other) or Plan(reset=mine < theirs)
    return (_adopt(own) if theirs > mine else None) or Plan()


def _rank(stage: Stage) -> int:
    return _RANK[stage.what]


def _adopt(stage: Stage | None) -> Plan | None:
    if stage is None or stage.what not in _OPEN:
        return None
    return Plan(adopt=(_OPEN[stage.what], stage.incident))
