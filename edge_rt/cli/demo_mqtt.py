"""The demo's other side: a private broker, the fleet's receiver, and somebody who is told.

Everything is on loopback, in the demo's folder, and ended by its own handle: mosquitto with the
configuration that ships, certificates made for this one run, `edge-rt fleet listen`, and a tiny web
service that stands for a person's phone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.cli.child import child, last_words
from edge_rt.core.errors import DaemonError, InputError

FLEET, DEVICE = "demo", "demo"
HOST = "127.0.0.1"
START_S = 30.0
# A notification is a few hundred bytes.
MAX_MESSAGE_BYTES = 64 * 1024
_SUBSCRIBED = f"{FLEET}-receiver 1 edge-rt/v1/{FLEET}/+/evt/+"


class OtherSide:
    """What has come to the other side so far; told: titles of the messages that were taken."""

    def __init__(self, folder: Path, port: int, told: list[str]) -> None:
        self._folder = folder
        self._port = port
        self._told = told

    def config(self) -> dict[str, Any]:
        """The device's [mqtt] section."""
        return {
            "enabled": True,
            "host": HOST,
            "port": self._port,
            "ca": str(self._folder / "ca/ca.crt"),
            "cert": str(self._folder / f"{DEVICE}.crt"),
            "key": str(self._folder / f"{DEVICE}.key"),
        }

    def look(self, mqtt: dict[str, Any]) -> dict[str, Any]:
        """JSON-able; mqtt: the daemon's own status of its connection."""
        waiting = sum(mqtt["awaiting_receipt"].values())
        return {
            "connection": mqtt["state"],
            "arrived": self._arrived(),
            "without_receipt": waiting,
            "receipts": mqtt["receipts"],
            "told": list(self._told),
            "alarm_to_puback": mqtt.get("alarm_to_puback"),
        }

    def _arrived(self) -> list[dict[str, Any]]:
        from edge_rt.fleet.store import arrivals

        return [
            {
                "type": kind,
                # One clock made both stamps.
                "after_ms": round(1e3 * (_unix_s(received) - _unix_s(stamp))),
            }
            for kind, stamp, received in arrivals(self._folder / "events")
        ]


def find_mosquitto(path: str | None = None) -> str:
    """path: where to look, as $PATH; by default there, and where Debian puts programs for root.

    Raises InputError when it, or what the receiver needs to tell people, is not installed.
    """
    if path is None:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise InputError("--mqtt needs a broker of its own; apt-get install mosquitto")
    if find_spec("apprise") is None:
        raise InputError("--mqtt needs the receiver's parts; scripts/demo --mqtt installs them")
    return found


@contextlib.contextmanager
def other_side(folder: Path) -> Iterator[OtherSide]:
    """Broker, receiver and phone for as long as the context lasts; everything is in `folder`."""
    mosquitto = find_mosquitto()
    folder.mkdir(mode=0o700)
    _certificates(folder)
    port = _free_port()
    with contextlib.ExitStack() as stack:
        phone = stack.enter_context(_phone())
        url = f"json://{HOST}:{phone.server_address[1]}/"
        people = folder / "fleet.toml"
        people.touch(mode=0o600)
        people.write_text(f'[[people]]\nname = "You"\nurls = ["{url}"]\n')
        broker = _broker(folder, port)
        stack.enter_context(
            _running("mosquitto", [mosquitto, "-c", str(broker)], folder, _answers(port))
        )
        listen = [sys.executable, "-m", "edge_rt", "fleet", "listen"]
        listen += ["--host", HOST, "--port", str(port), "--fleet", FLEET]
        listen += ["--ca", str(folder / "ca/ca.crt"), "--cert", str(folder / "@receiver.crt")]
        listen += ["--key", str(folder / "@receiver.key"), "--store", str(folder / "events")]
        listen += ["--notify", str(people)]
        log = folder / "mosquitto.log"
        stack.enter_context(
            _running("fleet listen", listen, folder, lambda: _SUBSCRIBED in log.read_text())
        )
        yield OtherSide(folder, port, phone.told)


def missed(look: dict[str, Any]) -> list[str]:
    """What an alarm should have led to at the other side, and has not."""
    alarm = any(item["type"] == "edge_rt.fall.alarm" for item in look["arrived"])
    seen = {
        "the alarm at the other side": alarm,
        "a receipt for every event": alarm and not look["without_receipt"] and look["receipts"],
        "a person told": any(title.startswith("ALARM: ") for title in look["told"]),
    }
    return [what for what, was in seen.items() if not was]


def lines(look: dict[str, Any]) -> list[str]:
    """For a person, oldest first."""
    found = [
        f"arrived  {item['type'].removeprefix('edge_rt.'):<18} after {item['after_ms']} ms"
        for item in look["arrived"]
    ]
    return found + [f"told     {title}" for title in look["told"]]


# ---- parts ----


class _Phone(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Doorbell)
        self.told: list[str] = []


class _Doorbell(BaseHTTPRequestHandler):
    server: _Phone

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MAX_MESSAGE_BYTES:
            self.send_error(413)
            return
        message = msgspec.json.decode(self.rfile.read(length), type=dict[str, Any])
        self.server.told.append(str(message.get("title", "")))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def _phone() -> Iterator[_Phone]:
    with _Phone() as phone:
        threading.Thread(target=phone.serve_forever, args=(0.05,), daemon=True).start()
        yield phone
        phone.shutdown()


def _certificates(folder: Path) -> None:
    from edge_rt.fleet.certificates import Authority, make_request, write_private

    now = datetime.now(UTC)
    authority = Authority.make(folder / "ca", FLEET, now)
    for name in ("broker", "@receiver", DEVICE):
        request = make_request(name, FLEET)
        write_private(folder / f"{name}.key", request.key)
        if name == "broker":
            signed = authority.sign_broker(request.csr, name, [HOST], now, 1)
        else:
            signed = authority.sign_device(request.csr, name, now, 1)
        (folder / f"{name}.crt").write_bytes(signed)


def _broker(folder: Path, port: int) -> Path:
    shipped = files("edge_rt.firmware_configs") / "broker"
    acl = (shipped / "edge-rt.acl").read_text().replace("/v1/home/", f"/v1/{FLEET}/")
    (folder / "edge-rt.acl").write_text(acl)
    for name in ("ca.crt", "crl.pem"):
        shutil.copy(folder / "ca" / name, folder)
    text = (shipped / "mosquitto.conf").read_text()
    text = text.replace("/etc/mosquitto/edge-rt", str(folder))
    text = text.replace("/var/lib/mosquitto/", f"{folder}/")
    text = text.replace("listener 8883", f"listener {port} {HOST}")
    text += "log_type subscribe\n"
    if os.getuid() == 0:  # else it becomes a user who may not enter our folder
        text += "user root\n"
    path = folder / "mosquitto.conf"
    path.write_text(text)
    return path


@contextlib.contextmanager
def _running(name: str, words: list[str], folder: Path, ready: Any) -> Iterator[None]:
    """A process, once it is ready, until the end of the context."""
    log = folder / f"{name.replace(' ', '-')}.log"
    with child(words, log) as process:
        deadline = time.monotonic() + START_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DaemonError(f"{name} did not start: {last_words(log)}")
            time.sleep(0.02)
        yield


def _answers(port: int) -> Any:
    def look() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, port), 0.2).close()
            return True
        return False

    return look


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _unix_s(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
