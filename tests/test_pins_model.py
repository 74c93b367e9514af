"""The chip made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_rt.adapters.pins_model import ModelChip
from edge_rt.core.errors import HardwareError
from edge_rt.core.pin_config import GpioButton
from edge_rt.core.pins import Edge

BUTTON = GpioButton(line=5)


class Clock:
    """Time that passes only by sleeping; then something may happen."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.then: dict[float, tuple[Path, str]] = {}

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for at_s in [t for t in self.then if t <= self.now_s]:
            path, text = self.then.pop(at_s)
            path.write_text(text)


def chip(folder: Path, clock: Clock | None = None) -> ModelChip:
    clock = clock or Clock()
    return ModelChip(folder, clock, clock.sleep)


def test_an_output_is_inactive_until_set_and_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "pins" / "17"
    path.parent.mkdir()
    path.write_text("1\n")  # as a killed daemon left it
    line = chip(path.parent).output(17, False, "lock")
    assert path.read_text() == "0\n"
    line.set(True)
    assert path.read_text() == "1\n"
    line.close()
    assert path.read_text() == "0\n"


def test_presses_are_edges_with_their_time(tmp_path: Path) -> None:
    clock = Clock()
    line = chip(tmp_path, clock).input(BUTTON, "button")
    assert not line.level()
    clock.then = {0.3: (tmp_path / "5", "1\n"), 0.5: (tmp_path / "5", "0")}
    assert line.edges(0.2) == []
    (down,) = line.edges(1.0)
    assert down.on and down.t_s == pytest.approx(0.3, abs=0.011)
    assert line.level()
    (up,) = line.edges(1.0)
    assert up == Edge(False, pytest.approx(0.5, abs=0.011))


def test_nonsense_and_a_lost_folder_are_hardware_errors(tmp_path: Path) -> None:
    folder = tmp_path / "pins"
    line = chip(folder).input(BUTTON, "button")
    output = chip(folder).output(17, False, "lock")
    (folder / "5").write_text("on")
    with pytest.raises(HardwareError, match="holds 'on'; write 1"):
        line.level()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(HardwareError, match=r"gpio\.folder"):
        line.level()
    with pytest.raises(HardwareError, match=r"gpio\.folder"):
        output.set(True)
