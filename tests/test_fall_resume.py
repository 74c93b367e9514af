"""After a restart the further record wins, and what the log lacks is told again."""

from __future__ import annotations

import pytest

from edge_rt.core.fall_resume import Plan, Stage, plan
from edge_rt.core.fall_table import State

S, P, A, C, R = "suspected", "prealarm", "alarm", "cancelled", "resolved"


def log(*stages: str) -> list[Stage]:
    """ "alarm a" -> that stage of incident a."""
    return [Stage(*stage.split()) for stage in stages]


@pytest.mark.parametrize(
    ("state", "incident", "stages", "expected"),
    [
        # nothing at hand by the file
        (State.MONITORING, None, log(), Plan()),
        (State.MONITORING, None, log("suspected a"), Plan()),
        (State.MONITORING, None, log("alarm a", "resolved a"), Plan()),
        (State.MONITORING, None, log("prealarm a", "alarm a"), Plan(adopt=(State.ALARM, "a"))),
        (State.MONITORING, None, log("prealarm a"), Plan(adopt=(State.PREALARM, "a"))),
        (State.DISARMED, None, log("alarm a"), Plan(adopt=(State.ALARM, "a"))),
        # both agree
        (State.PREALARM, "a", log("suspected a", "prealarm a"), Plan()),
        (State.ALARM, "a", log("prealarm a", "alarm a"), Plan()),
        (State.RESOLVED, "a", log("alarm a", "resolved a"), Plan()),
        (State.CANCELLED, "a", log("prealarm a", "cancelled a"), Plan()),
        # the log is further along
        (State.SUSPECTED, "a", log("suspected a", "prealarm a"), Plan(adopt=(State.PREALARM, "a"))),
        (State.PREALARM, "a", log("prealarm a", "alarm a"), Plan(adopt=(State.ALARM, "a"))),
        (State.ALARM, "a", log("alarm a", "resolved a"), Plan(reset=True)),
        (State.PREALARM, "a", log("prealarm a", "cancelled a"), Plan(reset=True)),
        # the file is further along
        (State.ALARM, "a", log("prealarm a"), Plan(tell=A)),
        (State.ALARM, "a", log(), Plan(tell=A)),
        (State.PREALARM, "a", log("suspected a"), Plan(tell=P)),
        (State.RESOLVED, "a", log("alarm a"), Plan(tell=R)),
        (State.ALARM, "b", log("alarm a", "resolved a"), Plan(tell=A)),
        # the file is of an incident before the log's last one
        (
            State.RESOLVED,
            "a",
            log("alarm a", "resolved a", "suspected b", "prealarm b"),
            Plan(adopt=(State.PREALARM, "b")),
        ),
        (
            State.ALARM,
            "a",
            log("alarm a", "resolved a", "alarm b"),
            Plan(adopt=(State.ALARM, "b")),
        ),
        (State.CANCELLED, "a", log("prealarm a", "cancelled a", "suspected b"), Plan()),
        (State.RESOLVED, "a", log("alarm a", "alarm b"), Plan(adopt=(State.ALARM, "b"))),
        # somebody called for help while the machine hung in another incident
        (State.SUSPECTED, "a", log("suspected a", "alarm b"), Plan(adopt=(State.ALARM, "b"))),
        (State.SUSPECTED, "a", log("alarm b"), Plan(adopt=(State.ALARM, "b"))),
        (State.PREALARM, "a", log("prealarm a", "alarm b"), Plan(adopt=(State.ALARM, "b"))),
        (State.MONITORING, None, log("alarm b", "suspected c"), Plan(adopt=(State.ALARM, "b"))),
        # it was looked after, or is not more urgent than what is at hand
        (State.SUSPECTED, "a", log("suspected a", "alarm b", "resolved b"), Plan()),
        (State.PREALARM, "a", log("prealarm a", "prealarm b", "cancelled b"), Plan()),
        (State.ALARM, "a", log("alarm b", "alarm a"), Plan()),
        (State.ALARM, "a", log("alarm a", "prealarm b"), Plan()),
        (State.MONITORING, None, log("prealarm a", "alarm b", "resolved b"), Plan()),
    ],
)
def test_the_further_record_wins(
    state: State, incident: str | None, stages: list[Stage], expected: Plan
) -> None:
    assert plan(state, incident, stages) == expected
