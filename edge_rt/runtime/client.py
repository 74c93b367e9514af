"""The other end of the control socket, for the command line and the dashboard."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from edge_rt.core.errors import DaemonError, DeniedError, error_from
from edge_rt.runtime.protocol import Reply, Request, socket_path

# Enrolment waits for several good frames; everything else answers at once.
CALL_TIMEOUT_S = 60.0


class Client:
    """A connection to the daemon whose socket lies in `run_dir`.

    Raises DaemonError throughout, DeniedError if the socket may not be opened, and what the daemon
    itself refused a command with.
    """

    def __init__(self, run_dir: Path, timeout_s: float = CALL_TIMEOUT_S) -> None:
        path = socket_path(run_dir)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise DaemonError(
                f"no daemon answers at {path}; start one with: edge-rt run --config FILE, "
                "or name the run_dir of its configuration: --run-dir"
            ) from None
        except PermissionError:
            self._socket.close()
            raise DeniedError(
                f"the daemon at {path} may be running, but this user may not ask it; "
                "use sudo, or join the group edge-rt and log in anew"
            ) from None
        except OSError as error:
            self._socket.close()
            raise DaemonError(
                f"cannot reach the daemon at {path}: {error.strerror}; see its log"
            ) from None
        self._reader = self._socket.makefile("rb")
        self._next_id = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._reader.close()
        self._socket.close()

    def call(self, command: str, **args: Any) -> dict[str, Any]:
        """Run a command and return its result."""
        self._send(command, args)
        while True:
            reply = self._receive()
            if reply.result is not None:
                return reply.result

    def stream(self, command: str, **args: Any) -> Iterator[dict[str, Any]]:
        """Run a streaming command and yield its items until it ends."""
        self._send(command, args)
        self._socket.settimeout(None)  # a quiet stream is not a dead one
        while True:
            reply = self._receive()
            if reply.item is None:
                return
            if reply.item:  # an empty one only asks whether we are still there
                yield reply.item

    def _send(self, command: str, args: dict[str, Any]) -> None:
        self._next_id += 1
        request = Request(self._next_id, command, args)
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
        except OSError as error:
            raise DaemonError(f"the daemon hung up ({error.strerror}); see its log") from None

    def _receive(self) -> Reply:
        try:
            line = self._reader.readline()
        except TimeoutError:
            raise DaemonError("the daemon did not answer in time; see edge-rt status") from None
        except OSError as error:
            raise DaemonError(f"the daemon hung up ({error.strerror}); see its log") from None
        if not line:
            raise DaemonError("the daemon closed the connection; see its log")
        try:
            reply = msgspec.json.decode(line, type=Reply)
        except msgspec.DecodeError as error:
            raise DaemonError(f"the daemon sent nonsense ({error}); versions differ?") from None
        if reply.error is not None:
            raise error_from(reply.error.kind, reply.error.message)
        return reply
