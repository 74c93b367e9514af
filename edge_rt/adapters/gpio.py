"""Lines of a GPIO chip through libgpiod (the kernel's character device, second version)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import gpiod
from gpiod.line import Bias, Direction, Value
from gpiod.line import Edge as EdgeDetection

from edge_rt.core.errors import HardwareError
from edge_rt.core.pins import Edge, InputSettings

# The label of the chip behind the header; its number differs between boards and kernels.
HEADERS = (
    "pinctrl-rp1",  # 5
    "pinctrl-bcm2711",  # 4
    "pinctrl-bcm2835",  # 3, Zero 2 W and before
)
# Edges that wait for us; a bouncing contact makes dozens, a torn cable thousands. The kernel drops
# the oldest then, and reading the level mends it.
BUFFERED_EDGES = 256
KERNEL_DEBOUNCE = timedelta(milliseconds=1)  # keeps radio noise out; contacts are core.pins' matter

_BIAS = {
    "pull_up": Bias.PULL_UP,
    "pull_down": Bias.PULL_DOWN,
    "disabled": Bias.DISABLED,
    "as_is": Bias.AS_IS,
}
_REMEDIES = {
    errno.EACCES: "add the user to the group gpio",
    errno.EPERM: "add the user to the group gpio",
    errno.EBUSY: "something else uses this line: see gpioinfo",
    errno.EINVAL: "the chip has no such line, or cannot do this with it: see gpioinfo",
    errno.ENODEV: "the chip is gone; plug it in again",
}


class GpioChip:
    """name: a path, a label, or empty for the chip of a Raspberry Pi's header."""

    def __init__(self, name: str = "", devices: Path = Path("/dev")) -> None:
        self._name = name
        self._devices = devices

    def output(self, line: int, active_low: bool, user: str) -> GpioOutput:
        """An output, inactive. Raises HardwareError."""
        settings = gpiod.LineSettings(
            direction=Direction.OUTPUT, active_low=active_low, output_value=Value.INACTIVE
        )
        return GpioOutput(self._request(line, settings, user), line, f"{user} (line {line})")

    def input(self, settings: InputSettings, user: str) -> GpioInput:
        """An input whose edges are watched. Raises HardwareError."""
        line = settings.line
        wanted = gpiod.LineSettings(
            direction=Direction.INPUT,
            edge_detection=EdgeDetection.BOTH,
            bias=_BIAS[settings.bias],
            active_low=settings.active_low,
            debounce_period=KERNEL_DEBOUNCE,
        )
        return GpioInput(self._request(line, wanted, user), line, f"{user} (line {line})")

    def _request(self, line: int, settings: gpiod.LineSettings, user: str) -> gpiod.LineRequest:
        path = self.find()
        with _ours(f"{user}: {path}, line {line}"):
            return gpiod.request_lines(
                path,
                {line: settings},
                consumer=f"edge-rt {user}"[:31],  # the kernel keeps 31 characters
                event_buffer_size=BUFFERED_EDGES,
            )

    def find(self) -> str:
        """The chip's path. Raises HardwareError."""
        if "/" in self._name:
            if not gpiod.is_gpiochip_device(self._name):
                raise HardwareError(f"{self._name}: no GPIO chip; see gpiodetect and gpio.chip")
            return self._name
        found: dict[str, str] = {}
        for path in sorted(self._devices.glob("gpiochip*")):
            with _ours(str(path)), gpiod.Chip(str(path)) as chip:
                found.setdefault(chip.get_info().label, str(path))
        for label in (self._name,) if self._name else HEADERS:
            if label in found:
                return found[label]
        here = ", ".join(found) or "none"
        what = f"labelled {self._name!r}" if self._name else "of a Raspberry Pi's header"
        raise HardwareError(f"no GPIO chip {what}, here: {here}; set gpio.chip, or driver 'model'")


class GpioOutput:
    """One requested line."""

    def __init__(self, request: gpiod.LineRequest, line: int, name: str) -> None:
        self._request, self._line, self._name = request, line, name

    def set(self, on: bool) -> None:
        """Raises HardwareError."""
        with _ours(self._name):
            self._request.set_value(self._line, Value.ACTIVE if on else Value.INACTIVE)

    def close(self) -> None:
        """Make it inactive, then give it back: what the chip does with a freed line is its own."""
        try:
            self.set(False)
        finally:
            with _ours(self._name):
                self._request.release()


class GpioInput:
    """One requested line."""

    def __init__(self, request: gpiod.LineRequest, line: int, name: str) -> None:
        self._request, self._line, self._name = request, line, name

    def level(self) -> bool:
        """Whether it is active. Raises HardwareError."""
        with _ours(self._name):
            return self._request.get_value(self._line) is Value.ACTIVE

    def edges(self, timeout_s: float) -> list[Edge]:
        """Raises HardwareError."""
        with _ours(self._name):
            if not self._request.wait_edge_events(timeout_s):
                return []
            events = self._request.read_edge_events()
        # Rising means to active: the kernel applies active-low to edges too. It stamps them with
        # its monotonic clock, which is time.monotonic's.
        rising = gpiod.EdgeEvent.Type.RISING_EDGE
        return [Edge(event.event_type is rising, event.timestamp_ns / 1e9) for event in events]

    def close(self) -> None:
        """Give the line back."""
        with _ours(self._name):
            self._request.release()


@contextlib.contextmanager
def _ours(name: str) -> Iterator[None]:
    """libgpiod's errors become ours."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "see gpiodetect and gpioinfo")
        raise HardwareError(f"{name}: {reason}; {remedy}") from None
    except ValueError as error:  # a line that the chip does not have
        raise HardwareError(f"{name}: {error}; see gpioinfo") from None
    except (gpiod.ChipClosedError, gpiod.RequestReleasedError) as error:
        raise HardwareError(f"{name}: {error}; start again") from None
