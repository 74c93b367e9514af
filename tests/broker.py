"""Plugin: a real mosquitto on loopback, with the configuration and ACL that the package ships.

Each broker has its own folder and port and is ended by its process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from edge_rt.adapters.mqtt import Settings
from edge_rt.fleet.certificates import Authority, make_request, write_private

FLEET = "home"
START_S = 10.0


def find_mosquitto() -> str | None:
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Pki:
    """An authority and what it signed, as files."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        """hosts: further names and addresses of the broker."""
        self.folder = folder
        self.authority = Authority.make(folder / "ca", FLEET, datetime.now(UTC))
        request = make_request("broker", FLEET)
        write_private(folder / "broker.key", request.key)
        names = ["localhost", "127.0.0.1", *hosts]
        signed = self.authority.sign_broker(request.csr, "broker", names, datetime.now(UTC))
        (folder / "broker.crt").write_bytes(signed)

    def client(self, name: str, now: datetime | None = None, days: int = 365) -> tuple[Path, Path]:
        """Certificate and key of a client, made at the first call."""
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        if not cert.exists():
            request = make_request(name, FLEET)
            write_private(key, request.key)
            made = self.authority.sign_device(request.csr, name, now or datetime.now(UTC), days)
            cert.write_bytes(made)
        return cert, key


class Broker:
    """mosquitto in a folder of its own; start() and kill() as often as wanted."""

    def __init__(
        self, folder: Path, pki: Pki | None, host: str = "127.0.0.1", more: str = ""
    ) -> None:
        """pki: TLS with client certificates as shipped; None: plain and open, on loopback.

        more: lines that take the place of those of the same name
        """
        self.folder = folder
        self.pki = pki
        self.host = host
        # The broker of another network namespace cannot be asked for a free port of its own.
        self.port = free_port("127.0.0.1" if not host.startswith("127.") else host)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        shipped = files("edge_rt.firmware_configs") / "broker"
        text = (shipped / "mosquitto.conf").read_text()
        if pki is not None:
            for name in ("broker.crt", "broker.key"):
                shutil.copy(pki.folder / name, folder)
            for name in ("ca.crt", "crl.pem"):
                shutil.copy(pki.authority.folder / name, folder)
            (folder / "edge-rt.acl").write_text((shipped / "edge-rt.acl").read_text())
            text = text.replace("/etc/mosquitto/edge-rt", str(folder))
        else:
            private = ("cafile", "certfile", "keyfile", "crlfile", "tls_", "require_", "use_id")
            dropped = (*private, "acl_file")
            lines = (x for x in text.splitlines() if not x.startswith(dropped))
            text = "\n".join(lines).replace("allow_anonymous false", "allow_anonymous true")
        text = text.replace("listener 8883", f"listener {self.port} {host}")
        text = text.replace("/var/lib/mosquitto/", f"{folder}/")
        for line in more.splitlines():
            name = line.split()[0] + " "
            kept = (x for x in text.splitlines() if not x.startswith(name))
            text = "\n".join([*kept, line])
        if os.getuid() == 0:  # else it becomes a user who may not enter the tests' folder
            text += "\nuser root"
        self.conf = folder / "mosquitto.conf"
        self.conf.write_text(text + "\n")

    def start(self, prefix: tuple[str, ...] = ()) -> None:
        binary = find_mosquitto()
        assert binary is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*prefix, binary, "-c", str(self.conf)], stdout=log, stderr=log
            )
        if not prefix:
            self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()
            try:
                socket.create_connection((self.host, self.port), 0.2).close()
                return
            except OSError:
                time.sleep(0.01)  # another process's start cannot be driven, only watched
        raise AssertionError(f"mosquitto did not start: {(self.folder / 'log').read_text()}")

    def wait_for_log(self, text: str) -> None:
        """Until the broker has logged this; needs `log_type` of it."""
        deadline = time.monotonic() + START_S
        while text not in (self.folder / "log").read_text():
            assert time.monotonic() < deadline, f"the broker never logged {text!r}"
            time.sleep(0.01)  # another process's progress can only be watched

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(10)

    def section(self, name: str) -> dict[str, object]:
        """The [mqtt] section of a daemon of this name, over TLS."""
        assert self.pki is not None
        cert, key = self.pki.client(name)
        ca = self.pki.authority.folder / "ca.crt"
        return {
            "enabled": True,
            "host": self.host,
            "port": self.port,
            "ca": str(ca),
            "cert": str(cert),
            "key": str(key),
        }

    def settings(self, name: str, **more: object) -> Settings:
        """How a client of this name connects."""
        if self.pki is None:
            base = Settings(self.host, self.port, name, insecure=True)
        else:
            cert, key = self.pki.client(name)
            ca = self.pki.authority.folder / "ca.crt"
            base = Settings(self.host, self.port, name, ca=ca, cert=cert, key=key)
        return base._replace(**more)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """Skips the test when there is no mosquitto."""
    found = find_mosquitto()
    if found is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    return found


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def make_broker(mosquitto: str, tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """`make_broker(pki)` or `make_broker(None)`: a started broker; ended after the test."""
    made: list[Broker] = []

    def make(
        pki: Pki | None, *, start: bool = True, host: str = "127.0.0.1", more: str = ""
    ) -> Broker:
        broker = Broker(tmp_path / f"broker{len(made)}", pki, host, more)
        made.append(broker)
        if start:
            broker.start()
        return broker

    yield make
    for broker in made:
        broker.kill()
