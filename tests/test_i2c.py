"""The kernel's I2C buses: what is no bus, and who may not use it. Transfers need a real bus."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_rt.adapters.i2c import I2cBus
from edge_rt.core.errors import SensorError


def test_a_bus_that_is_not_there_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="no such bus; enable I2C"):
        I2cBus(str(tmp_path / "i2c-7"))


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero"])
@pytest.mark.native("an ioctl is not passed on")
def test_a_device_that_is_no_bus_is_refused_and_let_go(name: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(SensorError, match="is no I2C bus"):
        I2cBus(name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_is_no_bus(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="is no I2C bus"):
        I2cBus(str(tmp_path))
