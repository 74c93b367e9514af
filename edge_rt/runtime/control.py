"""The control socket: peers are checked by their credentials, commands come from one table."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_rt.core.errors import EdgeRtError, InputError, OperatorError, StorageError
from edge_rt.runtime.protocol import MAX_LINE_BYTES, Problem, Reply, Request, socket_path

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16  # a thread each; the dashboard, a shell or two and the buttons
SEND_TIMEOUT_S = 5.0  # a reader that does not read is dropped: it must not pin a thread

Result = Mapping[str, Any]
Handler = Callable[[Any], "Result | Iterator[Result]"]


class Command(NamedTuple):
    """One row of the command table.

    arguments  msgspec struct that the request's args must fit
    handler    takes that struct; returns a result, or an iterator of items for a stream
    """

    arguments: type[msgspec.Struct]
    handler: Handler


class Peer(NamedTuple):
    """Who is at the other end, by the kernel's word (unix(7))."""

    uid: int
    groups: frozenset[int]


SO_PEERGROUPS = 59  # asm-generic/socket.h; Python's socket module does not name it


def peer_of(connection: socket.socket) -> Peer:
    """Credentials of a connected Unix socket's peer."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, gid = struct.unpack("3i", raw)
    # 1024 bytes is the most Python asks for: 256 groups; a peer in more is judged by uid and gid.
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        more = b""
    return Peer(uid, frozenset((gid, *struct.unpack(f"{len(more) // 4}i", more))))


def is_allowed(peer: Peer, own_uid: int, group_id: int | None) -> bool:
    """Root, the daemon's own user, and members of the group that the socket belongs to."""
    return peer.uid in (0, own_uid) or group_id in peer.groups


class ControlServer:
    """Serves `commands` on the socket in `run_dir`; one thread accepts, one serves each peer."""

    def __init__(
        self, run_dir: Path, commands: Mapping[str, Command], group_id: int | None = None
    ) -> None:
        self._path = socket_path(run_dir)
        self._commands = commands
        self._group_id = group_id
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Bind and begin to serve. Raises StorageError when the socket cannot be made."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)  # the state lock proves no live daemon owns it
            listener.bind(str(self._path))
            os.chmod(self._path, 0o660)
            if self._group_id is not None:
                os.chown(self._path, -1, self._group_id)
        except OSError as error:
            listener.close()
            raise StorageError(
                f"cannot make the control socket {self._path}: {error.strerror}; "
                "choose another runtime.run_dir or mend its permissions"
            ) from None
        listener.listen(MAX_CONNECTIONS)
        self._listener = listener
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop accepting, hang up on everyone, remove the socket."""
        self._closing.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):  # already shut down: nothing to wake
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._path.unlink(missing_ok=True)
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):  # the peer may have gone meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closing.is_set():
                    return
                log.error("control socket: accept failed: %s", error)
                self._closing.wait(1.0)  # out of descriptors: do not spin
                continue
            if not self._slots.acquire(blocking=False):
                log.warning("control socket: more than %d peers, one refused", MAX_CONNECTIONS)
                connection.close()
                continue
            with self._lock:
                self._open.add(connection)
            threading.Thread(
                target=self._serve, args=(connection,), name="control-peer", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            peer = peer_of(connection)
            if not is_allowed(peer, os.getuid(), self._group_id):
                log.warning("control socket: uid %d refused", peer.uid)
                problem = Problem("OperatorError", "not allowed; run as root or the service's user")
                self._send(connection, Reply(0, error=problem))
                return
            with connection.makefile("rb") as reader:
                while line := reader.readline(MAX_LINE_BYTES + 1):
                    if len(line) > MAX_LINE_BYTES:
                        problem = Problem("InputError", f"request over {MAX_LINE_BYTES} bytes")
                        self._send(connection, Reply(0, error=problem))
                        return
                    self._answer(connection, line)
        except OSError as error:
            log.debug("control socket: peer went away: %s", error)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
            self._slots.release()

    def _answer(self, connection: socket.socket, line: bytes) -> None:
        request_id = 0
        try:
            request = msgspec.json.decode(line, type=Request)
            request_id = request.id
            command = self._commands.get(request.command)
            if command is None:
                raise InputError(f"unknown command {request.command!r}")
            outcome = command.handler(msgspec.convert(request.args, command.arguments))
            if isinstance(outcome, Mapping):
                self._send(connection, Reply(request_id, result=dict(outcome)))
                return
            for item in outcome:
                self._send(connection, Reply(request_id, item=dict(item)))
            self._send(connection, Reply(request_id, result={}))
        except msgspec.DecodeError as error:
            problem = Problem("InputError", f"malformed request: {error}")
            self._send(connection, Reply(request_id, error=problem))
        except EdgeRtError as error:
            if not isinstance(error, OperatorError):
                log.warning("control socket: %s", error)
            problem = Problem(type(error).__name__, str(error))
            self._send(connection, Reply(request_id, error=problem))
        except OSError:
            raise  # the connection itself: _serve ends it
        except Exception:  # a bug in one handler must not end the daemon's control
            log.exception("control socket: command failed")
            problem = Problem("Bug", "the command failed inside the daemon; see its log")
            self._send(connection, Reply(request_id, error=problem))

    @staticmethod
    def _send(connection: socket.socket, reply: Reply) -> None:
        connection.settimeout(SEND_TIMEOUT_S)
        try:
            connection.sendall(msgspec.json.encode(reply) + b"\n")
        finally:
            connection.settimeout(None)
