"""Debian's systemd as process 1 of a container, and commands in it (systemd-nspawn, nsenter).

What is written there is forgotten at the end; there is no network but loopback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from beds.rootfs import NoBed, needs

BOOT_S = 60.0
PATIENCE_S = 60.0  # every wait below ends as soon as its condition holds
HYBRID, UNIFIED = Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")


class Container:
    """One that has booted; `leader` is its process 1 as seen from here."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def try_run(self, *command: str, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Run as root in there: exit code, and what it wrote to stdout and stderr."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--"]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root"}
        done = subprocess.run(
            [*enter, *command],
            env={**environment, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def run(self, *command: str, timeout_s: float = PATIENCE_S) -> str:
        """As try_run, for what has to succeed."""
        code, said = self.try_run(*command, timeout_s=timeout_s)
        assert code == 0, f"{' '.join(command)}: exit {code}\n{said}"
        return said

    def shell(self, script: str, timeout_s: float = PATIENCE_S) -> str:
        """A shell script that has to succeed."""
        return self.run("/bin/sh", "-ec", script, timeout_s=timeout_s)

    def write(self, path: str, text: str) -> None:
        """A file in there."""
        self.shell(f"mkdir -p $(dirname {path}); cat > {path} <<'END_OF_FILE'\n{text}\nEND_OF_FILE")

    def push(self, file: Path, path: str) -> None:
        """A file of this machine, in there under `path`."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "--", "sh", "-c", f"cat > {path}"]
        with file.open("rb") as data:
            subprocess.run(enter, stdin=data, check=True, timeout=PATIENCE_S)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        said = self.run("systemctl", "show", unit, *(f"-p{name}" for name in properties))
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
        """What `condition` returns once that is true."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if found := condition():
                return found
            time.sleep(0.1)
        _, journal = self.try_run("journalctl", "-n", "60", "--no-pager", "-o", "short-monotonic")
        raise AssertionError(f"waited in vain for {what}\n{journal}")


@contextlib.contextmanager
def booted(root: Path, binds: Mapping[Path, str] | None = None) -> Iterator[Container]:
    """Boots `root`, which stays as it is. Raises NoBed.

    binds: folders of this machine, read-only in the container under the given path
    """
    needs("systemd-nspawn", "nsenter")
    with _control_group() as group, tempfile.TemporaryDirectory() as scratch:
        console = Path(scratch, "console")
        command = [
            *("systemd-nspawn", "--quiet", f"--directory={root}", "--read-only"),
            *("--volatile=overlay", "--register=no", "--keep-unit", "--private-network"),
            # A device policy is a BPF program, which systemd in there has to load.
            # Reading the clock's state is the unit's to allow; without CAP_SYS_TIME nobody sets it.
            "--capability=CAP_BPF,CAP_NET_ADMIN",
            "--system-call-filter=bpf adjtimex clock_adjtime",
            *("--link-journal=no", "--console=pipe", f"--machine=edge-rt-{os.getpid()}"),
            *(f"--bind-ro={here}:{there}" for here, there in (binds or {}).items()),
            *("--boot", "systemd.unified_cgroup_hierarchy=1"),
        ]
        # The overlay's upper side is made where temporary files go, and goes with them.
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "TMPDIR": scratch}
        with open(console, "wb") as out:
            process = subprocess.Popen(
                # It ends with us, however we end.
                ["setpriv", "--pdeathsig", "TERM", "sh", "-c", enter, "sh", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        try:
            yield _until_booted(process, console)
        finally:
            process.send_signal(signal.SIGTERM)  # powers it off in order
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _control_group() -> Iterator[Path]:
    """A group of version 2 for the container's systemd, whichever kind this machine runs on."""
    top = HYBRID if HYBRID.is_dir() else UNIFIED
    if not (top / "cgroup.procs").exists() or not (top / "cgroup.controllers").exists():
        raise NoBed("needs control groups of version 2")
    group = top / f"edge-rt-bed.{os.getpid()}.{time.monotonic_ns()}"
    try:
        group.mkdir()
    except OSError as error:
        raise NoBed(f"{group}: {error.strerror}") from None
    try:
        yield group
    finally:
        end_s = time.monotonic() + 10.0
        while group.exists() and time.monotonic() < end_s:
            for path in sorted(group.rglob("*/"), key=lambda p: -len(p.parts)):
                with contextlib.suppress(OSError):  # its processes are still ending
                    path.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def _until_booted(process: subprocess.Popen[bytes], console: Path) -> Container:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end_s = time.monotonic() + BOOT_S
    state = ""
    while time.monotonic() < end_s:
        if process.poll() is not None:
            said = " ".join(console.read_text(errors="replace").split())
            raise NoBed(f"systemd-nspawn ended: {said[-300:] or process.returncode}")
        leader = children.read_text().split()
        if leader:
            one = Container(int(leader[0]))
            state = one.try_run("systemctl", "is-system-running")[1].strip()
            if state in ("running", "degraded"):
                return one
        time.sleep(0.1)
    raise NoBed(f"the container did not boot: {state}")
