"""Programs that act in the room: fixed argv, no shell, no inherited environment, a time limit."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edge_rt.core.errors import ConfigError, HardwareError

# Nothing of ours: a credential's folder or a proxy's password is none of a siren's business.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
LOOK_S = 0.05  # between looks at a program that runs; so soon another wish ends it
TERM_S = 0.5  # between asking a program to end and ending it
KILL_S = 1.0  # one in an uninterruptible call dies later; it is left behind then
MAX_LEFT = 4  # so many may be left behind; an alarm would start another one with each try
INTERPRETER = re.compile(r"(ba|da|z|k|tc|c)?sh$|busybox|env$|python|perl|ruby|node|lua|php|tclsh")
MAX_LINKS = 40  # as the kernel's own bound (path_resolution(7))

_left: list[subprocess.Popen[bytes]] = []
_leaving = threading.Lock()


def run(argv: Sequence[str], limit_s: float, enough: threading.Event) -> int | None:
    """Run a program to its end; its exit code (negative: the signal that ended it).

    None: it was ended, at the limit or because `enough` was set. What it started in its process
    group does not outlive it. Raises HardwareError when it cannot be started, or when too many that
    were started before cannot be ended.
    """
    with _leaving:
        _left[:] = [process for process in _left if process.poll() is None]
        if len(_left) >= MAX_LEFT:
            stuck = ", ".join(str(process.pid) for process in _left)
            raise HardwareError(
                f"{argv[0]}: not started, processes {stuck} cannot be ended; reboot"
            )
    try:
        process = subprocess.Popen(
            list(argv),
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, to be ended as a whole
        )
    except OSError as error:
        raise HardwareError(
            f"{argv[0]}: {error.strerror}; correct the command in [outputs]"
        ) from None
    end_s = time.monotonic() + limit_s
    try:
        while not (ended := _has_ended(process.pid)) and time.monotonic() < end_s:
            if enough.wait(LOOK_S):
                break
    finally:
        _end_group(process)
    return process.returncode if ended else None


def check_trusted(config: Path, programs: Iterable[Sequence[str]]) -> None:
    """Whoever can change a program or the file that names it can run what they like as the
    service: raises ConfigError unless both, all folders above and all links on the way, are root's
    alone to write.

    programs  each with its arguments: a full path among them that can be run, or that an
              interpreter is given, is looked at too. Data is not, nor what a program itself reads
              or starts, nor a path inside an argument
    """
    for argv in programs:
        program = argv[0]
        if not os.path.isabs(program):
            raise ConfigError(f"{config}: program {program!r} needs its full path, from / on")
        if not _is_program(program):
            raise ConfigError(f"{config}: {program} is no program; correct [outputs]")
        _check_root_owned(os.path.join(os.getcwd(), config))
        interprets = INTERPRETER.match(os.path.basename(os.path.realpath(program)))
        for path in argv:
            if os.path.isabs(path) and (interprets or _is_program(path)):
                _check_root_owned(path)


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _check_root_owned(path: str) -> None:
    for place in _way(path):
        found = place.lstat()
        # A link has no mode of its own, and a device is no program. In a sticky folder (/tmp)
        # nobody can replace what belongs to root.
        loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and (
            stat.S_ISREG(found.st_mode)
            or (stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_ISVTX)
        )
        if found.st_uid != 0 or loose:
            raise ConfigError(
                f"{place}: others than root may change it, and so what [outputs] runs; "
                f"chown -h root {place} && chmod go-w {place}"
            )


def _way(path: str) -> Iterator[Path]:
    """Every folder, link and file that the kernel passes on its way from / to where path leads; up
    to where there is nothing."""
    place, links = Path("/"), 0
    yield place
    names = [name for name in reversed(path.split("/")) if name not in ("", ".")]
    while names:
        name = names.pop()
        if name == "..":
            place = place.parent
            continue
        here = place / name
        if not os.path.lexists(here):
            return
        yield here
        if not here.is_symlink():
            place = here
            continue
        links += 1
        if links > MAX_LINKS:
            raise ConfigError(f"{path}: too many links; name the program itself")
        target = os.readlink(here)
        names += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        if target.startswith("/"):
            place = Path("/")


def _has_ended(pid: int) -> bool:
    # Not reaped yet: while it is a zombie, its process group's number belongs to nobody else.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        # All of them have ended; or one has become another user, and is left behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        end_s = time.monotonic() + patience_s
        while not _has_ended(process.pid) and time.monotonic() < end_s:
            time.sleep(LOOK_S / 5)
    with contextlib.suppress(subprocess.TimeoutExpired):  # in an uninterruptible call
        process.wait(0.0)
    if process.returncode is None:
        with _leaving:
            _left.append(process)
