"""Programs that act in the room: fixed argv, no shell, no inherited environment, a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_rt.core.errors import ConfigError, HardwareError

# Nothing of ours: a credential's folder or a proxy's password is none of a siren's business.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
LOOK_S = 0.05  # between looks at a program that runs; so soon another wish ends it
TERM_S = 0.5  # between asking a program to end and ending it
KILL_S = 1.0  # one in an uninterruptible call dies later; it is left behind then


def run(argv: Sequence[str], limit_s: float, enough: threading.Event) -> int | None:
    """Run a program to its end; its exit code (negative: the signal that ended it).

    None: it was ended, at the limit or because `enough` was set. What it started in its process
    group does not outlive it. Raises HardwareError when it cannot be started.
    """
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


def check_trusted(config: Path, programs: Iterable[str]) -> None:
    """Whoever can change a program or the file that names it can run what they like as the
    service: raises ConfigError unless both, and all folders above, are root's alone to write."""
    for program in programs:
        if not os.path.isabs(program):
            raise ConfigError(f"{config}: program {program!r} needs its full path, from / on")
        path = Path(program)
        if not path.is_file() or not os.access(path, os.X_OK):
            raise ConfigError(f"{config}: {program} is no program; correct [outputs]")
        _check_root_owned(config)
        _check_root_owned(path)
        _check_root_owned(path.resolve())


def _check_root_owned(path: Path) -> None:
    place = Path(os.path.abspath(path))
    for part in (place, *place.parents):
        found = part.stat()
        # In a sticky folder (/tmp) nobody can replace what belongs to root.
        loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (
            part != place and found.st_mode & stat.S_ISVTX
        )
        if found.st_uid != 0 or loose:
            raise ConfigError(
                f"{part}: others than root may change it, and so what [outputs] runs; "
                f"chown root {part} && chmod go-w {part}"
            )


def _has_ended(pid: int) -> bool:
    # Not reaped yet: while it is a zombie, its process group's number belongs to nobody else.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, number)
        end_s = time.monotonic() + patience_s
        while not _has_ended(process.pid) and time.monotonic() < end_s:
            time.sleep(LOOK_S / 5)
    with contextlib.suppress(subprocess.TimeoutExpired):  # in an uninterruptible call
        process.wait(0.0)
