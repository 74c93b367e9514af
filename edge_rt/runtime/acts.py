"""How wishes come true: a line that follows a pattern, a lock's pulse, a program."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping

from edge_rt.adapters import command
from edge_rt.core.errors import HardwareError
from edge_rt.core.pin_config import CommandLock, CommandSiren, GpioLock
from edge_rt.core.pins import NEVER, Chip, Level, OutputLine, Pattern, Pulse, level_at
from edge_rt.runtime.output import Wish

log = logging.getLogger(__name__)

AGAIN_S = 1.0  # between two runs of an alarm's program
LATE_S = 1.0  # a pulse that its thread comes to later than this is not given
OVERDUE_S = 0.5  # a lock that is open longer than its pulse by so much is closed by the guard
BRIEF_S = 2.0  # a program that is only to be heard, or to hush


class Line:
    """A line that is opened when it is first used, and anew after it has failed."""

    def __init__(self, chip: Callable[[], Chip], line: int, active_low: bool, user: str) -> None:
        def make() -> OutputLine:
            return chip().output(line, active_low, user)

        self._open, self._user = make, user
        self._line: OutputLine | None = None
        self._on = False
        self._lost = False  # given up while it may have been active

    def set(self, on: bool) -> None:
        """Raises HardwareError."""
        if self._line is None:
            self._line, self._on = self._open(), False
            self._lost = False
        if on == self._on:
            return
        try:
            self._line.set(on)
        except HardwareError:
            broken, self._line = self._line, None
            self._lost = not _give_up(broken)
            raise
        self._on = on

    def force_off(self) -> None:
        """From another thread: inactive, whatever its own thread is at. Raises HardwareError."""
        line = self._line
        if line is not None:
            line.set(False)

    def close(self) -> None:
        """Inactive, and given back. Raises HardwareError."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        elif self._lost:
            raise HardwareError(f"{self._user}: its line was lost; switch its power off")


class PatternAct:
    """A line that shows a pattern for each wish, from the moment of the wish on.

    limits  wish -> seconds since it was last asked for, after which the line rests all the same; 0
            is no limit
    """

    def __init__(
        self, line: Line, patterns: Mapping[str, Pattern], limits: Mapping[str, float] | None = None
    ) -> None:
        self._line, self._patterns, self._limits = line, patterns, limits or {}

    def step(self, wish: Wish, now_s: float, changed: threading.Event) -> float:
        """Set the line to the level of this moment."""
        pattern, elapsed_s = self._patterns[wish.what], now_s - wish.since_s
        asked_s = max(wish.since_s, wish.renewed_s)
        left_s = (self._limits.get(wish.what) or math.inf) - (now_s - asked_s)
        level = level_at(pattern if left_s > 0.0 else NEVER, max(elapsed_s, 0.0))
        self._line.set(level.on)
        return min(level.for_s, left_s) if left_s > 0.0 else math.inf

    def guard(self, now_s: float) -> None:
        """A pattern may last."""

    def stop(self) -> None:
        """Its steps are short, or end with the next wish."""

    def close(self) -> None:
        """Inactive."""
        self._line.close()


class PulseAct:
    """A lock's line: each wish is one pulse."""

    def __init__(self, line: Line, config: GpioLock, monotonic: Callable[[], float]) -> None:
        self._line, self._monotonic = line, monotonic
        self._pulse = Pulse(config.pulse_s)
        self._taken = 0
        self._until_s = math.inf  # when the guard closes it

    def step(self, wish: Wish, now_s: float, changed: threading.Event) -> float:
        """Open and close in time. A wish that could not be carried out at once is forgotten: a
        door does not open by itself later."""
        if wish.number != self._taken:
            self._taken = wish.number
            if now_s - wish.since_s <= LATE_S:
                self._pulse.ask(now_s)
        level: Level = self._pulse.level(now_s)
        if level.on:
            self._until_s = min(self._until_s, now_s + level.for_s + OVERDUE_S)
        try:
            self._line.set(level.on)
        except HardwareError:
            # Given up, and inactive from when it can be opened again.
            self._pulse, self._until_s = Pulse(self._pulse.pulse_s), math.inf
            raise
        if not level.on:
            self._until_s = math.inf
            return math.inf
        # What it took to set the line is no reason to leave it open longer.
        return max(0.0, level.for_s - (self._monotonic() - now_s))

    def guard(self, now_s: float) -> None:
        """Close a door that its own thread has left open. Raises HardwareError."""
        if now_s > self._until_s:
            log.critical("lock: open for too long; closing it past its own thread")
            self._until_s = now_s + OVERDUE_S
            self._line.force_off()

    def stop(self) -> None:
        """Its steps are short, or end with the next wish."""

    def close(self) -> None:
        """Locked."""
        self._line.close()


class SirenProgram:
    """A siren made of programs."""

    def __init__(self, config: CommandSiren) -> None:
        self._config = config
        self._ended = -1

    def step(self, wish: Wish, now_s: float, changed: threading.Event) -> float:
        """Run the stage's program to its end, its limit or another wish."""
        if wish.number == self._ended:
            return math.inf
        config = self._config
        argv = {
            "prealarm": config.prealarm,
            "alarm": config.alarm,
            "silent": config.silence,
            "notice": config.prealarm,
            "test": config.prealarm,
        }[wish.what]
        brief = wish.what in ("notice", "test")
        try:
            if argv:
                _run(argv, BRIEF_S if brief else config.limit_s, changed)
        finally:
            # A siren of its own power goes on when its program has ended; a stage that comes now
            # takes it over as it is.
            if brief and config.silence and not changed.is_set():
                _run(config.silence, BRIEF_S, changed)
        if wish.what == "alarm":
            return AGAIN_S
        self._ended = wish.number
        return math.inf

    def guard(self, now_s: float) -> None:
        """Programs end at their limit."""

    def stop(self) -> None:
        """A program ends with the next wish, or this one."""

    def close(self) -> None:
        """Silent: what ran has ended; a siren of its own power is told so."""
        if self._config.silence:
            _run(self._config.silence, BRIEF_S, threading.Event())


class LockProgram:
    """A lock opened by a program, once for each wish; one that comes while it runs is not added."""

    def __init__(self, config: CommandLock, monotonic: Callable[[], float]) -> None:
        self._config, self._monotonic = config, monotonic
        self._taken = 0
        self._free_s = -math.inf  # when the program last ended
        self._closing = threading.Event()

    def step(self, wish: Wish, now_s: float, changed: threading.Event) -> float:
        """Run it once for a new wish. As with PulseAct, a door does not open by itself later."""
        if wish.number == self._taken:
            return math.inf
        self._taken = wish.number
        if wish.since_s >= self._free_s and now_s - wish.since_s <= LATE_S:
            try:
                _run(self._config.pulse, self._config.limit_s, self._closing)
            finally:
                self._free_s = self._monotonic()
        return math.inf

    def guard(self, now_s: float) -> None:
        """Programs end at their limit."""

    def stop(self) -> None:
        """The program is ended, not waited for."""
        self._closing.set()

    def close(self) -> None:
        """The program has ended; whether the door is locked is its own to see to."""


def _run(argv: tuple[str, ...], limit_s: float, enough: threading.Event) -> None:
    code = command.run(argv, limit_s, enough)
    if code:
        raise HardwareError(f"{argv[0]} ended with code {code}; try it by hand")


def _give_up(line: OutputLine) -> bool:
    """Whether it is inactive now."""
    try:
        line.close()
    except HardwareError as error:  # its first failure is what is told
        log.debug("a broken line did not close: %s", error)
        return False
    return True
