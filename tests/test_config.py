"""The configuration: defaults that run, and errors that name file, key and remedy."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.core.config import (
    Adxl345Source,
    Config,
    IioSource,
    Mpu6050Source,
    OpenCVCamera,
    ReplayedAccelerometer,
    parse_config,
)
from edge_rt.core.errors import ConfigError
from edge_rt.core.shadow import LEAST_BLOCKS
from edge_rt.core.toml import write_toml
from edge_rt.core.update_config import SHADOW_BLOCKS
from edge_rt.runtime.config_file import load_config


def test_an_empty_file_is_a_valid_configuration() -> None:
    assert parse_config("", "x") == Config()


def test_sections_and_drivers_are_read() -> None:
    config = parse_config(
        """
        [falls]
        bundle = "fall-wrist"
        [falls.source]
        driver = "replay"
        file = "a.npz"
        [faces]
        enabled = true
        [faces.camera]
        driver = "opencv"
        width = 320
        """,
        "x",
    )
    assert config.falls.source == ReplayedAccelerometer(file="a.npz")
    assert config.faces.camera == OpenCVCamera(width=320)


ACCELEROMETERS = ["choose ", "simulated", "replay"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[falls]\nbundel = 'x'", ["[falls]", "'bundel'", "did you mean 'bundle'"]),
        ("[fals]\n", ["top level", "'fals'", "did you mean 'falls'"]),
        ("[falls.source]\ndriver = 'replay'\nfile = 'x'\nspede = 2", ["did you mean 'speed'"]),
        ("[falls.alarm]\nqqqqqqq = 1", ["falls.alarm", "valid keys: ", "cancel_window_s"]),
        ("[falls.source]\ndriver = 'mpu'", ["'mpu'", "falls.source.driver", *ACCELEROMETERS]),
        ("[falls.source]\nfile = 'x'", ["[falls.source] has no key 'driver'", *ACCELEROMETERS]),
        ("[falls.source]\ndriver = 'replay'", ["[falls.source] has no key 'file'; add it"]),
        ("[faces.camera]\ndriver = 'usb'", ["choose opencv, picamera2, replay, demo"]),
        ("[falls]\nlost_s = -1", ["falls.lost_s", "> 0"]),
        ("[device]\nname = 'a/b'", ["device.name"]),
        ("[runtime]\nthreads = 'two'", ["runtime.threads", "int"]),
        ("[falls\n", ["not valid TOML"]),
        ("[faces.rules]\nmatches = 9\nframes = 2", ["faces.rules", "matches 9"]),
        (
            "[mqtt]\nenabled = true\n[updates]\nenabled = true\nshadow_h = 0.83",
            ["updates", "200 blocks", "at least 0.84 h"],
        ),
    ],
)
def test_bad_values_name_the_place_and_the_remedy(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "device.toml")
    message = str(caught.value)
    assert message.startswith("device.toml: ") and "\n" not in message
    for part in parts:
        assert part in message


def test_a_shadow_has_room_for_what_its_judge_wants() -> None:
    assert SHADOW_BLOCKS == LEAST_BLOCKS
    text = "[mqtt]\nenabled = true\n[updates]\nenabled = true\nshadow_h = 0.84"
    assert parse_config(text, "device.toml").updates.shadow_h == 0.84


def test_toml_written_is_read_back() -> None:
    table: dict[str, Any] = {
        "text": 'a "quoted" \\ line\nand another',
        "numbers": [1, 2.5, -3],
        "nothing": None,
        "on": True,
        "inner": {"deep": {"key with space": "ä"}, "x": 1, "many": [{"a": 1}, {"b": {"c": 2}}]},
    }
    expected = {k: v for k, v in table.items() if v is not None}
    assert tomllib.loads(write_toml(table)) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mpu6050", Mpu6050Source),
        ("adxl345", Adxl345Source),
        ("iio", IioSource),
        ("model", Mpu6050Source),
    ],
)
def test_the_examples_of_sensors_are_the_defaults(name: str, kind: type) -> None:
    text = files("edge_rt.firmware_configs").joinpath(f"sensors/{name}.toml").read_text()
    source = parse_config(text, name).falls.source
    assert isinstance(source, kind)
    if name != "model":
        assert source == kind()
        shown = set(tomllib.loads(text)["falls"]["source"]) - {"driver"}
        assert shown == {field.name for field in msgspec.structs.fields(kind)} - {"model"}


def test_the_example_shows_the_defaults_and_every_section() -> None:
    text = files("edge_rt.firmware_configs").joinpath("example.toml").read_text()
    assert parse_config(text, "example.toml") == Config()
    for section in msgspec.structs.fields(Config):
        assert f"[{section.name}" in text


@pytest.mark.parametrize("guide", ["wiring.md", "cameras.md"])
def test_the_examples_of_the_guides_are_valid(repository: Path, guide: str) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (repository / "docs" / guide).read_text(), re.S)
    assert len(blocks) >= 2
    for block in blocks:
        parse_config(block, guide)


@pytest.mark.parametrize("left", [b"", b" \n", b"\0" * 512])
def test_an_empty_file_is_no_configuration(tmp_path: Path, left: bytes) -> None:
    """What a power cut leaves of one; its defaults would watch a simulated wearer."""
    path = tmp_path / "config.toml"
    path.write_bytes(left)
    with pytest.raises(ConfigError, match="an empty file; bring it back"):
        load_config(path)
