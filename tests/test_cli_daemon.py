"""Commands that talk to the daemon, against a real control server with a table of our own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.cli import main
from edge_rt.cli.daemon import event_line
from edge_rt.core.errors import InputError
from edge_rt.runtime.control import Command, ControlServer

Say = Callable[..., tuple[int, str, str]]


class Args(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of every command of the real table, none of them needed."""

    what: str = ""
    name: str = ""
    images: list[str] = []
    after: int = 0
    limit: int = 0
    follow: bool = False


class Daemon:
    """Answers like a daemon and keeps what it was asked."""

    def __init__(self, run_dir: Path) -> None:
        self.asked: list[tuple[str, Args]] = []
        answers = {
            "status": {"version": "1", "falls": {"state": "monitoring"}, "problems": []},
            "cancel": {"state": "monitoring"},
            "resolve": {"state": "monitoring"},
            "help_now": {"state": "alarm"},
            "arm": {"armed": True},
            "disarm": {"armed": False},
            "face_enrol": {"enrolled": "p1", "templates": 1},
            "face_verify": {"outcome": "match", "name": "ann"},
            "face_list": {"persons": [{"name": "ann", "templates": 3}]},
            "face_remove": {"removed": "p1"},
        }
        table = {name: Command(Args, self._answer(name, a)) for name, a in answers.items()}
        table["events"] = Command(Args, self._events)
        self.server = ControlServer(run_dir, table)

    def _answer(self, name: str, answer: dict[str, Any]) -> Callable[[Args], dict[str, Any]]:
        def handler(args: Args) -> dict[str, Any]:
            self.asked.append((name, args))
            if args.name == "nobody":
                raise InputError("no person 'nobody' is enrolled; see edge-rt face list")
            return answer

        return handler

    def _events(self, args: Args) -> Iterator[dict[str, Any]]:
        self.asked.append(("events", args))
        for k in range(2):
            yield {
                "time": f"2026-01-01T00:00:0{k}Z",
                "sequence": str(k + 1),
                "type": "edge_rt.fall.prealarm",
                "data": {"incident": "i1", "why": {"mean": 3.0}},
            }


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    daemon.server.start()
    yield daemon
    daemon.server.close()


@pytest.fixture
def say(tmp_path: Path, daemon: Daemon, capfd: pytest.CaptureFixture[str]) -> Say:
    def run(*words: object) -> tuple[int, str, str]:
        code = main([*map(str, words), "--run-dir", str(tmp_path)])
        return (code, *capfd.readouterr())

    return run


@pytest.mark.parametrize(
    ("words", "command", "what", "said"),
    [
        (("cancel",), "cancel", "", "cancelled; now monitoring\n"),
        (("resolve",), "resolve", "", "resolved"),
        (("help-now",), "help_now", "", "alarm raised"),
        (("arm", "falls"), "arm", "falls", "falls armed"),
        (("disarm", "faces"), "disarm", "faces", "faces disarmed"),
    ],
)
def test_each_word_becomes_its_command(
    say: Say, daemon: Daemon, words: tuple[str, ...], command: str, what: str, said: str
) -> None:
    code, out, err = say(*words)
    assert (code, err) == (0, "") and out.startswith(said)
    assert daemon.asked == [(command, Args(what=what))]
    code, out, _ = say(*words, "--json")
    assert code == 0 and isinstance(json.loads(out), dict)


def test_status_for_people_and_for_programs(say: Say) -> None:
    code, out, _ = say("status")
    assert code == 0 and "monitoring" in out and "problems  -" in out
    code, out, _ = say("status", "--json")
    assert json.loads(out)["falls"] == {"state": "monitoring"}


def test_events_are_lines(say: Say, daemon: Daemon) -> None:
    code, out, _ = say("events", "--after", 7, "--limit", 5)
    assert code == 0 and len(out.splitlines()) == 2
    assert daemon.asked == [("events", Args(after=7, limit=5))]
    assert "fall.prealarm" in out and "incident=i1" in out
    code, out, _ = say("events", "--follow", "--json")
    assert [json.loads(line)["sequence"] for line in out.splitlines()] == ["1", "2"]
    assert daemon.asked[-1] == ("events", Args(limit=100, follow=True))


def test_faces(say: Say, daemon: Daemon, tmp_path: Path) -> None:
    picture = tmp_path / "ann.jpg"
    picture.write_bytes(b"a picture")
    code, out, _ = say("face", "enrol", "ann", "--image", picture, "--image", picture)
    assert code == 0 and "ann enrolled" in out
    sent = base64.b64encode(b"a picture").decode()
    assert daemon.asked[-1] == ("face_enrol", Args(name="ann", images=[sent, sent]))
    code, out, _ = say("face", "verify", "--image", picture, "--json")
    assert json.loads(out) == {"outcome": "match", "name": "ann"}
    code, out, _ = say("face", "list")
    assert "NAME" in out and "ann" in out
    code, out, _ = say("face", "remove", "ann")
    assert code == 0 and daemon.asked[-1] == ("face_remove", Args(name="ann"))


def test_a_refusal_keeps_its_class_and_exit_code(say: Say) -> None:
    code, out, err = say("face", "remove", "nobody")
    assert (code, out) == (2, "")
    assert err == "edge-rt: no person 'nobody' is enrolled; see edge-rt face list\n"
    code, _, err = say("face", "remove", "nobody", "--json")
    assert json.loads(err)["error"]["kind"] == "InputError"


def test_an_event_without_data_is_still_a_line() -> None:
    assert event_line({"type": "edge_rt.device.started"}).endswith("device.started")
