"""What acts in the room: the siren and the lock, chosen by name in the config."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from edge_rt.core.pin_config import (
    CommandLock,
    CommandSiren,
    GpioLed,
    GpioLock,
    GpioSiren,
    LogActuator,
    NoOutput,
)
from edge_rt.core.pins import LED, SIREN, Chip
from edge_rt.runtime.acts import Line, LockProgram, PatternAct, PulseAct, SirenProgram
from edge_rt.runtime.output import Output

log = logging.getLogger(__name__)

MakeChip = Callable[[], Chip]


class Siren(Protocol):
    """Sounds until told to stop, or a limit. Commands may repeat, and return at once."""

    name: str

    def sound(self, stage: str) -> None:
        """stage: "prealarm" (asks the wearer) or "alarm" (calls for help). Each call is a cause of
        its own: a limit begins anew."""
        ...

    def silence(self) -> None: ...

    def notice(self) -> None:
        """One short sound: something is about to be done from afar. A stage that sounds goes on
        sounding; returns at once."""
        ...


class Lock(Protocol):
    """Opens for one bounded moment; returns at once."""

    name: str

    def pulse(self) -> None: ...


class LogSiren:
    """Writes what a siren would do to the service log."""

    name = "log"

    def sound(self, stage: str) -> None:
        log.warning("siren: sounding (%s)", stage)

    def silence(self) -> None:
        log.warning("siren: silent")

    def notice(self) -> None:
        log.warning("siren: notice")


class LogLock:
    """Writes what a lock would do to the service log."""

    name = "log"

    def pulse(self) -> None:
        log.warning("lock: would open now")


class OutputSiren:
    """A siren with a thread of its own.

    limited  it falls silent by itself; else it sounds on, and another cause changes nothing
    """

    def __init__(self, name: str, output: Output, limited: bool) -> None:
        self.name, self.output, self._limited = name, output, limited

    def sound(self, stage: str) -> None:
        self.output.wish(stage)
        if self._limited:
            self.output.renew()

    def silence(self) -> None:
        self.output.wish("silent")

    def notice(self) -> None:
        if self.output.wanted() not in ("prealarm", "alarm"):
            self.output.wish("notice", again=True)


class OutputLock:
    """A lock with a thread of its own."""

    def __init__(self, name: str, output: Output) -> None:
        self.name, self.output = name, output

    def pulse(self) -> None:
        self.output.wish("open", again=True)


def make_siren(
    config: LogActuator | GpioSiren | CommandSiren, chip: MakeChip
) -> LogSiren | OutputSiren:
    """The siren that the config names, not started."""
    if isinstance(config, GpioSiren):
        line = Line(chip, config.line, config.active_low, "siren")
        act = PatternAct(line, SIREN, {"alarm": config.limit_s})
        output = Output("siren", act, "silent", time.monotonic)
        return OutputSiren("gpio", output, limited=config.limit_s > 0.0)
    if isinstance(config, CommandSiren):
        programs = Output("siren", SirenProgram(config), "silent", time.monotonic, config.limit_s)
        # An alarm's program is run again and again; a second cause starts no second one.
        return OutputSiren("command", programs, limited=False)
    return LogSiren()


def make_lock(config: LogActuator | GpioLock | CommandLock, chip: MakeChip) -> LogLock | OutputLock:
    """The lock that the config names, not started."""
    if isinstance(config, GpioLock):
        line = Line(chip, config.line, config.active_low, "lock")
        act = PulseAct(line, config, time.monotonic)
        return OutputLock("gpio", Output("lock", act, "closed", time.monotonic))
    if isinstance(config, CommandLock):
        program = Output(
            "lock", LockProgram(config, time.monotonic), "closed", time.monotonic, config.limit_s
        )
        return OutputLock("command", program)
    return LogLock()


def make_led(config: NoOutput | GpioLed, chip: MakeChip) -> Output | None:
    """The status LED, not started; None without one."""
    if isinstance(config, GpioLed):
        line = Line(chip, config.line, config.active_low, "led")
        return Output("led", PatternAct(line, LED), "off", time.monotonic)
    return None
