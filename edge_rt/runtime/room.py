"""Everything that acts in the room or is pressed there, started and stopped as one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_rt.core.config import Config
from edge_rt.core.errors import ConfigError, DaemonError, HardwareError
from edge_rt.core.pin_config import GpioButton, ModelChip
from edge_rt.core.pins import Chip
from edge_rt.core.types import Announce
from edge_rt.runtime.actuators import OutputLock, OutputSiren, make_led, make_lock, make_siren
from edge_rt.runtime.buttons import Act, ButtonReader
from edge_rt.runtime.output import Output
from edge_rt.runtime.presence import Presence

log = logging.getLogger(__name__)

GUARD_S = 0.25
LOOK_S = 1.0  # how often the LED learns of problems; stages of a fall it is told at once
PRESS_S = 15.0  # a try waits so long for a press
SHOW_S = 3.0  # so long the LED shows that it is tried
TRY_S = 5.0  # an output that does not begin within this does not react


class Room:
    """Outputs are at rest from `start` on; buttons act from `watch` on.

    problems  what the rest of the daemon has to complain of, for the LED
    """

    def __init__(self, config: Config, problems: Callable[[], bool] = lambda: False) -> None:
        self._config = config
        self._problems = problems
        self._chip: Chip | None = None
        self._siren = make_siren(config.outputs.siren, self.chip)
        self.lock = make_lock(config.outputs.lock, self.chip)
        self._led = make_led(config.outputs.led, self.chip)
        self._buttons: list[ButtonReader] = []
        self.name = self._siren.name
        self._stage = ""
        # Between a stage and a try: a test tone must never take the place of an alarm.
        self._lock = threading.Lock()
        self._trial_s = 0.0
        self._stopping = threading.Event()
        self._turned_s = time.monotonic()
        self._guard = threading.Thread(target=self._watch_over, name="outputs", daemon=True)

    def chip(self) -> Chip:
        """The chip of all lines, made at first use. Raises HardwareError."""
        if self._chip is None:
            self._chip = make_chip(self._config)
        return self._chip

    def start(self) -> None:
        """Bring every output to rest: what a killed daemon may have left on goes off here."""
        for output in self._outputs().values():
            output.start()
        self._turned_s = time.monotonic()
        if self._outputs():
            self._guard.start()

    def rest(self, timeout_s: float) -> list[str]:
        """Start, try until every output is at rest or the time is over, end; what went wrong."""
        self.start()
        end_s = time.monotonic() + timeout_s
        waits = [self._settle(output, end_s) for output in self._outputs().values()]
        self.close()
        return [problem for problem in waits if problem] or self.left_on()

    def _settle(self, output: Output, end_s: float) -> str:
        while problem := output.wait(0, max(0.0, end_s - time.monotonic())):
            if time.monotonic() >= end_s:
                break
            time.sleep(GUARD_S)  # the output itself tries again
        return problem

    def left_on(self) -> list[str]:
        """After `close`: the outputs that may still be on; a light does no harm."""
        outputs = [output for name, output in self._outputs().items() if name != "led"]
        return [f"{output.name}: may still be on" for output in outputs if not output.at_rest()]

    def watch(self, acts: Mapping[str, Act], presence: Presence, announce: Announce) -> None:
        """Let the buttons act. acts: command name -> what to call."""
        for name in self._config.inputs.__struct_fields__:
            config = getattr(self._config.inputs, name)
            if isinstance(config, GpioButton):
                button = ButtonReader(
                    *(name, config, self.chip, acts, presence, announce),
                    needed=lambda: bool(self._stage),
                )
                self._buttons.append(button)
                button.start()

    def unwatch(self) -> None:
        """No press is heard from here on; what one has begun is done first."""
        for button in self._buttons:
            button.stop()
        for button in self._buttons:
            button.close()

    def close(self) -> None:
        """Outputs come to rest, lines are given back."""
        self._stopping.set()
        self.unwatch()
        if self._guard.is_alive():
            self._guard.join(2 * GUARD_S)
        for output in self._outputs().values():
            output.stop()
        for output in self._outputs().values():
            output.close()

    # ---- the siren, and the LED that shows the same ----

    def sound(self, stage: str) -> None:
        """Siren and LED show a stage of a fall; returns at once."""
        with self._lock:
            self._stage = stage
            self._siren.sound(stage)
        self._show()

    def silence(self) -> None:
        """Nobody is in danger any more; returns at once."""
        with self._lock:
            self._stage = ""
            self._siren.silence()
        self._show()

    def notice(self) -> None:
        """One short sound, unless a stage sounds already; returns at once."""
        with self._lock:
            self._siren.notice()

    def _show(self) -> None:
        if self._led is None or (not self._stage and time.monotonic() < self._trial_s):
            return
        calm = "ok" if self._stage or not self._problems() else "problem"
        with self._lock:
            self._led.wish(self._stage or calm)

    # ---- from any thread ----

    def status(self) -> dict[str, Any]:
        """JSON-able: outputs and buttons that have a driver of their own."""
        return {
            "outputs": {name: output.status() for name, output in self._outputs().items()},
            "buttons": {button.name: button.status() for button in self._buttons},
        }

    def problems(self) -> list[str]:
        """What a person should look at."""
        found = [output.problem() for output in self._outputs().values()]
        return [text for text in (*found, *(b.problem() for b in self._buttons)) if text]

    def stuck_s(self) -> dict[str, float]:
        """How long ago each thread last turned, by its name in core.turning. The LED's is not among
        them: a light is no reason to end the watch over a person."""
        found = {n: output.stuck_s() for n, output in self._outputs().items() if n != "led"}
        found |= {f"{button.name} button": button.stuck_s() for button in self._buttons}
        if self._guard.is_alive():
            found["outputs"] = time.monotonic() - self._turned_s
        return found

    def items(self) -> list[str]:
        """What can be tried."""
        return [*self._outputs(), *(button.name for button in self._buttons)]

    def exercise(self, item: str) -> dict[str, Any]:
        """Try one output, or wait for a press of one button that then does nothing else.

        Raises ConfigError for what is not configured, DaemonError while an alarm needs it,
        HardwareError when it does not work.
        """
        for button in self._buttons:
            if button.name == item:
                if not button.try_out(PRESS_S):
                    raise HardwareError(f"button {item}: no press in {PRESS_S:g} s; see its cable")
                return {"pressed": item}
        output = self._outputs().get(item)
        if output is None:
            have = ", ".join(self.items()) or "nothing"
            raise ConfigError(f"no {item} with a driver of its own; to be tried: {have}")
        opens = isinstance(self.lock, OutputLock) and output is self.lock.output
        with self._lock:
            if self._stage:
                raise DaemonError(f"the {self._stage} comes first; try {item} when it is over")
            if output is self._led:
                self._trial_s = time.monotonic() + SHOW_S
            number = output.wish("open" if opens else "test", again=True)
        if problem := output.wait(number, TRY_S):
            raise HardwareError(problem.removeprefix(f"{item}: "))
        return {"tried": item}

    def _outputs(self) -> dict[str, Output]:
        found = {}
        if isinstance(self._siren, OutputSiren):
            found["siren"] = self._siren.output
        if isinstance(self.lock, OutputLock):
            found["lock"] = self.lock.output
        if self._led is not None:
            found["led"] = self._led
        return found

    # ---- the guard's thread ----

    def _watch_over(self) -> None:
        looked_s = -LOOK_S
        while not self._stopping.wait(GUARD_S):
            self._turned_s = time.monotonic()
            for output in self._outputs().values():
                try:
                    output.guard()
                except HardwareError as error:
                    log.critical("%s: %s", output.name, error)
            if time.monotonic() - looked_s >= LOOK_S:
                looked_s = time.monotonic()
                try:
                    self._show()
                except Exception:  # the guard of the lock outlives whatever a status may raise
                    log.exception("led: unexpected failure")


def make_chip(config: Config) -> Chip:
    """The chip that the config names; libgpiod is imported here at the earliest."""
    if isinstance(config.gpio, ModelChip):
        from edge_rt.adapters.pins_model import ModelChip as Model

        return Model(Path(config.gpio.folder))
    try:
        from edge_rt.adapters.gpio import GpioChip
    except ImportError as error:
        raise HardwareError(f"libgpiod cannot be used ({error}); pip install gpiod") from None
    return GpioChip(config.gpio.chip)
