"""The child of `runtime.update_child`: limits itself, then verifies metadata or unpacks a bundle.

Started as `python -m edge_rt.trust_child`, the task on stdin; nothing imports it. python-tuf and
what it needs are loaded here only: the daemon has neither their memory nor their mistakes.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import msgspec

from edge_rt import __version__
from edge_rt.core.errors import CredentialError, EdgeRtError
from edge_rt.core.update_task import Answer, Look, Refresh, Task, Unpack

# Python with python-tuf has some 40 MB of data; unpacking goes block by block.
MEMORY_BYTES = 160 * 1024 * 1024
CPU_S = 60
# The largest bundle that is accepted, and a little for what a library may note.
FILE_BYTES = 65 * 1024 * 1024
OPEN_FILES = 64
NICE = 10  # after everything that watches over a person
_GIVE = "give the device its fleet's root.json"


def main() -> int:
    """Do the task on stdin and print the answer; the exit code is 0 if there is one."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    _limit()
    print(msgspec.json.encode(_answer(task)).decode(), flush=True)
    return 0


def _limit() -> None:
    os.nice(NICE)
    os.umask(0o077)
    for what, value in (
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))


def _answer(task: Task) -> Answer:
    try:
        if isinstance(task, Unpack):
            return _unpack(task)
        return _look(task) if isinstance(task, Look) else _refresh(task)
    except EdgeRtError as error:
        return Answer(error=str(error), kind=type(error).__name__)


def _unpack(task: Unpack) -> Answer:
    from edge_rt.adapters.unpack import Limits, unpack

    limits = Limits(__version__, task.reserve_bytes)
    unpack(Path(task.blob), Path(task.folder), task.release, limits)
    return Answer()


def _look(task: Look) -> Answer:
    from edge_rt.adapters.trust import Refused, newest_root

    try:
        version, expires_s = newest_root(_given(task.root), Path(task.trusted))
    except Refused as error:
        return Answer(error=f"{task.root}: {error}; {_GIVE}")
    return Answer(root_version=version, expires_s=expires_s)


def _given(root: str) -> bytes:
    try:
        return Path(root).read_bytes()
    except OSError as error:
        raise CredentialError(f"{root}: {error.strerror}; {_GIVE}") from None


def _refresh(task: Refresh) -> Answer:
    from edge_rt.adapters.trust import Refused, refresh
    from edge_rt.core.catalog import decode_catalog

    try:
        found = refresh(_given(task.root), Path(task.trusted), Path(task.mirror))
    except Refused as error:
        return Answer(error=str(error), missing=error.missing)
    return Answer(
        root_version=found.root_version,
        version=found.timestamp_version,
        expires_s=found.expires_s,
        catalog=decode_catalog(found.catalog),
    )


if __name__ == "__main__":
    sys.exit(main())
