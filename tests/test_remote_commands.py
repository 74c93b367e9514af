"""The service: outcomes told, the memory on disk before an action, slow commands beside others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.adapters.operations_key import PrivateKey, make_pair
from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import CameraError, ConfigError, InputError
from edge_rt.core.fall_table import Event, State, WrongState
from edge_rt.core.remote_command import RULES, Memory, OperationsKey, Payload, Refused, signed_text
from edge_rt.core.uplink_wire import Topics
from edge_rt.core.wire import lane_of
from edge_rt.runtime.commands import NoArgs, OfIncident, What
from edge_rt.runtime.control import Command
from edge_rt.runtime.remote_commands import MAX_WAITING, TOLD_BURST, Facts, RemoteCommands

DEV1 = Topics("home", "dev1")
PATIENCE_S = 20.0


class Device:
    """The service with a table whose rows note that they were called."""

    def __init__(self, folder: Path, public: Any = None) -> None:
        self.folder = folder
        self.told: list[dict[str, Any]] = []
        self.acted: list[str] = []
        self.go_on, self.hold = threading.Event(), threading.Event()
        self.hold.set()
        self.now_s = 1000.0
        self.unix_s, self.clock_trusted = 1767225600.0, True  # 2026-01-01
        self.fault: Exception | None = None
        table = {
            "self_test": Command(NoArgs, self._slow),
            "restart_pipeline": Command(What, lambda args: self._act(f"restart {args.what}")),
            "cancel": Command(OfIncident, lambda args: self._act(f"cancel {args.incident}")),
            "disarm": Command(What, lambda args: self._act(f"disarm {args.what}")),
            "help_now": Command(NoArgs, lambda _: self._act("help")),
        }
        self.commands = RemoteCommands(
            DEV1,
            StateFile(folder / "commands.json", Memory),
            table,
            self._announce,
            self._warn,
            None if public is None else OperationsKey(public.id, public.verify),
            Facts(lambda: self.now_s, lambda: self.unix_s, lambda: self.clock_trusted),
        )
        self.commands.start()

    def _announce(self, kind: str, what: str, data: Mapping[str, Any]) -> None:
        lane_of(kind, what)
        self.told.append(dict(data))

    def _warn(self, name: str) -> None:
        self.acted.append(f"announced {name}")
        assert self.hold.wait(PATIENCE_S)

    def _act(self, what: str) -> dict[str, Any]:
        self.acted.append(what)
        if self.fault is not None:
            raise self.fault
        return {"state": "monitoring", "name": "Ada", "path": "/etc"}

    def _slow(self, _: NoArgs) -> dict[str, Any]:
        self.acted.append("self_test")
        assert self.go_on.wait(PATIENCE_S)
        return {"checks": {"disk": "ok"}}

    def send(self, name: str, payload: Payload) -> None:
        self.commands.handle(f"cmd/{name}", msgspec.json.encode(payload))

    def wait(self, count: int) -> dict[str, Any]:
        """The last of `count` outcomes."""
        end_s = time.monotonic() + PATIENCE_S
        while len(self.told) < count:
            assert time.monotonic() < end_s, self.told
            time.sleep(0.005)  # another thread's progress can only be watched
        assert len(self.told) == count
        return self.told[-1]


class Operator:
    def __init__(self, folder: Path) -> None:
        make_pair(folder / "key")
        self.key = PrivateKey.read(folder / "key")
        self.counter = 0

    def sign(self, name: str, id: str, **fields: Any) -> Payload:
        self.counter += 1
        payload = Payload(id, counter=self.counter, **fields)
        signature = self.key.sign(signed_text(DEV1, name, payload)).hex()
        return msgspec.structs.replace(payload, signature=signature)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def start(tmp_path: Path, operator: Operator) -> Iterator[Callable[..., Device]]:
    begun: list[Device] = []

    def make(key: bool = True) -> Device:
        begun.append(Device(tmp_path, operator.key.public if key else None))
        return begun[-1]

    yield make
    for device in begun:
        device.go_on.set()
        device.commands.close()


def test_a_signed_command_is_announced_done_told_and_never_done_again(
    start: Callable[..., Device], operator: Operator
) -> None:
    device = start()
    cancel = operator.sign("cancel", "i1", args={"incident": "f00"})
    device.send("cancel", cancel)
    assert device.wait(1) == {
        "id": "i1",
        "name": "cancel",
        "outcome": "done",
        "reason": "",
        "state": "monitoring",  # and neither name nor path
    }
    device.send("cancel", cancel)
    assert device.wait(2) == {
        "id": "i1",
        "name": "cancel",
        "outcome": "done",
        "reason": "",
        "repeat": True,
    }
    again = start()  # after a restart
    again.send("cancel", cancel)
    assert again.wait(1)["repeat"]
    again.send("cancel", msgspec.structs.replace(cancel, id="i2"))
    assert again.wait(2)["reason"] == "bad_signature"
    operator.counter = 0
    again.send("cancel", operator.sign("cancel", "i2"))
    assert again.wait(3)["reason"] == "replayed"
    assert device.acted == ["announced cancel", "cancel f00"] and again.acted == []
    assert again.commands.status()["refused"] == 2


def test_an_expired_one_is_not_done_once_the_clock_is_set(
    start: Callable[..., Device], operator: Operator
) -> None:
    device = start()
    stamps = "2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z"
    late, fresh = (operator.sign("cancel", f"i{k}", expires=stamps[k]) for k in range(2))
    device.send("cancel", late)
    assert device.wait(1)["reason"] == "expired"
    device.send("cancel", fresh)
    assert device.wait(2)["outcome"] == "done"
    device.clock_trusted = False
    device.send("cancel", operator.sign("cancel", "i2", expires=stamps[0]))
    assert device.wait(3)["outcome"] == "done"
    device.send("cancel", late)
    assert device.wait(4)["reason"] == "replayed"


@pytest.mark.parametrize("name", ["unlock", "face_verify", "help_now", "status", "events", "x"])
def test_what_is_no_command_from_afar_is_never_looked_up(
    start: Callable[..., Device], operator: Operator, name: str
) -> None:
    device = start()
    device.send(name, operator.sign(name, "i1"))
    assert device.wait(1)["reason"] == "unknown"
    assert device.acted == [] and name not in RULES


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        (WrongState(State.MONITORING, Event.CANCEL), "refused", "not_possible"),
        (ConfigError("fall detection is off"), "refused", "not_available"),
        (Refused("other_incident", "another"), "refused", "other_incident"),
        (Refused("checks_failed", "disk", checks={"disk": "failed"}), "failed", "checks_failed"),
        (CameraError("no frame"), "failed", "failed"),
        (RuntimeError("a bug"), "failed", "failed"),
    ],
)
def test_why_it_came_to_nothing_is_told_as_a_class(
    start: Callable[..., Device], operator: Operator, fault: Exception, outcome: str, reason: str
) -> None:
    device = start()
    device.fault = fault
    device.send("disarm", operator.sign("disarm", "i1", args={"what": "falls"}))
    told = device.wait(1)
    assert (told["outcome"], told["reason"]) == (outcome, reason)
    assert set(told) <= {"id", "name", "outcome", "reason", "checks"}
    device.fault = None
    device.send("disarm", operator.sign("disarm", "i2", args={"what": "faces"}))
    assert device.wait(2)["outcome"] == "done"


@pytest.mark.parametrize("args", [{}, {"what": "everything"}, {"what": "falls", "more": "1"}])
def test_arguments_are_the_tables(start: Callable[..., Device], args: dict[str, str]) -> None:
    device = start(key=False)
    device.send("restart_pipeline", Payload("i1", args=args))
    assert device.wait(1)["reason"] == "bad_arguments"
    assert device.acted == []


def test_a_slow_command_holds_up_no_signed_one(
    start: Callable[..., Device], operator: Operator
) -> None:
    device = start()
    device.send("self_test", Payload("slow"))
    device.send("cancel", operator.sign("cancel", "i1"))
    assert device.wait(1)["id"] == "i1"
    device.now_s += 1000
    device.send("self_test", Payload("other"))
    assert device.wait(2)["reason"] == "busy"
    device.send("self_test", Payload("slow"))  # a repeat while it runs tells nothing yet
    device.send("unlock", Payload("x"))
    assert device.wait(3)["id"] == "x"
    device.go_on.set()
    assert device.wait(4)["checks"] == {"disk": "ok"}
    device.send("self_test", Payload("other"))
    assert device.wait(5)["outcome"] == "done"
    device.send("self_test", Payload("third"))
    assert device.wait(6)["reason"] == "too_soon"


def test_a_flood_fills_neither_log_nor_memory(start: Callable[..., Device]) -> None:
    device = start(key=False)
    for n in range(TOLD_BURST + 30):
        device.send("unlock", Payload(f"i{n}"))
        while device.commands.status()["refused"] <= n:
            time.sleep(0.001)  # another thread's progress can only be watched
    device.wait(TOLD_BURST)
    device.now_s += 1e6
    device.send("unlock", Payload("last"))
    assert device.wait(TOLD_BURST + 1)["id"] == "last"
    assert device.commands.status()["untold"] == 30
    assert not (device.folder / "commands.json").exists()


def test_one_too_many_waiting_is_refused_to_the_uplink(
    start: Callable[..., Device], operator: Operator
) -> None:
    device = start()
    device.hold.clear()
    device.send("cancel", operator.sign("cancel", "i0"))
    with pytest.raises(InputError, match="is lost"):
        for n in range(MAX_WAITING + 2):
            device.send("self_test", Payload(f"i{n}"))
    device.hold.set()


def test_without_a_disk_nothing_signed_is_done(
    start: Callable[..., Device], operator: Operator, tmp_path: Path
) -> None:
    device = start()
    (tmp_path / "commands.json.new").mkdir()  # nothing can be written in its place
    cancel = operator.sign("cancel", "i1")
    device.send("cancel", cancel)
    assert device.wait(1)["reason"] == "storage"
    device.send("restart_pipeline", Payload("i2", args={"what": "falls"}))
    assert device.wait(2)["outcome"] == "done"
    (tmp_path / "commands.json.new").rmdir()
    device.send("cancel", cancel)
    assert device.wait(3)["outcome"] == "done"
    assert device.acted == ["restart falls", "announced cancel", "cancel "]


def test_a_damaged_memory_is_left_alone_and_nothing_signed_is_done(
    start: Callable[..., Device], operator: Operator, tmp_path: Path
) -> None:
    (tmp_path / "commands.json").write_bytes(b"nonsense")
    device = start()
    device.send("cancel", operator.sign("cancel", "i1"))
    assert device.wait(1)["reason"] == "storage"
    device.send("restart_pipeline", Payload("i2", args={"what": "faces"}))
    assert device.wait(2)["outcome"] == "done"
    assert (tmp_path / "commands.json").read_bytes() == b"nonsense"


def test_a_kill_between_memory_and_action_does_not_act_twice(
    operator: Operator, tmp_path: Path
) -> None:
    (tmp_path / "command").write_bytes(msgspec.json.encode(operator.sign("cancel", "i1")))
    script = Path(__file__).with_name("commands_peer.py")

    def run() -> int:
        return subprocess.run([sys.executable, str(script), str(tmp_path)], timeout=60).returncode

    (tmp_path / "deadly").touch()
    assert run() == -9
    assert not (tmp_path / "told").exists() and not (tmp_path / "acted").exists()
    (tmp_path / "deadly").unlink()
    assert run() == 0
    told = [msgspec.json.decode(line) for line in (tmp_path / "told").read_bytes().splitlines()]
    assert [(t["outcome"], t["reason"], t.get("repeat")) for t in told] == [
        ("failed", "interrupted", None),
        ("failed", "interrupted", True),
    ]
    assert not (tmp_path / "acted").exists()
    # The same process does act on a command that it has not begun.
    (tmp_path / "command").write_bytes(msgspec.json.encode(operator.sign("cancel", "i2")))
    assert run() == 0
    assert (tmp_path / "acted").read_text() == "cancel\n"
