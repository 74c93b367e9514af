"""The control socket: peers are checked by their credentials, commands come from one table."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_rt.core.errors import EdgeRtError, InputError, OperatorError
from edge_rt.runtime.protocol import MAX_LINE_BYTES, Problem, Reply, Request, socket_path

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16  # a thread each; the dashboard, a shell or two and the buttons
MAX_STREAMS = 8  # these stay; the other half is always free for commands
SMALL_LINE_BYTES = 16 * 1024  # every request but photographs is a few hundred bytes
# A folder that somebody has mended is noticed soon; a try costs a few system calls. Each wait is
# well within what core.turning allows.
BIND_BACKOFF_S = (1.0, 2.0, 5.0, 10.0)
TURN_S = 1.0  # without a peer, accepting shows so often that it is alive
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
        self._streams = threading.BoundedSemaphore(MAX_STREAMS)
        self._large = threading.BoundedSemaphore(1)
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        # When each peer last began to be idle; infinity while it is being served.
        self._idle_since: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._turned_s = time.monotonic()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to serve. A socket that cannot be made is tried again until it can: falls are
        watched without it, and `problem` says so."""
        self._bind()
        self._thread.start()

    def problem(self) -> str:
        """Why nobody can be served, or nothing."""
        return self._problem

    def stuck_s(self) -> float:
        """How long ago the accepting thread last turned, a try to make the socket included."""
        return time.monotonic() - self._turned_s

    def close(self) -> None:
        """Stop accepting, hang up on everyone, remove the socket."""
        self._closing.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):  # already shut down: nothing to wake
                self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(2 * TURN_S)  # it may just have made the socket
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)
        with self._lock:
            connections = list(self._idle_since)
        for connection in connections:
            _hang_up(connection)

    def _run(self) -> None:
        failures = 0
        while self._listener is None and not self._closing.is_set():
            self._turned_s = time.monotonic()
            if self._closing.wait(BIND_BACKOFF_S[min(failures, len(BIND_BACKOFF_S) - 1)]):
                return
            self._bind()
            failures += 1
        if self._listener is not None:
            self._accept(self._listener)

    def _bind(self) -> None:
        try:
            self._listener = self._make_listener()
        except OSError as error:
            problem = (
                f"cannot make the control socket {self._path}: {error.strerror or error}; "
                "choose another runtime.run_dir or mend its permissions"
            )
            if problem != self._problem:  # the same fault again and again is one line in the log
                log.error("%s", problem)
            self._problem = problem
            return
        if self._problem:
            log.info("control socket: made at last; commands are answered")
        self._problem = ""

    def _make_listener(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Under its name only when it answers: a client never meets a socket that does not. One
            # that a killed daemon left is replaced; the state lock proves no live one owns it.
            new = self._path.with_name(self._path.name + ".new")
            new.unlink(missing_ok=True)
            listener.bind(str(new))
            os.chmod(new, 0o660)
            # Not without need: a hardened service may not change owners at all.
            if self._group_id not in (None, new.stat().st_gid):
                os.chown(new, -1, self._group_id)
            listener.listen(MAX_CONNECTIONS)
            listener.settimeout(TURN_S)
            os.replace(new, self._path)
        except OSError:
            listener.close()
            raise
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            self._turned_s = time.monotonic()
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if self._closing.is_set():
                    return
                log.error("control socket: accept failed: %s", error)
                self._closing.wait(1.0)  # out of descriptors: do not spin
                continue
            if not self._make_room():
                log.warning("control socket: %d peers at work, one more refused", MAX_CONNECTIONS)
                connection.close()
                continue
            self._is_idle(connection)
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="control-peer", daemon=True
                ).start()
            except RuntimeError as error:  # no more threads to be had just now
                log.error("control socket: %s", error)
                self._forget(connection)
                self._closing.wait(1.0)

    def _make_room(self) -> bool:
        """A slot for one more peer. Where there is none, the one that is idle longest has to go:
        nobody may keep `help_now` out by holding connections open."""
        if self._slots.acquire(blocking=False):
            return True
        with self._lock:
            oldest = min(self._idle_since, key=self._idle_since.__getitem__)
            if self._idle_since[oldest] == math.inf:
                return False
        _hang_up(oldest)
        return self._slots.acquire(timeout=1.0)

    def _serve(self, connection: socket.socket) -> None:
        try:
            peer = peer_of(connection)
            if not is_allowed(peer, os.getuid(), self._group_id):
                log.warning("control socket: uid %d refused", peer.uid)
                problem = Problem("OperatorError", "not allowed; run as root or the service's user")
                self._send(connection, Reply(0, error=problem))
                return
            with connection.makefile("rb") as reader:
                while self._next(connection, reader):
                    self._is_idle(connection)
        except OSError as error:
            log.debug("control socket: peer went away: %s", error)
        finally:
            self._forget(connection)

    def _next(self, connection: socket.socket, reader: io.BufferedReader) -> bool:
        """Read and answer one request; False when there are no more."""
        line = reader.readline(SMALL_LINE_BYTES)
        if not line:
            return False
        if line.endswith(b"\n"):
            self._is_busy(connection)
            self._answer(connection, line)
            return True
        # Photographs: one such request at a time, for memory's sake.
        if not self._large.acquire(timeout=1.0):
            self._refuse(connection, "another large request is being served; try again")
            return False
        try:
            connection.settimeout(SEND_TIMEOUT_S)  # it is all there, or the peer has stalled
            line += reader.readline(MAX_LINE_BYTES - len(line))
            connection.settimeout(None)
            if not line.endswith(b"\n"):
                self._refuse(connection, f"request cut off, or over {MAX_LINE_BYTES} bytes")
                return False
            self._is_busy(connection)
            self._answer(connection, line)
            return True
        finally:
            self._large.release()

    def _refuse(self, connection: socket.socket, message: str) -> None:
        self._send(connection, Reply(0, error=Problem("InputError", message)))

    def _is_idle(self, connection: socket.socket) -> None:
        with self._lock:
            self._idle_since[connection] = time.monotonic()

    def _is_busy(self, connection: socket.socket) -> None:
        with self._lock:
            self._idle_since[connection] = math.inf

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            del self._idle_since[connection]
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
            self._stream(connection, request_id, outcome)
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

    def _stream(self, connection: socket.socket, request_id: int, items: Iterator[Result]) -> None:
        if not self._streams.acquire(blocking=False):
            raise OperatorError(f"{MAX_STREAMS} streams are being read; end one of them")
        try:
            for item in items:
                self._send(connection, Reply(request_id, item=dict(item)))
        finally:
            self._streams.release()
            if isinstance(items, Generator):
                items.close()  # its listener goes with it
        self._send(connection, Reply(request_id, result={}))

    @staticmethod
    def _send(connection: socket.socket, reply: Reply) -> None:
        connection.settimeout(SEND_TIMEOUT_S)
        try:
            connection.sendall(msgspec.json.encode(reply) + b"\n")
        finally:
            connection.settimeout(None)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer may have gone meanwhile
        connection.shutdown(socket.SHUT_RDWR)
