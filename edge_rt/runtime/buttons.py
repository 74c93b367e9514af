"""A button and its thread: edges from a line, gestures to commands of the control table."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_rt.core.errors import EdgeRtError, HardwareError
from edge_rt.core.fall_table import WrongState
from edge_rt.core.pin_config import GpioButton
from edge_rt.core.pins import MEANINGS, Button, Chip, Gesture, Hand, InputLine
from edge_rt.core.types import Announce
from edge_rt.runtime.presence import Presence

log = logging.getLogger(__name__)

END_S = 3.0  # a press may be waiting for falls (fall_service.COMMAND_TIMEOUT_S)
READ_S = 0.5  # the level is read so often even without an edge, and a stop is noticed
STEADY_S = 1.0  # a line that is read for so long works again
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)

Act = Callable[[], Any]


class ButtonReader:
    """Watches one button between `start` and `close`; a thread each, so that a command which waits
    holds up no other button.

    acts    command name -> what to call
    needed  whether a press matters so much now that a try of the button must not take it
    """

    def __init__(
        self,
        name: str,
        config: GpioButton,
        chip: Callable[[], Chip],
        acts: Mapping[str, Act],
        presence: Presence,
        announce: Announce,
        monotonic: Callable[[], float] = time.monotonic,
        needed: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self._needed = needed
        self._config = config
        self._chip = chip
        self._acts = acts
        self._presence = presence
        self._announce = announce
        self._monotonic = monotonic
        self._hand = Hand.UNKNOWN
        self._problem = ""
        self._presses = self._failures = 0
        self._turned_s: float | None = None
        # A try of the button (doctor --exercise): the next press is told and does nothing else.
        self._trial: queue.SimpleQueue[Gesture] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"button-{name}", daemon=True)

    # ---- from any thread ----

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Begin to end."""
        self._stopping.set()

    def close(self) -> None:
        """Stop watching."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(END_S)

    def try_out(self, timeout_s: float) -> bool:
        """Wait for one press that does nothing but show that the button works; while presses are
        `needed` it does what it is for, too."""
        trial: queue.SimpleQueue[Gesture] = queue.SimpleQueue()
        self._trial = trial
        try:
            trial.get(timeout=timeout_s)
        except queue.Empty:
            return False
        finally:
            self._trial = None
        return True

    def problem(self) -> str:
        """Why nobody can press it, or nothing."""
        return self._problem

    def stuck_s(self) -> float:
        """How long ago its thread last turned; 0 before it ever has: a line that cannot be read
        in this process will not be in another."""
        turned_s = self._turned_s
        return 0.0 if turned_s is None else self._monotonic() - turned_s

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        return {
            "hand": self._hand.value,
            "presses": self._presses,
            "problem": self._problem,
        }

    # ---- in the button's thread ----

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                line = self._chip().input(self._config, f"button {self.name}")
                try:
                    self._watch(line)
                finally:
                    line.close()
            except HardwareError as error:
                self._broken(str(error))
            except Exception:  # the button must be watched again, whatever went wrong
                log.exception("button %s: unexpected failure", self.name)
                self._broken("internal error, see the log")
            self._turned_s = self._monotonic()
            self._stopping.wait(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
            self._failures += 1

    def _watch(self, line: InputLine) -> None:
        opened_s = self._monotonic()
        button = Button(self._config.debounce_ms / 1e3, self._config.hold_s)
        self._take(button, button.see(line.level(), self._monotonic()))
        while not self._stopping.is_set():
            for edge in line.edges(min(READ_S, button.wait_s(self._monotonic()))):
                self._take(button, button.see(edge.on, edge.t_s))
            # Read afterwards: what the edges have not told counts from now.
            self._take(button, button.see(line.level(), self._monotonic()))
            self._take(button, button.tick(self._monotonic()))
            self._turned_s = self._monotonic()
            # A line that opens and then cannot be read has not come back.
            if self._failures and self._turned_s - opened_s >= STEADY_S:
                self._failures = 0
                if not button.faulty:
                    self._mended()

    def _take(self, button: Button, gestures: list[Gesture]) -> None:
        self._hand = button.hand
        for gesture in gestures:
            match gesture:
                case Gesture.STUCK:
                    self._broken("pressed without end; free it, or look for a pinched cable")
                    continue
                case Gesture.CHATTER:
                    self._broken("its contact never comes to rest; replace it, or mend its cable")
                    continue
                case Gesture.FREED | Gesture.CALM:
                    self._mended()
                    continue
                case Gesture.PRESS:
                    self._presses += 1
                    self._presence.shown()
                case Gesture.LATE:
                    self._presses += 1
                    log.warning("button %s: was down when the watch began", self.name)
            trial = self._trial
            if trial is not None:
                trial.put(gesture)
                self._trial = None
                if not self._needed():
                    continue
            if name := MEANINGS[self.name].get(gesture):
                self._act(name)

    def _act(self, command: str) -> None:
        act = self._acts.get(command)
        if act is None:
            return
        try:
            act()
            log.warning("button %s: %s", self.name, command)
        except WrongState as error:  # nothing to cancel, say: a press is never an offence
            log.warning("button %s: %s", self.name, error)
        except EdgeRtError as error:
            log.error("button %s: %s failed: %s", self.name, command, error)

    def _broken(self, reason: str) -> None:
        before, self._problem = self._problem, f"button {self.name}: {reason}"
        if self._problem != before:
            log.error("%s", self._problem)
        if not before:
            self._announce("device", "sensor_lost", {"sensor": self._sensor, "detail": reason})

    def _mended(self) -> None:
        before, self._problem = self._problem, ""
        if before:
            log.info("button %s: works again", self.name)
            self._announce("device", "sensor_back", {"sensor": self._sensor})

    @property
    def _sensor(self) -> str:
        return f"button_{self.name}"
