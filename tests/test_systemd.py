"""What systemd is told, received by a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_rt.adapters.systemd import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5.0)
        yield listening


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_each_word_arrives(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    assert notifier.listened
    assert notifier.ready("falls watching") and heard(manager) == [
        "READY=1",
        "STATUS=falls watching",
    ]
    assert notifier.turned("a\nb") and heard(manager) == ["WATCHDOG=1", "STATUS=a b"]
    assert notifier.status("x") and heard(manager) == ["STATUS=x"]
    assert notifier.stopping() and heard(manager) == ["STOPPING=1"]
    assert notifier.more_time(2.5) and heard(manager) == ["EXTEND_TIMEOUT_USEC=2500000"]
    assert notifier.failed("bad", 2) and heard(manager) == ["STATUS=bad", "EXIT_STATUS=2"]


def test_an_abstract_name(tmp_path: Path) -> None:
    name = f"edge-rt-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(5.0)
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert heard(listening) == ["STOPPING=1"]


def test_nobody_listens_and_nothing_happens(tmp_path: Path) -> None:
    silent = Notifier({})
    assert not silent.listened and not silent.ready("x") and silent.watchdog_s == 0.0
    gone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert gone.listened and not gone.turned("x")


def test_a_manager_that_does_not_read_holds_up_nobody(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    sent = [notifier.turned("x" * 1000) for _ in range(5000)]
    assert sent[0] and not sent[-1]


def test_the_variables_are_taken_so_that_children_do_not_speak_for_us() -> None:
    environment = {
        "NOTIFY_SOCKET": "/nowhere",
        "WATCHDOG_USEC": "20000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    assert Notifier(environment).watchdog_s == 20.0
    assert environment == {"PATH": "/bin"}


def test_a_watchdog_that_is_meant_for_another_process() -> None:
    assert Notifier({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}).watchdog_s == 0.0
    assert Notifier({"WATCHDOG_USEC": "soon"}).watchdog_s == 0.0
