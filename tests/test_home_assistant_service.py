"""What is announced, when, and how it is taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.home_assistant import FallState
from edge_rt.core.wire import Event
from edge_rt.runtime.home_assistant_service import (
    MAX_TOPICS,
    Announced,
    HomeAssistantService,
)
from edge_rt.runtime.letters import Letter
from edge_rt.runtime.teller import Notice

TOPIC = "homeassistant/device/dev1/config"


class Home:
    """A service, the state it sees, and what it sends."""

    def __init__(
        self, folder: Path, topic: str | None = TOPIC, models: tuple[str, ...] = ("fall",)
    ) -> None:
        self.now = FallState("monitoring")
        self.sent: list[Letter] = []
        self.file = StateFile(folder / "announced.json", Announced)
        self.service = HomeAssistantService(self.file, topic, b"{}", lambda: self.now, models)
        self.service.send = self.sent.append

    def states(self) -> list[Any]:
        assert all(letter.retain and letter.qos == 1 for letter in self.sent)
        assert {letter.topic for letter in self.sent} <= {"ha/state"}
        return [msgspec.json.decode(letter.payload)["state"] for letter in self.sent]

    def notice(self, kind: str) -> None:
        event = Event(
            id="",
            source="",
            type=f"edge_rt.{kind}.x",
            time="",
            data={},
            bootid="",
            monotonicms="0",
            clocktrusted=False,
        )
        self.service.notice(Notice(event, True))


def test_every_connect_says_all_and_a_change_is_said_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    announced = Letter(TOPIC, b"{}", retain=True, absolute=True)
    for _ in range(2):
        assert home.service.greet() == [announced]
    assert home.states() == ["monitoring"] * 2
    home.now = FallState("alarm", "i")
    home.notice("device")
    assert home.states() == ["monitoring"] * 2, "only stages of a fall are looked at"
    home.notice("fall")
    home.service.refresh()
    home.now = FallState("resolved")
    home.service.refresh()
    assert home.states() == ["monitoring"] * 2 + ["alarm", "resolved"]


def test_turned_off_it_takes_back_what_was_announced(tmp_path: Path) -> None:
    assert Home(tmp_path, None).service.greet() == [], (
        "a broker that never heard of it hears nothing"
    )
    Home(tmp_path).service.greet()
    for _ in range(2):  # a restart later, too: nobody knows whether the broker got it
        off = Home(tmp_path, None)
        assert off.service.greet() == [
            Letter(TOPIC, b"", retain=True, absolute=True),
            Letter("ha/state", b"", retain=True),
            Letter("ha/models", b"", retain=True),
        ]
        off.notice("fall")
        assert off.sent == []


def test_another_prefix_takes_back_the_old_one(tmp_path: Path) -> None:
    Home(tmp_path)
    moved = Home(tmp_path, "ha2/device/dev1/config")
    topics = [(letter.topic, letter.payload) for letter in moved.service.greet()]
    assert topics == [(TOPIC, b""), ("ha2/device/dev1/config", b"{}")]
    back = Home(tmp_path)
    topics = [(letter.topic, letter.payload) for letter in back.service.greet()]
    assert topics == [("ha2/device/dev1/config", b""), (TOPIC, b"{}")]


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    for n in range(3 * MAX_TOPICS):
        home = Home(tmp_path, f"p{n}/device/dev1/config")
    known = home.file.load()
    assert known is not None and len(known.topics) == MAX_TOPICS
    assert known.topics[-1] == f"p{3 * MAX_TOPICS - 1}/device/dev1/config"


def test_a_damaged_or_full_disk_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "announced.json").write_bytes(b"damaged")
    assert len(Home(tmp_path).service.greet()) == 1
    assert "is not known" in caplog.text
    missing = tmp_path / "no such folder"
    assert len(Home(missing).service.greet()) == 1
    assert "cannot be remembered" in caplog.text


def test_models_are_told_at_each_connect_and_change_and_only_those_announced(
    tmp_path: Path,
) -> None:
    row = {"name": "fall-waist", "version": "1.0.0", "state": "idle", "candidate": None}
    home = Home(tmp_path)
    home.service.greet()
    assert home.states() == ["monitoring"], "nothing is known of models yet"
    home.sent.clear()
    home.service.show_models({"fall": row, "face-embed": row})
    home.service.greet()
    models = [letter for letter in home.sent if letter.topic == "ha/models"]
    assert len(models) == 2 and models[0] == models[1]
    assert models[0].retain and set(msgspec.json.decode(models[0].payload)) == {"fall"}


def test_without_updates_what_an_entity_read_is_cleared(tmp_path: Path) -> None:
    home = Home(tmp_path, models=())
    home.service.show_models({"fall": {}})
    home.service.greet()
    cleared = [letter for letter in home.sent if letter.topic == "ha/models"]
    assert cleared == [Letter("ha/models", b"", retain=True)] * 2
    off = Home(tmp_path, None, models=())
    off.service.show_models({"fall": {}})
    assert off.sent == []
