"""Pins as pure logic: flashes and sounds as a table, the pulse of a lock, buttons and gestures.

Nothing here knows a clock or a chip: times are arguments, levels are True for active.

    python -m edge_rt.core.pins        prints the tables as Markdown
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

# ---- what a line does over time ----


class Step(NamedTuple):
    """Active or not, for so long."""

    on: bool
    for_s: float


Pattern = tuple[Step, ...]  # repeated until something else is to be shown


def _on(seconds: float) -> Step:
    return Step(True, seconds)


def _off(seconds: float) -> Step:
    return Step(False, seconds)


ALWAYS, NEVER = (_on(math.inf),), (_off(math.inf),)

# What the wearer hears. A pre-alarm asks, and leaves room for an answer; an alarm is heard through
# a closed door.
SIREN: Mapping[str, Pattern] = {
    "silent": NEVER,
    "prealarm": (_on(0.2), _off(0.8)),
    "alarm": (_on(0.8), _off(0.2)),
    "notice": (_on(0.3), _off(math.inf)),
    "test": (_on(0.1), _off(0.2), _on(0.1), _off(math.inf)),
}

# What the LED says. Never steadily lit or dark: a light that changes is one that somebody drives.
LED: Mapping[str, Pattern] = {
    "ok": (_on(0.05), _off(2.95)),
    "problem": (_on(0.1), _off(0.2), _on(0.1), _off(1.6)),
    "prealarm": (_on(0.25), _off(0.25)),
    "alarm": (_on(0.08), _off(0.08)),
    "test": (_on(0.5), _off(0.5)),
    "off": NEVER,
}


class Level(NamedTuple):
    """What a line should be now, and in how many seconds to look again (infinity: never)."""

    on: bool
    for_s: float


def level_at(pattern: Pattern, elapsed_s: float) -> Level:
    """The level of a pattern that began so long ago."""
    whole_s = sum(step.for_s for step in pattern)
    left_s = elapsed_s % whole_s if math.isfinite(whole_s) else elapsed_s
    for step in pattern:
        if left_s < step.for_s:
            return Level(step.on, step.for_s - left_s)
        left_s -= step.for_s
    return Level(pattern[-1].on, 0.0)  # rounding at the very end: look again at once


class Pulse:
    """A lock's one bounded moment. Asked for again while it is open, it does not stay open longer:
    whatever asks, the door is never open for more than `pulse_s` at a time."""

    def __init__(self, pulse_s: float) -> None:
        self.pulse_s = pulse_s
        self._until_s = -math.inf

    def ask(self, now_s: float) -> bool:
        """Open from now on; False if it is open already."""
        if now_s < self._until_s:
            return False
        self._until_s = now_s + self.pulse_s
        return True

    def level(self, now_s: float) -> Level:
        """Active until the moment is over."""
        left_s = self._until_s - now_s
        return Level(True, left_s) if left_s > 0.0 else Level(False, math.inf)


# ---- buttons ----


class Edge(NamedTuple):
    """A line has changed: to which level, when (monotonic seconds)."""

    on: bool
    t_s: float


class Debouncer:
    """A level counts once it has lasted `quiet_s`.

    Edges may be lost in a burst; the level that is read now and then mends that.
    """

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._raw: bool | None = None
        self._raw_s = 0.0
        self._settled: bool | None = None

    def see(self, on: bool, t_s: float) -> list[tuple[bool, float]]:
        """A level, by an edge or by reading; what has settled by then: (level, since when)."""
        found = self.settle(t_s)
        if on != self._raw:
            self._raw, self._raw_s = on, t_s
        return found

    def settle(self, now_s: float) -> list[tuple[bool, float]]:
        """What time alone has settled."""
        if self._raw is None or self._raw == self._settled:
            return []
        if now_s - self._raw_s < self._quiet_s:
            return []
        self._settled = self._raw
        return [(self._raw, self._raw_s)]

    def wait_s(self, now_s: float) -> float:
        """Until something may settle; infinity when nothing is about to."""
        if self._raw is None or self._raw == self._settled:
            return math.inf
        return max(0.0, self._raw_s + self._quiet_s - now_s)


CHATTER_S = 2.0  # no finger and no contact that bounces takes so long to come to rest
CALM_S = 2.0  # without an edge for so long it has


class Chatter:
    """Whether a contact has edges on and on, without ever coming to rest between two of them."""

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._raw: bool | None = None
        self._begun_s = self._edge_s = -math.inf
        self.on = False

    def see(self, on: bool, t_s: float) -> None:
        """A level, by an edge or by reading."""
        if on != self._raw:
            if t_s - self._edge_s > self._quiet_s:
                self._begun_s = t_s
            self._raw, self._edge_s = on, t_s

    def changed(self, now_s: float) -> bool:
        """Whether it has begun or ended, told once."""
        before = self.on
        if before:
            self.on = now_s - self._edge_s < CALM_S
        else:
            self.on = self._edge_s - self._begun_s >= CHATTER_S
        return self.on != before


class Hand(StrEnum):
    """What a finger is doing."""

    UNKNOWN = "unknown"  # not seen yet
    FOUND = "found"  # down when the watch began
    AWAY = "away"
    DOWN = "down"
    HELD = "held"
    STUCK = "stuck"


class Move(StrEnum):
    UP = "up"
    DOWN = "down"
    LONG = "long"  # down for hold_s
    ENDLESS = "endless"  # down for STUCK_S


class Gesture(StrEnum):
    """What a person meant; the others are about the button."""

    PRESS = "press"
    LATE = "late"  # let go, and pressed while nobody watched; a jammed button is not let go
    HOLD = "hold"
    STUCK = "stuck"
    FREED = "freed"
    CHATTER = "chatter"
    CALM = "calm"


STUCK_S = 30.0  # nobody presses for so long: it is jammed, or its cable is pinched

# state -> move -> (next state, gesture). A press counts when it begins: who needs help does not
# wait for their own finger. A missing entry changes nothing: a level may be told twice.
HANDS: Mapping[Hand, Mapping[Move, tuple[Hand, Gesture | None]]] = {
    Hand.UNKNOWN: {
        Move.UP: (Hand.AWAY, None),
        Move.DOWN: (Hand.FOUND, None),
    },
    Hand.FOUND: {
        Move.UP: (Hand.AWAY, Gesture.LATE),
        Move.ENDLESS: (Hand.STUCK, Gesture.STUCK),
    },
    Hand.AWAY: {Move.DOWN: (Hand.DOWN, Gesture.PRESS)},
    Hand.DOWN: {
        Move.UP: (Hand.AWAY, None),
        Move.LONG: (Hand.HELD, Gesture.HOLD),
    },
    Hand.HELD: {
        Move.UP: (Hand.AWAY, None),
        Move.ENDLESS: (Hand.STUCK, Gesture.STUCK),
    },
    Hand.STUCK: {Move.UP: (Hand.AWAY, Gesture.FREED)},
}

# button -> gesture -> command of the control table. Cancelling is one press, closing an alarm takes
# intent: a carer who stands there holds the button. Help is never made harder than one press, and
# one that met a restart counts too; what it would cancel nobody can know, so that does not.
MEANINGS: Mapping[str, Mapping[Gesture, str]] = {
    "cancel": {Gesture.PRESS: "cancel", Gesture.HOLD: "resolve"},
    "help": {Gesture.PRESS: "help_now", Gesture.LATE: "help_now"},
}


class Button:
    """Levels in, gestures out."""

    def __init__(self, debounce_s: float, hold_s: float) -> None:
        self.hand = Hand.UNKNOWN
        self._bounce = Debouncer(debounce_s)
        self._chatter = Chatter(debounce_s)
        self._hold_s = hold_s
        self._down_s: float | None = None

    def see(self, on: bool, t_s: float) -> list[Gesture]:
        """The line has this level, by an edge or by reading."""
        self._chatter.see(on, t_s)
        return self._levels(self._bounce.see(on, t_s))

    def tick(self, now_s: float) -> list[Gesture]:
        """What time alone brings: a level that settled, a press that became long or endless."""
        found = self._levels(self._bounce.settle(now_s))
        for move, after_s in ((Move.LONG, self._hold_s), (Move.ENDLESS, STUCK_S)):
            if self._down_s is not None and now_s - self._down_s >= after_s:
                found += self._move(move)
        if self._chatter.changed(now_s):
            found.append(Gesture.CHATTER if self._chatter.on else Gesture.CALM)
        return found

    @property
    def faulty(self) -> bool:
        """Whether it is stuck, or its contact chatters."""
        return self.hand is Hand.STUCK or self._chatter.on

    def wait_s(self, now_s: float) -> float:
        """Until `tick` may have something to tell; infinity when only an edge can."""
        waits = [self._bounce.wait_s(now_s)]
        if self._down_s is not None:
            held_s = now_s - self._down_s
            waits += [after - held_s for after in (self._hold_s, STUCK_S) if after > held_s]
        return max(0.0, min(waits))

    def _levels(self, settled: Iterable[tuple[bool, float]]) -> list[Gesture]:
        found: list[Gesture] = []
        for on, since_s in settled:
            self._down_s = since_s if on else None
            found += self._move(Move.DOWN if on else Move.UP)
        return found

    def _move(self, move: Move) -> list[Gesture]:
        self.hand, gesture = HANDS[self.hand].get(move, (self.hand, None))
        return [gesture] if gesture is not None else []


# ---- the chip ----


class OutputLine(Protocol):
    """One output, inactive from the moment it is opened. All raise HardwareError."""

    def set(self, on: bool) -> None: ...

    def close(self) -> None:
        """Make it inactive and give it back."""
        ...


class InputSettings(Protocol):
    """Of core.pin_config.GpioButton."""

    @property
    def line(self) -> int: ...
    @property
    def active_low(self) -> bool: ...
    @property
    def bias(self) -> str: ...


class InputLine(Protocol):
    """One input. All raise HardwareError."""

    def level(self) -> bool:
        """Whether it is active, read now."""
        ...

    def edges(self, timeout_s: float) -> list[Edge]:
        """Changes in their order; empty if none came in time."""
        ...

    def close(self) -> None: ...


class Chip(Protocol):
    """Something with lines; user: what a line is for. Both raise HardwareError with the remedy."""

    def output(self, line: int, active_low: bool, user: str) -> OutputLine: ...

    def input(self, settings: InputSettings, user: str) -> InputLine: ...


def markdown() -> str:
    """The patterns and the meanings, for the documents."""
    lines = []
    for title, patterns in (("LED", LED), ("siren", SIREN)):
        lines += [f"| {title} | seconds on / off, over and over |", "|---|---|"]
        lines += [f"| {name} | {_text(pattern)} |" for name, pattern in patterns.items()]
        lines.append("")
    lines += ["| button | gesture | command |", "|---|---|---|"]
    for button, meanings in MEANINGS.items():
        lines += [f"| {button} | {gesture} | {command} |" for gesture, command in meanings.items()]
    return "\n".join(lines)


def _text(pattern: Pattern) -> str:
    return ", ".join(
        f"{'on' if step.on else 'off'}{f' {step.for_s:g}' if math.isfinite(step.for_s) else ''}"
        for step in pattern
    )


if __name__ == "__main__":
    print(markdown())
