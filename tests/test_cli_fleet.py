"""`edge-rt provision` and `edge-rt fleet`, from an empty folder to a kept event."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from broker import Broker
from inbox import Inbox, until
from test_receiver import publisher, send
from test_store import arrived

from edge_rt.cli import main
from edge_rt.core.uplink_wire import Topics
from edge_rt.fleet.certificates import Authority
from edge_rt.fleet.store import Store


def test_a_fleet_is_provisioned_step_by_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca, there = str(tmp_path / "ca"), str(tmp_path / "dev")
    assert main(["provision", "authority", ca, "--fleet", "home"]) == 0
    assert main(["provision", "request", "dev1", "--out", there]) == 0
    assert (tmp_path / "dev/dev1.key").stat().st_mode & 0o777 == 0o600
    csr = f"{there}/dev1.csr"
    assert main(["provision", "sign", ca, csr, "--name", "dev1", "--out", there]) == 0
    assert main(["provision", "sign", ca, csr, "--name", "dev2"]) == 2
    assert main(["provision", "request", "broker", "--out", there]) == 0
    request = f"{there}/broker.csr"
    hosts = ["--host", "hub.local", "--host", "10.0.0.1"]
    words = ["provision", "sign", ca, request, "--name", "broker", *hosts, "--days", "30"]
    assert main([*words, "--out", there]) == 0
    assert main(["provision", "revoke", ca, "dev1"]) == 0
    capsys.readouterr()
    assert main(["provision", "list", ca, "--json"]) == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states == {"dev1": "revoked", "broker": "renew"}
    assert len(Authority(tmp_path / "ca").issued) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["provision", "list", "nowhere"],
        ["provision", "request", "a/b"],
        ["fleet", "devices", "nowhere"],
        ["fleet", "listen", "--store", "s", "--cert", "x"],
        ["fleet", "listen", "--store", "s", "--cert", "x", "--key", "./nowhere"],
        ["fleet", "listen", "--store", "s", "--insecure", "--notify", "./nowhere"],
        ["fleet", "notify", "./nowhere"],
        ["fleet", "notices", "nowhere"],
    ],
)
def test_what_a_person_can_mend_is_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / w) if w in ("nowhere", "s") else w for w in words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_devices_touches_nothing_of_a_store_that_is_being_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Store(tmp_path)
    kept.add([arrived(1)])
    lines = tmp_path / "events.jsonl"
    with lines.open("ab") as file:  # as a listener has it between its lines and its commit
        file.write(b"{half")
    before = lines.read_bytes()
    assert main(["fleet", "devices", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["newest"] == 1
    assert lines.read_bytes() == before
    kept.close()


def test_listen_says_why_it_hears_nothing_once_and_again_when_that_changes(
    make_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    broker = make_broker(None, start=False, more="allow_anonymous false")
    words = ["fleet", "listen", "--port", str(broker.port), "--host", broker.host, "--insecure"]
    with socket.create_server((broker.host, broker.port)) as server:
        server.settimeout(30)
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_rt", *words, "--store", str(tmp_path / "store")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3):  # it tries again and again
            server.accept()[0].close()
    broker.start()
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        lines += [] if "Not authorized" in lines[-1] else [process.stderr.readline()]
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=15)[1]
    finally:
        process.kill()
    place = f"edge-rt: warning: {broker.host}:{broker.port}"
    assert "--insecure" in lines[0]
    assert lines[1].startswith(f"{place} hung up before it answered; ")
    refused = "edge-rt: warning: the broker refuses the connection: Not authorized; check user"
    # Between the two there may have been nobody at all.
    assert all(line.startswith(f"{place} refuses TCP connections; ") for line in lines[2:-1])
    assert lines[-1].startswith(refused)
    assert rest == ""


def test_listen_keeps_prints_and_ends_when_told(
    make_broker: Callable[..., Broker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = make_broker(None, more="log_type all")
    store = tmp_path / "store"
    words = ["fleet", "listen", "--port", str(broker.port), "--host", broker.host, "--insecure"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_rt", *words, "--store", str(store), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    device = publisher(broker)
    item = arrived(1)
    topic = Topics("home", "dev1").event("device")
    try:
        assert process.stdout is not None
        # Not before it has subscribed: this test's device does not send again by itself.
        broker.wait_for_log("home-receiver 1 edge-rt/v1/home/+/evt/+")
        send(device, topic, item.body)
        send(device, topic, item.body)
        assert json.loads(process.stdout.readline())["id"] == item.event.id
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, rest) == (0, "")
    assert "--insecure" in errors
    device.close()
    assert main(["fleet", "devices", str(store), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["device"], row["newest"], row["missing"]) == ("dev1", 1, [])
    assert main(["fleet", "devices", str(store)]) == 0
    assert "dev1" in capsys.readouterr().out


def people(folder: Path, *urls: str, mode: int = 0o600) -> str:
    path = folder / "fleet.toml"
    path.write_text(
        "".join(f'[[people]]\nname = "P{k}"\nurls = ["{url}"]\n' for k, url in enumerate(urls))
    )
    path.chmod(mode)
    return str(path)


def test_the_test_message_says_of_each_service_whether_it_took_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Inbox() as inbox:
        file = people(tmp_path, inbox.url("ada"), inbox.url("ben", "no"), inbox.url("ada"))
        assert main(["fleet", "notify", file]) == 0
        assert inbox.taken == []
        capsys.readouterr()
        assert main(["fleet", "notify", file, "--test", "--json"]) == 1
        results = [row["result"] for row in json.loads(capsys.readouterr().out)]
        assert (results[0], results[2]) == ("ok", "ok")
        assert results[1].startswith("failed: ") and "500" in results[1]
        assert inbox.taken == ["ada: edge_rt test"] * 2
    assert main(["fleet", "notify", people(tmp_path, "json://a", mode=0o644)]) == 2
    assert "chmod 600" in capsys.readouterr().err
    assert main(["fleet", "notify", people(tmp_path, "json://s3cret:x@")]) == 2
    assert "s3cret" not in capsys.readouterr().err


def test_an_alarm_is_told_by_listen_though_it_is_killed_in_the_middle(
    make_broker: Callable[..., Broker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = make_broker(None, more="log_type all")
    store = tmp_path / "store"
    topic = Topics("home", "dev1").event("fall")

    def listen(file: str) -> subprocess.Popen[str]:
        words = ["--port", str(broker.port), "--host", broker.host, "--insecure"]
        words += ["--store", str(store), "--notify", file]
        return subprocess.Popen(
            [sys.executable, "-m", "edge_rt", "fleet", "listen", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    device = publisher(broker)
    with Inbox() as inbox:
        first = listen(people(tmp_path, inbox.url("ada", "hang"), inbox.url("ben")))
        try:
            broker.wait_for_log("home-receiver 1 edge-rt/v1/home/+/evt/+")
            send(device, topic, arrived(1, "fall", "alarm", incident="i1").body)
            until(lambda: inbox.hung and inbox.taken, lambda: inbox.wait(0.02))
            assert first.stderr is not None
            while "P1 by" not in first.stderr.readline():  # it is marked as told
                assert first.poll() is None
        finally:
            first.kill()
            first.communicate(timeout=15)
        assert inbox.taken == ["ben: ALARM: dev1"]
        inbox.let_go()
        second = listen(people(tmp_path, inbox.url("ada", "hang"), inbox.url("ben")))
        try:
            # Nothing comes by MQTT: it is the store that knows of the alarm.
            until(lambda: inbox.taken.count("ada: ALARM: dev1") == 2, lambda: inbox.wait(0.02))
            assert second.stderr is not None
            lines = [second.stderr.readline() for _ in range(2)]
            send(device, topic, arrived(2, "fall", "resolved", incident="i1").body)
            until(lambda: len(inbox.taken) == 5, lambda: inbox.wait(0.02))
        finally:
            second.send_signal(signal.SIGTERM)
            second.communicate(timeout=15)
    assert second.returncode == 0
    assert sorted(inbox.taken[3:]) == ["ada: ALARM over: dev1", "ben: ALARM over: dev1"]
    assert "ALARM: dev1: P0 by json://127.0.0.1" in lines[1] and lines[1].endswith("told\n")
    device.close()
    assert main(["fleet", "notices", str(store)]) == 0


def test_on_a_terminal_listen_is_a_live_table(
    make_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    broker = make_broker(None, more="log_type all")
    words = ["fleet", "listen", "--port", str(broker.port), "--host", broker.host, "--insecure"]
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_rt", *words, "--store", str(tmp_path / "store")],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(theirs)
    shown = b""

    def until_shown(*parts: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + 20
        while not all(part in shown for part in parts):
            assert time.monotonic() < deadline, shown[-3000:]
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 65536)

    device = publisher(broker)
    try:
        broker.wait_for_log("home-receiver 1 edge-rt/v1/home/+/evt/+")
        until_shown(b"fleet home: online, 0 devices")
        evil = arrived(1, "fall", "alarm", incident="i1", note="\x1b]0;owned\x07[red]")
        send(device, Topics("home", "dev1").event("fall"), evil.body)
        until_shown(b"1 devices, 1 events stored", b"dev1", b"fall.alarm", b"?]0;owned?[red]")
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"\x1b]0;" not in shown
    device.close()
