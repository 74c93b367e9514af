"""The doctor's look at pins: the chip is there, and what becomes of its lines after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_rt.core.config import Config
from edge_rt.core.pin_config import GpiodChip, lines_of
from edge_rt.runtime.check import Check

# Whether the Pi's kernel leaves a line as it was when the process that drove it dies.
PERSIST = "module/pinctrl_*/parameters/persist_gpio_outputs"


def check_pins(config: Config, status: dict[str, Any] | None) -> Iterator[Check]:
    """The chip can be found and opened; nothing is driven. Raises HardwareError."""
    used = lines_of(config.outputs, config.inputs)
    if not used:
        yield Check("pins", "ok", "no pins in use")
        return
    if not isinstance(config.gpio, GpiodChip):
        remedy = "nothing acts in the room: set gpio.driver to gpiod"
        yield Check("pins", "warning", "a chip made of files", remedy)
        return
    from edge_rt.adapters.gpio import GpioChip

    path = GpioChip(config.gpio.chip).find()
    lines = ", ".join(f"{line} {user}" for user, line in used.items())
    whose = "the daemon's" if status is not None else "free or not, trying tells"
    yield Check("pins", "ok", f"{path}: {lines} ({whose})")
    yield from check_release(config)
    yield from check_rest(config)


def check_rest(config: Config) -> Iterator[Check]:
    """A warning for each output that is on while its line is low: nobody drives it at boot."""
    for name in ("siren", "lock", "led"):
        output = getattr(config.outputs, name)
        if getattr(output, "active_low", False):
            found = f"outputs.{name} is on while line {output.line} is low, as before the daemon"
            remedy = "wire a pull-up (10 k to 3.3 V) to it; see docs/wiring.md"
            yield Check("pins", "warning", found, remedy)


def check_release(config: Config, sys_root: Path = Path("/sys")) -> Iterator[Check]:
    """A warning if outputs stay on when the daemon is killed."""
    used = lines_of(config.outputs, config.inputs)
    keeps = any(path.read_text().strip() == "Y" for path in sys_root.glob(PERSIST))
    if keeps and any(user.startswith("outputs.") for user in used):
        found = "an output keeps its level when the daemon dies"
        yield Check(
            "pins", "warning", found, "add dtparam=strict_gpiod to /boot/firmware/config.txt"
        )
