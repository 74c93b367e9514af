"""A process that takes one command and is killed while it announces it at the device.

python commands_peer.py FOLDER  reads FOLDER/command, keeps its state in FOLDER, and writes a line
to FOLDER/acted when it acts; FOLDER/told holds what it told.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.adapters.operations_key import PublicKey
from edge_rt.adapters.statefile import StateFile
from edge_rt.core.remote_command import Memory, OperationsKey
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.commands import OfIncident
from edge_rt.runtime.control import Command
from edge_rt.runtime.remote_commands import RemoteCommands


def main(folder: Path) -> None:
    def note(name: str, line: bytes) -> None:
        with (folder / name).open("ab", buffering=0) as file:
            file.write(line + b"\n")

    def act(_: Any) -> dict[str, Any]:
        note("acted", b"cancel")
        return {}

    def tell(kind: str, what: str, data: Mapping[str, Any]) -> None:
        note("told", msgspec.json.encode(data))

    def warn(_: str) -> None:
        if (folder / "deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    key = PublicKey.read(folder / "key.pub")
    commands = RemoteCommands(
        Topics("home", "dev1"),
        StateFile(folder / "commands.json", Memory),
        {"cancel": Command(OfIncident, act)},
        tell,
        warn,
        OperationsKey(key.id, key.verify),
    )
    commands.start()
    commands.handle("cmd/cancel", (folder / "command").read_bytes())
    commands.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
