"""A broker that accepts everybody and then sends whatever it likes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

CONNACK = b"\x20\x03\x00\x00\x00"  # MQTT 5.0, no properties
BASE = b"edge-rt/v1/home/models"


def publish(topic: bytes, payload: bytes, length: int | None = None) -> bytes:
    """A PUBLISH of QoS 0; `length`: what its header claims to come."""
    body = struct.pack(">H", len(topic)) + topic + b"\x00" + payload
    left, header = length or len(body), bytearray([0x31])
    while True:
        left, digit = divmod(left, 128)
        header.append(digit | (0x80 if left else 0))
        if not left:
            return bytes(header) + body


class RogueBroker:
    """Plain TCP on loopback. kind:

    flood      metadata of ours without end, each over its limit
    strangers  topics that nobody asked for
    endless    one message that claims 200 MB and goes on and on
    dropped    connections that the other side ended; sent: bytes
    """

    pki = None
    host = "127.0.0.1"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.dropped = self.sent = 0
        self._socket = socket.create_server((self.host, 0))
        self.port: int = self._socket.getsockname()[1]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> RogueBroker:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                client.recv(4096)
                client.sendall(CONNACK)
                self._pester(client)
            self.dropped += 1

    def _pester(self, client: socket.socket) -> None:
        if self.kind == "endless":
            topic = BASE + b"/metadata/timestamp.json"
            self._send(client, publish(topic, b"x" * 1000, 200_000_000))
        block = b"x" * 20_000
        while not self._closing.is_set():
            if self.kind == "flood":
                block = publish(BASE + b"/metadata/timestamp.json", b"x" * 20_000)
            elif self.kind == "strangers":
                block = publish(b"some/where/else", b"x" * 500)
            self._send(client, block)

    def _send(self, client: socket.socket, data: bytes) -> None:
        client.sendall(data)
        self.sent += len(data)
