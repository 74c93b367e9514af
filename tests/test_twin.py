"""Settings from afar: what is taken, what is refused, what a restart remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.config import Config
from edge_rt.core.errors import ConfigError, InputError
from edge_rt.core.twin import ALLOWED, MAX_FIRST, MAX_JUMP, Desired, choose, decode_desired
from edge_rt.runtime.twin_service import TwinService


def desired(version: int, **settings: Any) -> bytes:
    return msgspec.json.encode({"version": version, "settings": settings})


class Device:
    """A twin whose apply() takes every threshold but those above 0.9."""

    def __init__(self, folder: Path) -> None:
        self.file = StateFile(folder / "twin.json", Desired)
        self.live: list[Config] = []
        self.twin = TwinService(Config(), self.file, self.apply)
        self.started_with = self.twin.load()

    def apply(self, config: Config) -> None:
        if (config.falls.threshold or 0) > 0.9:
            raise ConfigError("threshold 0.95 is above the bundle's 0.9")
        self.live.append(config)

    def desire(self, payload: bytes) -> dict[str, Any]:
        reported: dict[str, Any] = msgspec.json.decode(self.twin.desire(payload))
        return reported


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_allowed_settings_are_applied_reported_and_survive_a_restart(
    device: Device, tmp_path: Path
) -> None:
    alarm = {"cancel_window_s": 30.0}
    reported = device.desire(desired(3, falls={"threshold": 0.7, "alarm": alarm}))
    assert reported["version"] == 3 and "rejected" not in reported
    assert reported["settings"]["falls.threshold"] == 0.7
    assert set(reported["settings"]) == set(ALLOWED)
    assert device.live[-1].falls.alarm.cancel_window_s == 30.0
    again = Device(tmp_path)
    assert again.started_with == device.live[-1]
    # The broker's retained message comes again at each connect, and changes nothing.
    assert again.desire(desired(3, falls={"threshold": 0.7, "alarm": alarm}))["version"] == 3
    assert again.live == []


def test_a_setting_left_out_of_the_next_version_is_the_files_again(device: Device) -> None:
    device.desire(desired(1, **{"falls.threshold": 0.7}))
    reported = device.desire(desired(2, mqtt={"alarm_patience_s": 60}))
    assert reported["settings"]["falls.threshold"] is None
    assert device.live[-1].mqtt.alarm_patience_s == 60.0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "not a desired state"),
        (b"[" * 10_000, "not a desired state"),
        (b" " * 20_000, "at most"),
        (desired(0), "not a desired state"),
        (desired(2, falls={"enabled": False}), "falls.enabled is not on the allow-list"),
        (desired(2, mqtt={"host": "evil"}), "mqtt.host is not on the allow-list"),
        (desired(2, outputs={"lock": {"driver": "x"}}), "outputs.lock.driver is not on"),
        (desired(2, falls={"alarm": 5}), "falls.alarm is not on"),
        (desired(2, **{"": 1}), "not on the allow-list"),
        (desired(2, falls={"threshold": "high"}), "falls.threshold"),
        (desired(2, falls={"alarm": {"cancel_window_s": 1e9}}), "<= 120"),
        (desired(2, falls={"threshold": 0.95}), "above the bundle's"),
        (desired(1 + MAX_JUMP + 1), "jumps too far"),
        (desired(2**53), "jumps too far"),
        (desired(1, falls={"threshold": 0.8}), "in force with other settings"),
    ],
)
def test_what_is_refused_is_reported_with_the_reason_and_changes_nothing(
    device: Device, payload: bytes, reason: str
) -> None:
    device.desire(desired(1, falls={"threshold": 0.7}))
    reported = device.desire(payload)
    assert reason in reported["rejected"]["reason"]
    assert reported["version"] == 1
    assert reported["settings"]["falls.threshold"] == 0.7
    assert len(device.live) == 1
    assert device.desire(desired(2))["version"] == 2  # and the way is open


def test_an_older_version_is_refused(device: Device) -> None:
    device.desire(desired(5))
    assert "older than 5" in device.desire(desired(4))["rejected"]["reason"]


def test_a_new_device_may_come_into_an_old_fleet(device: Device) -> None:
    assert "jumps" in device.desire(desired(MAX_FIRST + 1))["rejected"]["reason"]
    assert device.desire(desired(5000))["version"] == 5000


def test_taking_the_message_back_is_no_rejection(device: Device) -> None:
    device.desire(desired(1))
    assert "rejected" not in device.desire(b"")


def test_settings_that_cannot_be_kept_are_not_in_force(device: Device, tmp_path: Path) -> None:
    (tmp_path / "twin.json.new").mkdir()  # nothing can be written in its place
    reported = device.desire(desired(1, falls={"threshold": 0.7}))
    assert reported["version"] == 0
    assert device.live[-1] == Config(), "taken back"


def test_a_damaged_file_and_a_bundle_with_other_bounds_fall_back(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.desire(desired(1, falls={"threshold": 0.7}))
    assert device.twin.forget("outside the new bundle's bounds") == Config()
    assert b"outside the new" in device.twin.report()
    (tmp_path / "twin.json").write_bytes(b"nonsense")
    assert Device(tmp_path).started_with == Config()
    assert (tmp_path / "twin.json").exists()  # kept until settings come that replace it


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
paths = st.sampled_from([*ALLOWED, "falls", "falls.alarm", "mqtt.host", "x"])


@given(st.dictionaries(paths | st.text(max_size=8), json_values, max_size=5))
def test_any_settings_are_taken_whole_or_refused(settings: dict[str, Any]) -> None:
    try:
        choice = choose(Config(), 0, decode_desired(desired(1, **settings)))
    except InputError:
        return
    fixed = msgspec.to_builtins(choice.config)
    given_up = msgspec.to_builtins(Config())
    for path in ALLOWED:
        *sections, key = path.split(".")
        for place in (fixed, given_up):
            for section in sections:
                place = place[section]
            place.pop(key)
    assert fixed == given_up, "something moved that no fleet may move"
