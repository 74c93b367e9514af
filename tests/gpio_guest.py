"""Runs inside the virtual machine of scripts/test-gpio, on a kernel that has a PL061 GPIO chip.

Prints a line for each thing that held and ends with "result: 0"; "press now" asks the machine's
owner to press its power button, which is line 3 of the chip.
"""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from edge_rt.adapters.gpio import GpioChip
from edge_rt.core.errors import HardwareError
from edge_rt.core.pin_config import GpioButton, GpioLock
from edge_rt.runtime.acts import Line, PulseAct
from edge_rt.runtime.buttons import ButtonReader
from edge_rt.runtime.output import Output
from edge_rt.runtime.presence import Presence

CHIP, LOCK, LED, BUTTON = "9030000.pl061", 5, 6, 3
PATIENCE_S = 60.0  # an emulated processor on a busy machine
HOLD_ON = f"""
import sys, time
from edge_rt.adapters.gpio import GpioChip
line = GpioChip({CHIP!r}).output({LOCK}, False, "lock")
line.set(True)
print("on", flush=True)
time.sleep(600)
"""


def kernel_says(line: int) -> str:
    """The kernel's own line about a line: "lo", "hi", or nothing when nobody has it."""
    first = None
    for text in Path("/sys/kernel/debug/gpio").read_text().splitlines():
        if text.startswith("gpiochip"):
            first = int(text.split("GPIOs ")[1].split("-")[0])
        elif first is not None and f"gpio-{first + line} " in text:
            return text.partition(")")[2].strip()
    return ""


def wait(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.005)


def refused(action: Callable[[], object], words: str) -> None:
    try:
        action()
    except HardwareError as error:
        assert words in str(error), error
        return
    raise AssertionError(f"not refused: {words}")


def outputs() -> None:
    chip = GpioChip(CHIP)
    line = chip.output(LOCK, False, "lock")
    assert kernel_says(LOCK) == "out lo"
    line.set(True)
    assert kernel_says(LOCK) == "out hi"
    refused(lambda: chip.output(LOCK, False, "siren"), "something else uses this line")
    refused(lambda: chip.output(99, False, "siren"), "see gpioinfo")
    refused(lambda: GpioChip("").output(LOCK, False, "siren"), f"here: {CHIP}")
    line.close()
    assert kernel_says(LOCK) == ""
    line = chip.output(LED, True, "led")
    assert kernel_says(LED).startswith("out hi")  # inactive, and active is low
    line.set(True)
    assert kernel_says(LED).startswith("out lo")
    line.close()


def pulse() -> None:
    act = PulseAct(
        Line(lambda: GpioChip(CHIP), LOCK, False, "lock"),
        GpioLock(line=LOCK, pulse_s=1.0),
        time.monotonic,
    )
    lock = Output("lock", act, "closed", time.monotonic)
    lock.start()
    wait(lambda: kernel_says(LOCK) == "out lo")
    lock.wish("open", again=True)
    wait(lambda: kernel_says(LOCK) == "out hi")
    wait(lambda: kernel_says(LOCK) == "out lo")
    lock.close()
    assert kernel_says(LOCK) == "" and not lock.problem()


def killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD_ON], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"on\n"
    assert kernel_says(LOCK) == "out hi"
    child.kill()
    child.wait()
    line = GpioChip(CHIP).output(LOCK, False, "lock")  # the next start
    assert kernel_says(LOCK) == "out lo"
    line.close()


def button() -> None:
    pressed: list[str] = []
    told: list[object] = []
    # The machine's button is active high, and down for a tenth of a second.
    config = GpioButton(line=BUTTON, active_low=False, bias="as_is", debounce_ms=30)
    reader = ButtonReader(
        "help",
        config,
        lambda: GpioChip(CHIP),
        {"help_now": lambda: pressed.append("help_now")},
        Presence(),
        lambda *event: told.append(event),
    )
    reader.start()
    wait(lambda: reader.status()["hand"] == "away")
    for count in (1, 2):
        print("press now", flush=True)
        wait(lambda count=count: len(pressed) == count)
        wait(lambda: reader.status()["hand"] == "away")
    assert reader.status()["presses"] == 2 and not told and not reader.problem()
    reader.close()


def main() -> int:
    for check in (outputs, pulse, killed, button):
        try:
            check()
        except Exception:  # told on the console, which is all that leaves the machine
            traceback.print_exc()
            print(f"failed: {check.__name__}", flush=True)
            return 1
        print(f"holds: {check.__name__}", flush=True)
    return 0


if __name__ == "__main__":
    print(f"result: {main()}", flush=True)
