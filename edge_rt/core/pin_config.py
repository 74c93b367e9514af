"""The configuration of what acts in the room and of what is pressed there."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_rt.core.manifest import Struct

# The kernel numbers the lines of one chip from 0; its own uAPI takes 64 in a request.
Line = Annotated[int, Meta(ge=0, le=1023)]
# A program and its arguments: fixed here, never put together from what happens.
Argv = Annotated[tuple[str, ...], Meta(min_length=1, max_length=32)]


class GpiodChip(Struct, tag_field="driver", tag="gpiod", frozen=True):
    """A chip of the kernel. chip: a path, or a label such as pinctrl-rp1; empty: the chip of a
    Raspberry Pi's header, whatever its number."""

    chip: str = ""


class ModelChip(Struct, tag_field="driver", tag="model", frozen=True):
    """A chip made of files, for boards without one: `folder`/17 holds 1 while line 17 is active;
    writing 1 or 0 into the file of an input presses or releases a button."""

    folder: str = "/run/edge-rt/pins"


# ---- outputs ----


class LogActuator(Struct, tag_field="driver", tag="log", frozen=True):
    """Writes what it would do to the service log: for trying out, and for locks without
    liveness."""


class NoOutput(Struct, tag_field="driver", tag="none", frozen=True):
    """There is none."""


class GpioSiren(Struct, tag_field="driver", tag="gpio", frozen=True):
    """A sounder that sounds while its line is active.

    active_low  of all outputs: active is 0 V. It needs a pull-up, or is on until the daemon runs
    limit_s     an alarm that nobody ends falls silent after so long, where a rule asks for that,
                until there is another cause; 0: it sounds until somebody ends it
    """

    line: Line
    active_low: bool = False
    limit_s: Annotated[float, Meta(ge=0, le=86400)] = 0.0


class GpioLock(Struct, tag_field="driver", tag="gpio", frozen=True):
    """A door strike that opens while its line is active, for pulse_s at a time."""

    line: Line
    active_low: bool = False
    pulse_s: Annotated[float, Meta(ge=0.1, le=10)] = 3.0


class GpioLed(Struct, tag_field="driver", tag="gpio", frozen=True):
    """A status LED; what its flashes mean is core.pins.LED."""

    line: Line
    active_low: bool = False


class CommandSiren(Struct, tag_field="driver", tag="command", frozen=True):
    """Programs that make a noise; the running one is ended when the stage changes.

    prealarm, alarm  program and arguments, the program by its full path
    silence          run when all is quiet again; may be left out
    limit_s          a program that runs longer is ended with all that it started; an alarm starts
                     it again, a pre-alarm does not outlast this
    """

    prealarm: Argv
    alarm: Argv
    silence: tuple[str, ...] = ()
    limit_s: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0


class CommandLock(Struct, tag_field="driver", tag="command", frozen=True):
    """A program that opens the door for one bounded moment; ended after limit_s."""

    pulse: Argv
    limit_s: Annotated[float, Meta(ge=0.1, le=60)] = 10.0


class OutputConfig(Struct, frozen=True):
    """What acts in the room."""

    siren: LogActuator | GpioSiren | CommandSiren = LogActuator()
    lock: LogActuator | GpioLock | CommandLock = LogActuator()
    led: NoOutput | GpioLed = NoOutput()


# ---- inputs ----


class NoInput(Struct, tag_field="driver", tag="none", frozen=True):
    """There is none."""


class GpioButton(Struct, tag_field="driver", tag="gpio", frozen=True):
    """A push button; as wired by default it pulls its line to ground.

    debounce_ms  contacts that bounce longer than this are worn
    hold_s       for the second meaning of the cancel button: see core.pins.MEANINGS
    """

    line: Line
    active_low: bool = True
    bias: Literal["pull_up", "pull_down", "disabled", "as_is"] = "pull_up"
    debounce_ms: Annotated[int, Meta(ge=1, le=200)] = 30
    hold_s: Annotated[float, Meta(ge=0.5, le=10)] = 3.0


class InputConfig(Struct, frozen=True):
    """What is pressed."""

    cancel: NoInput | GpioButton = NoInput()
    help: NoInput | GpioButton = NoInput()


def lines_of(outputs: OutputConfig, inputs: InputConfig) -> dict[str, int]:
    """Every line in use by what uses it: "outputs.lock" -> 17."""
    found = {}
    for section, config in (("outputs", outputs), ("inputs", inputs)):
        for name in config.__struct_fields__:
            line = getattr(getattr(config, name), "line", None)
            if line is not None:
                found[f"{section}.{name}"] = line
    return found


def programs_of(outputs: OutputConfig) -> list[tuple[str, ...]]:
    """Every program that an output may run, with its arguments."""
    found = []
    if isinstance(outputs.siren, CommandSiren):
        siren = outputs.siren
        found += [argv for argv in (siren.prealarm, siren.alarm, siren.silence) if argv]
    if isinstance(outputs.lock, CommandLock):
        found.append(outputs.lock.pulse)
    return found
