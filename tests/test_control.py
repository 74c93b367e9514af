"""The control socket: answers, refusals, streams, and peers that misbehave."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.core.errors import DaemonError, EdgeRtError, InputError
from edge_rt.core.turning import PATIENCE_S
from edge_rt.runtime.client import Client
from edge_rt.runtime.control import (
    BIND_BACKOFF_S,
    MAX_CONNECTIONS,
    MAX_STREAMS,
    TURN_S,
    Command,
    ControlServer,
    Peer,
    is_allowed,
)
from edge_rt.runtime.protocol import socket_path


def until(condition: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


class Number(msgspec.Struct, forbid_unknown_fields=True):
    n: int


def double(args: Number) -> dict[str, Any]:
    return {"n": 2 * args.n}


def count(args: Number) -> Iterator[dict[str, Any]]:
    for n in range(args.n):
        yield {"n": n}


def refuse(args: Number) -> dict[str, Any]:
    raise InputError(f"{args.n} is too many; take fewer")


def break_down(args: Number) -> dict[str, Any]:
    raise RuntimeError("a bug")


TABLE = {
    "double": Command(Number, double),
    "count": Command(Number, count),
    "refuse": Command(Number, refuse),
    "break": Command(Number, break_down),
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    server = ControlServer(tmp_path, TABLE)
    server.start()
    yield tmp_path
    server.close()
    assert not socket_path(tmp_path).exists()


def test_calls_and_streams(run_dir: Path) -> None:
    with Client(run_dir) as client:
        assert client.call("double", n=21) == {"n": 42}
        assert [item["n"] for item in client.stream("count", n=2)] == [0, 1]
        assert client.call("double", n=1) == {"n": 2}  # the connection goes on


def test_errors_cross_the_socket_and_leave_it_usable(run_dir: Path) -> None:
    with Client(run_dir) as client:
        for command, args, part in [
            ("refuse", {"n": 9}, "9 is too many; take fewer"),
            ("break", {"n": 1}, "see its log"),
            ("no such", {}, "unknown command 'no such'"),
            ("double", {"n": "x"}, "n"),
            ("double", {"n": 1, "m": 2}, "unknown field `m`"),
        ]:
            with pytest.raises(EdgeRtError, match=part):
                client.call(command, **args)
        assert client.call("double", n=2) == {"n": 4}


def test_an_iterator_is_closed_when_the_reader_goes(tmp_path: Path) -> None:
    closed = threading.Event()

    def endless(args: Number) -> Iterator[dict[str, Any]]:
        try:
            while True:
                yield {"n": args.n}
        finally:
            closed.set()

    server = ControlServer(tmp_path, {"endless": Command(Number, endless)})
    server.start()
    client = Client(tmp_path)
    assert next(iter(client.stream("endless", n=1))) == {"n": 1}
    client.close()
    assert closed.wait(10.0)
    server.close()


def test_nonsense_gets_an_answer(run_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(socket_path(run_dir)))
        raw.sendall(b"{not json\n")
        assert b"malformed request" in raw.recv(4096)


def test_idle_peers_keep_nobody_out(run_dir: Path) -> None:
    crowd = [Client(run_dir) for _ in range(MAX_CONNECTIONS)]
    for client in crowd:
        assert client.call("double", n=1) == {"n": 2}
    for n in range(3):
        with Client(run_dir) as one_more:
            assert one_more.call("double", n=n) == {"n": 2 * n}
    for client in crowd:
        client.close()


def test_streams_leave_room_for_commands(tmp_path: Path) -> None:
    over = threading.Event()

    def endless(args: Number) -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        over.wait(60.0)

    table = {"endless": Command(Number, endless), "double": Command(Number, double)}
    server = ControlServer(tmp_path, table)
    server.start()
    followers = [Client(tmp_path) for _ in range(MAX_STREAMS)]
    for follower in followers:
        assert next(follower.stream("endless", n=1)) == {"n": 1}
    with Client(tmp_path) as client:
        with pytest.raises(EdgeRtError, match="streams are being read"):
            list(client.stream("endless", n=1))
        assert client.call("double", n=1) == {"n": 2}
    over.set()
    server.close()


def test_a_request_without_an_end_costs_little_memory(run_dir: Path) -> None:
    greedy = []
    for _ in range(3):
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(0.3)
        raw.connect(str(socket_path(run_dir)))
        with contextlib.suppress(TimeoutError):  # nobody reads on: that is what we want to see
            for _ in range(10):
                raw.sendall(b"x" * 1_000_000)
        greedy.append(raw)
    with Client(run_dir) as client:
        assert client.call("double", n=1) == {"n": 2}
    for raw in greedy[1:]:
        raw.settimeout(30.0)
        assert b"another large request" in raw.recv(4096)
    for raw in greedy:
        raw.close()


def test_a_large_request_is_answered(run_dir: Path) -> None:
    with Client(run_dir) as client, pytest.raises(EdgeRtError, match="unknown field"):
        client.call("double", n=1, padding="x" * 5_000_000)
    with Client(run_dir) as client, pytest.raises(EdgeRtError, match="cut off, or over|hung up"):
        client.call("double", n=1, padding="x" * 12_000_000)


def test_no_daemon_names_socket_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        DaemonError, match=r"control\.sock; start one with: edge-rt run --config FILE, .*--run-dir"
    ):
        Client(tmp_path)


def test_a_socket_left_by_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path(tmp_path)))
    with pytest.raises(DaemonError, match="no daemon answers"):
        Client(tmp_path)
    server = ControlServer(tmp_path, TABLE)
    server.start()
    with Client(tmp_path) as client:
        assert client.call("double", n=1) == {"n": 2}
    server.close()


def test_a_socket_that_cannot_be_made_is_made_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "run"
    place.write_text("a file where a folder should be")
    server = ControlServer(place, TABLE)
    server.start()
    assert "run/control.sock: " in server.problem() and "choose another" in server.problem()

    def a_turn() -> bool:
        nonlocal stuck_s
        before_s, stuck_s = stuck_s, server.stuck_s()
        return stuck_s < before_s

    stuck_s = 0.0
    until(a_turn)
    until(a_turn)
    place.unlink()
    until(lambda: not server.problem())
    with Client(place) as client:
        assert client.call("double", n=4) == {"n": 8}
    server.close()
    assert not socket_path(place).exists()
    # However often it was tried.
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1
    assert 2 * max(BIND_BACKOFF_S) < PATIENCE_S["control"]


def test_a_server_without_a_socket_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    server = ControlServer(tmp_path / "run", TABLE)
    server.start()
    begun_s = time.monotonic()
    server.close()
    assert time.monotonic() - begun_s < TURN_S


def test_who_is_allowed(run_dir: Path) -> None:
    assert is_allowed(Peer(0, frozenset()), 990, None)
    assert is_allowed(Peer(990, frozenset()), 990, None)
    assert is_allowed(Peer(1000, frozenset({7})), 990, 7)
    assert not is_allowed(Peer(1000, frozenset({8})), 990, 7)
    assert not is_allowed(Peer(1000, frozenset({8})), 990, None)
    assert socket_path(run_dir).stat().st_mode & 0o777 == 0o660


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_a_stranger_is_refused_by_the_kernels_word(run_dir: Path) -> None:
    os.chmod(socket_path(run_dir), 0o666)  # even where the mode would let them pass
    os.chmod(run_dir, 0o755)
    for parent in run_dir.parents[:-1]:
        if parent.stat().st_uid == os.getuid() and parent.name.startswith(("pytest", "popen")):
            os.chmod(parent, 0o755)
    code = (
        "import os, socket, sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        'try:\n s.sendall(b\'{"id":1,"command":"double","args":{"n":1}}\\n\')\n'
        "except OSError: pass\nprint(s.recv(4096).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(socket_path(run_dir))],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "not allowed" in done.stdout, done.stderr
