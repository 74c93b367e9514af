"""The daemon's state in words."""

from __future__ import annotations

from typing import Any

import pytest

from edge_rt.core.status_line import status_line


def status(
    falls: dict[str, Any] | None = None,
    faces: dict[str, Any] | None = None,
    mqtt: dict[str, Any] | None = None,
    problems: tuple[str, ...] = (),
) -> dict[str, Any]:
    return {"falls": falls, "faces": faces, "mqtt": mqtt, "problems": problems}


def watching(**other: Any) -> dict[str, Any]:
    return {"state": "monitoring", "sensor": "ok", "simulated": False, **other}


@pytest.mark.parametrize(
    ("falls", "words"),
    [
        (None, "falls off"),
        (watching(), "falls watching"),
        (watching(simulated=True), "falls watching (simulated)"),
        (watching(state="alarm"), "falls ALARM"),
        (watching(state="disarmed"), "falls disarmed"),
        (watching(sensor="lost"), "falls not watching (sensor lost)"),
        (watching(state="alarm", sensor="off"), "falls ALARM, not watching (sensor off)"),
        (watching(sensor="starting"), "falls not watching (sensor starting)"),
    ],
)
def test_falls_in_words(falls: dict[str, Any] | None, words: str) -> None:
    assert status_line(status(falls)) == f"{words}; faces off; mqtt off"


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        ({"armed": False, "worker": "running", "camera": "off"}, "faces disarmed"),
        ({"armed": True, "worker": "down", "camera": "off"}, "faces down"),
        ({"armed": True, "worker": "running", "camera": "lost"}, "faces: camera lost"),
        ({"armed": True, "worker": "running", "camera": "on"}, "faces looking"),
    ],
)
def test_faces_in_words(faces: dict[str, Any], words: str) -> None:
    assert status_line(status(None, faces)) == f"falls off; {words}; mqtt off"


def test_problems_end_the_line_and_many_are_counted() -> None:
    line = status_line(status(watching(), None, {"state": "online"}, ("a", "b", "c", "d")))
    assert line == "falls watching; faces off; mqtt online; PROBLEM: a, b, and 2 more"
