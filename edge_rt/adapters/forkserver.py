"""A fork server: copies of a process that has everything loaded, for work that may go wrong.

A fresh interpreter takes most of a second to start on a fast machine; a fork takes milliseconds
and shares its memory with us until one side writes. Forking is safe only while a process has one
thread, so the server is forked before the daemon starts any, and waits. It dies with its parent,
and each child dies with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

import msgspec

from edge_rt.core.errors import DaemonError
from edge_rt.core.trying import MAX_ERROR_TAIL_BYTES, MAX_OUTPUT_BYTES, Ended

# A task is a path and some numbers; a socket pair passes on what is far longer.
MAX_TASK_BYTES = 64 * 1024
# The server kills in time; one that does not answer by then is itself in trouble.
PATIENCE_S = 10.0
RETIRE_S = 2.0
_PDEATHSIG = 1  # linux/prctl.h

# Told a task and a descriptor to report to; its return value is the child's exit code.
Work = Callable[[bytes, int], int]


class _Order(msgspec.Struct, frozen=True):
    task: bytes
    timeout_s: float


class _Answer(msgspec.Struct, frozen=True):
    code: int | None


class Zygote:
    """A running fork server; itself a core.trying.Runner.

    work  what each child does. It runs in a process of its own, a copy of this one as it is now,
          with no descriptor open but stdin (empty), stdout and stderr (both kept for `Ended`).

    Raises DaemonError when this process already has more than one thread, or when the machine has
    no memory, process or descriptor left for it.
    """

    def __init__(self, work: Work) -> None:
        self._busy = threading.Lock()
        try:
            self._ours, self.pid = _start(work)
        except OSError as error:
            raise DaemonError(f"no fork server can be started ({error.strerror})") from None

    def __call__(self, task: bytes, timeout_s: float) -> Ended:
        """Have a child do `task`, killed after `timeout_s`; one at a time, others wait.

        Raises DaemonError when the fork server is gone; it cannot be started anew.
        """
        order = msgspec.msgpack.encode(_Order(task, timeout_s))
        if len(order) > MAX_TASK_BYTES:
            raise DaemonError(f"a task of {len(order)} bytes is over {MAX_TASK_BYTES}; shorten it")
        with self._busy, _memory("output") as output, _memory("errors") as errors:
            try:
                self._ours.settimeout(timeout_s + PATIENCE_S)
                socket.send_fds(self._ours, [order], [output, errors])
                said = self._ours.recv(MAX_TASK_BYTES)
            except OSError as error:
                said, reason = b"", str(error)
            else:
                reason = "it has ended"
            if not said:
                self._end()
                raise DaemonError(f"the fork server is gone ({reason}); restart the daemon")
            answer = msgspec.msgpack.decode(said, type=_Answer)
            size = os.fstat(errors).st_size
            return Ended(
                answer.code,
                os.pread(output, MAX_OUTPUT_BYTES, 0),
                os.pread(errors, MAX_ERROR_TAIL_BYTES, max(0, size - MAX_ERROR_TAIL_BYTES)),
            )

    def close(self) -> None:
        """End the server and what it runs."""
        self._ours.close()  # it sees the end of the stream, kills its child and leaves
        end_s = time.monotonic() + RETIRE_S
        with contextlib.suppress(ChildProcessError):  # ended and reaped before
            while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > end_s:
                    self._end()
                    return
                time.sleep(0.005)

    def _end(self) -> None:
        self._ours.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has gone by itself
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    """Descriptor of an unnamed file in memory: no reader is needed, no disk can be full."""
    descriptor = os.memfd_create(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _start(work: Work) -> tuple[socket.socket, int]:
    """Fork the server; our end of the link to it, and its process id."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise DaemonError(
            f"a process with {threads} threads cannot fork safely; start the fork server first"
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # What exists now is not looked at by the collector any more: looking writes to each
        # object, and what is written to is shared no longer.
        gc.collect()
        gc.freeze()
        daemon = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            raise
        if pid == 0:
            _serve(theirs, work, daemon)
    return ours, pid


# ---- in the server ----


def _serve(link: socket.socket, work: Work, parent: int) -> NoReturn:
    """Until the parent hangs up. Never returns into what the parent was doing."""
    try:
        _die_with(parent)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Meant for the whole group or unit: our end comes with the daemon's, in its order.
            signal.signal(number, signal.SIG_IGN)
        # The parent's end of the link is among what is closed here: without that we would never
        # see it hang up.
        _close_all_but(0, 1, 2, link.fileno())
        while True:
            said, descriptors, _, _ = socket.recv_fds(link, MAX_TASK_BYTES, 2)
            if not said:
                break
            order = msgspec.msgpack.decode(said, type=_Order)
            code = _run(order, descriptors, link, work)
            for descriptor in descriptors:
                os.close(descriptor)
            link.send(msgspec.msgpack.encode(_Answer(code)))
    except BaseException:  # ours to mend; a copy of the daemon must not go on as one
        traceback.print_exc()
    finally:
        os._exit(0)


def _run(order: _Order, descriptors: list[int], link: socket.socket, work: Work) -> int | None:
    output, errors = descriptors
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(order.task, output, errors, work, server)
    ended = os.pidfd_open(pid)
    try:
        deadline_s = time.monotonic() + order.timeout_s
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        waiting.register(link, 0)  # POLLHUP is always told: the parent is gone
        ready = waiting.poll(max(1.0, 1000.0 * (deadline_s - time.monotonic())))
        in_time = any(descriptor == ended for descriptor, _ in ready)
    finally:
        os.close(ended)
    # It leads a group of its own, and is not reaped yet: the number is certainly still its.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # killed before it had made its group
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if in_time else None


def _child(task: bytes, output: int, errors: int, work: Work, parent: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _die_with(parent)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        _close_all_but(0, 1, 2, output)
        code = work(task, output)
    except BaseException as error:  # a child may never run on as a server, whatever it met
        os.write(2, f"{type(error).__name__}: {error}\n".encode()[-MAX_ERROR_TAIL_BYTES:])
    finally:
        os._exit(code)


def _close_all_but(*kept: int) -> None:
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in kept:
            with contextlib.suppress(OSError):  # the one that read the list is closed already
                os.close(descriptor)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked: nobody will tell us any more
        os._exit(1)
