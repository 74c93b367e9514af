"""Debian root file systems, made once and kept in $EDGE_RT_BEDS (by default /var/tmp/edge-rt-beds).

What cannot be made here raises NoBed with the reason; tests skip with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BUILD_S = 900.0  # packages through a slow mirror, beside other work
# Nothing reads these, and they are a quarter of the size.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
SERVICE_PACKAGES = ("systemd", "systemd-sysv", "dbus", "udev", "python3", "python3-venv", "procps")


class NoBed(Exception):
    """This machine cannot have the bed; says why."""


def beds_dir() -> Path:
    """Where beds are kept between runs."""
    return Path(os.environ.get("EDGE_RT_BEDS", "/var/tmp/edge-rt-beds"))


def needs(*commands: str) -> None:
    """Raises NoBed without root or one of the commands."""
    if os.geteuid() != 0:
        raise NoBed("needs root")
    missing = [name for name in commands if shutil.which(name) is None]
    if missing:
        raise NoBed(f"needs the commands {', '.join(missing)}: see scripts/setup dev")


def debian_mirror() -> str:
    """The mirror that this machine's own packages come from. Raises NoBed."""
    lists = Path("/etc/apt")
    for path in (*lists.glob("sources.list.d/*.sources"), *lists.glob("sources.list*")):
        if path.is_file():
            found = re.search(r"^(?:URIs:|deb(?: \[.*\])?) *(\S+)", path.read_text(), re.M)
            if found:
                return found[1]
    raise NoBed("needs a Debian mirror in /etc/apt")


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Whoever comes second waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        end_s = time.monotonic() + BUILD_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end_s:
                    raise NoBed(f"{path} is held by another run") from None
                time.sleep(0.2)
        yield


def debian(name: str, packages: Sequence[str] = SERVICE_PACKAGES, suite: str = "bookworm") -> Path:
    """A root file system with these packages; nobody may write to it. Raises NoBed."""
    needs("mmdebstrap")
    recipe = hashlib.sha256(repr((suite, sorted(packages), LEFT_OUT)).encode()).hexdigest()[:10]
    root = beds_dir() / f"{name}-{suite}-{recipe}"
    with only_one(root.with_suffix(".lock")):
        if not root.exists():
            _make(root, packages, suite)
    return root


def _make(root: Path, packages: Sequence[str], suite: str) -> None:
    new = root.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
        '--aptopt=Acquire::Check-Valid-Until "false"',
        '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(suite, str(new), f"deb {debian_mirror()} {suite} main"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S)
    if done.returncode:
        shutil.rmtree(new, ignore_errors=True)
        raise NoBed(f"mmdebstrap failed: {' '.join(done.stderr.split())[-300:]}")
    (new / "etc/machine-id").write_text("")  # each boot gets one of its own
    new.rename(root)
