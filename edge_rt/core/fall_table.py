"""States, events and the transition table of the fall alarm: the whole behaviour on one screen.

python -m edge_rt.core.fall_table        prints the table as Markdown
"""

from __future__ import annotations

from enum import StrEnum

from edge_rt.core.errors import DaemonError


class State(StrEnum):
    """Where the alarm machine is."""

    DISARMED = "disarmed"
    MONITORING = "monitoring"
    SUSPECTED = "suspected"
    PREALARM = "prealarm"
    ALARM = "alarm"
    CANCELLED = "cancelled"
    RESOLVED = "resolved"


class Event(StrEnum):
    """What moves it: evidence, time and commands."""

    SUSPECT = "suspect"  # an impact, or a score near the threshold
    CALM = "calm"  # the suspicion came to nothing
    FALL = "fall"  # mean score rose to the threshold
    TIMEOUT = "timeout"  # the cancel window ran out
    STILL = "still"  # lying still: the rest of the cancel window is not waited for
    RECOVERED = "recovered"  # upright and walking again, and the profile lets that cancel
    CLEAR = "clear"  # the old event has left the window: a new one may alarm
    CANCEL = "cancel"
    RESOLVE = "resolve"
    HELP = "help_now"
    ARM = "arm"
    DISARM = "disarm"


# Why some entries are missing on purpose: an open incident (pre-alarm, alarm) cannot be disarmed
# away; an alarm ends only by resolve. Why some stay in place: commands may arrive twice, and must
# then be harmless; a second fall joins the incident that is open.
TABLE: dict[State, dict[Event, State]] = {
    State.DISARMED: {
        Event.ARM: State.MONITORING,
        Event.DISARM: State.DISARMED,
        Event.HELP: State.ALARM,
    },
    State.MONITORING: {
        Event.SUSPECT: State.SUSPECTED,
        Event.ARM: State.MONITORING,
        Event.DISARM: State.DISARMED,
        Event.HELP: State.ALARM,
    },
    State.SUSPECTED: {
        Event.FALL: State.PREALARM,
        Event.CALM: State.MONITORING,
        Event.ARM: State.SUSPECTED,
        Event.DISARM: State.DISARMED,
        Event.HELP: State.ALARM,
    },
    State.PREALARM: {
        Event.FALL: State.PREALARM,
        Event.TIMEOUT: State.ALARM,
        Event.STILL: State.ALARM,
        Event.RECOVERED: State.CANCELLED,
        Event.CANCEL: State.CANCELLED,
        Event.ARM: State.PREALARM,
        Event.HELP: State.ALARM,
    },
    State.ALARM: {
        Event.FALL: State.ALARM,
        Event.RESOLVE: State.RESOLVED,
        Event.ARM: State.ALARM,
        Event.HELP: State.ALARM,
    },
    State.CANCELLED: {
        Event.CLEAR: State.MONITORING,
        Event.CANCEL: State.CANCELLED,
        Event.ARM: State.CANCELLED,
        Event.DISARM: State.DISARMED,
        Event.HELP: State.ALARM,
    },
    State.RESOLVED: {
        Event.CLEAR: State.MONITORING,
        Event.RESOLVE: State.RESOLVED,
        Event.ARM: State.RESOLVED,
        Event.DISARM: State.DISARMED,
        Event.HELP: State.ALARM,
    },
}

# The stages that are announced as `edge_rt.fall.<what>` when they are entered.
ANNOUNCED: dict[State, str] = {
    State.SUSPECTED: "suspected",
    State.PREALARM: "prealarm",
    State.ALARM: "alarm",
    State.CANCELLED: "cancelled",
    State.RESOLVED: "resolved",
}

# An incident is open here: neither sensor loss, nor a restart, nor disarming may drop it.
OPEN = frozenset({State.PREALARM, State.ALARM})


# What a person may tell it, and how things stand, in words for that person.
_COMMANDS = {
    Event.CANCEL: "cancel",
    Event.RESOLVE: "resolve",
    Event.ARM: "arm",
    Event.DISARM: "disarm",
    Event.HELP: "call for help",
}
_SITUATIONS = {
    State.DISARMED: "it is disarmed",
    State.MONITORING: "there is no fall",
    State.SUSPECTED: "an impact is only suspected",
    State.PREALARM: "a pre-alarm is running",
    State.ALARM: "the alarm is out",
    State.CANCELLED: "the pre-alarm was cancelled",
    State.RESOLVED: "the alarm was resolved",
}


class WrongState(DaemonError):
    """The table has no entry for this event in this state; the message says what would do."""

    def __init__(self, state: State, event: Event) -> None:
        row = TABLE[state]
        possible = [word for told, word in _COMMANDS.items() if row.get(told, state) is not state]
        super().__init__(
            f"fall alarm: cannot {_COMMANDS.get(event, event)}: {_SITUATIONS[state]};"
            f" you can {' or '.join(possible)}"
        )
        self.state = state
        self.event = event


def following(state: State, event: Event) -> State:
    """The state that `event` leads to. WrongState: the table has no such entry."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise WrongState(state, event) from None


def markdown() -> str:
    """The table as Markdown, states down and events across, for the documents."""
    lines = ["| | " + " | ".join(Event) + " |", "|---" * (len(Event) + 1) + "|"]
    for state, row in TABLE.items():
        cells = (row[event].value if event in row else "" for event in Event)
        lines.append(f"| **{state}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
