"""JSON lines over a connected socket, typed at both ends; and a child process at the other end."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

Incoming = TypeVar("Incoming")

# A peer that does not read for so long is hung; its supervisor finds out by the missing beats.
SEND_TIMEOUT_S = 2.0
MAX_LOG_LINE = 1024

log = logging.getLogger(__name__)


class Link(Generic[Incoming]):
    """One end of a connection. `send` is safe from several threads, `receive` is for one."""

    def __init__(self, connection: socket.socket, incoming: Any, max_bytes: int) -> None:
        """incoming: the type, or union of tagged types, that lines are decoded to."""
        self._socket = connection
        # The kernel's send time-out: Python's own would switch the reading side as well.
        seconds = int(SEND_TIMEOUT_S).to_bytes(8, sys.byteorder) + bytes(8)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        self._reader = connection.makefile("rb")
        self._decoder = msgspec.json.Decoder(incoming)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def send(self, message: msgspec.Struct) -> None:
        """Raises OSError when the other end is gone or does not read."""
        line = msgspec.json.encode(message) + b"\n"
        with self._lock:
            self._socket.sendall(line)

    def receive(self) -> Incoming | None:
        """The next message; None when the other end is gone. Raises msgspec.DecodeError."""
        try:
            line = self._reader.readline(self._max_bytes + 1)
        except OSError:  # reset by a killed peer: the same as its end
            return None
        if not line.endswith(b"\n"):
            return None
        message: Incoming = self._decoder.decode(line)
        return message

    def close(self) -> None:
        """Hang up; a `receive` in another thread returns None."""
        with contextlib.suppress(OSError):  # the peer may have hung up first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


# glibc takes blocks from the heap once it has seen one of their size freed, up to 32 MB: loading a
# model leaves holes as large as the model. With a threshold that is set, such blocks go back to the
# system (mallopt(3), M_MMAP_THRESHOLD). Frames of 640 x 480 lie below it and are not mapped each.
HEAP = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


class Child:
    """A Python module running in a process of its own, tied to us by a socket pair.

    The child finds its end's descriptor as the last argument. It sees the end of the stream when
    this process dies, however it dies. What it writes to stderr becomes lines of our log.
    """

    def __init__(self, module: str, arguments: Sequence[str] = ()) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **HEAP},
                # Not ours: a chatty child could fill a stderr that nobody reads, and so stop us.
                stderr=subprocess.PIPE,
            )
        self.connection = ours
        self.pid = self._process.pid
        threading.Thread(target=self._relay, name="child-stderr", daemon=True).start()

    def _relay(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            while line := stderr.readline(MAX_LOG_LINE):
                log.info("%d: %s", self.pid, line.decode("utf-8", "replace").rstrip())

    def resident_mb(self) -> float:
        """Its resident memory in MB; 0 when it is gone (proc(5), statm)."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as statm:
                pages = int(statm.read().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def kill(self) -> None:
        """End it for good (SIGKILL) and reap it."""
        self._process.kill()
        # A process in an uninterruptible driver call cannot die now; init will reap it then.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self.connection.close()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, None if it still runs then."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


def parent_connection(arguments: Sequence[str]) -> socket.socket:
    """In the child: the socket whose descriptor is the last argument."""
    return socket.socket(fileno=int(arguments[-1]))
