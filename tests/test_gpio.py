"""The libgpiod adapter as far as a machine without a chip goes, and on a chip if there is one.

EDGE_RT_GPIO names one whose lines may be driven: "/dev/gpiochip0:5" toggles line 5.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_rt.adapters.gpio import GpioChip
from edge_rt.core.errors import HardwareError
from edge_rt.core.pin_config import GpioButton


def test_a_chip_that_is_none_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"/dev/null: no GPIO chip; see gpiodetect"):
        GpioChip("/dev/null").output(17, False, "lock")
    with pytest.raises(HardwareError, match="no GPIO chip"):
        GpioChip(str(tmp_path / "gpiochip9")).input(GpioButton(line=5), "button")


def test_no_chip_of_a_header_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"here: none; set gpio\.chip, or driver 'model'"):
        GpioChip("", tmp_path).output(17, False, "lock")
    with pytest.raises(HardwareError, match="labelled 'pinctrl-rp1'"):
        GpioChip("pinctrl-rp1", tmp_path).output(17, False, "lock")


def test_a_device_that_is_no_chip_is_an_error_of_ours(tmp_path: Path) -> None:
    os.symlink("/dev/null", tmp_path / "gpiochip0")
    with pytest.raises(HardwareError, match="gpiochip0"):
        GpioChip("", tmp_path).output(17, False, "lock")


@pytest.fixture
def real() -> tuple[GpioChip, int]:
    """A chip and a line of it that may be driven."""
    named = os.environ.get("EDGE_RT_GPIO")
    if not named:
        pytest.skip("no GPIO chip named: set EDGE_RT_GPIO, such as /dev/gpiochip0:5")
    path, _, line = named.rpartition(":")
    return GpioChip(path), int(line)


def test_a_real_line_is_driven_and_given_back(real: tuple[GpioChip, int]) -> None:
    chip, line = real
    output = chip.output(line, False, "test")
    output.set(True)
    with pytest.raises(HardwareError, match="something else uses this line"):
        chip.output(line, False, "test")
    output.close()
    chip.output(line, False, "test").close()


def test_a_real_line_is_read(real: tuple[GpioChip, int]) -> None:
    chip, line = real
    button = chip.input(GpioButton(line=line, bias="as_is"), "test")
    assert button.level() in (True, False)
    assert button.edges(0.05) == []
    button.close()
