"""Brings every output to rest; for whoever cleans up after a daemon that was killed.

    python -m edge_rt.runtime.outputs_off /etc/edge-rt/config.toml      (systemd: ExecStopPost=)

On Raspberry Pi kernels a line keeps its level when the process that drove it dies. What the daemon
does at its next start is done here at once, and also when there is no next start.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_rt.core.errors import EdgeRtError
from edge_rt.runtime.daemon import load_config
from edge_rt.runtime.room import Room

WAIT_S = 3.0


def main(arguments: list[str]) -> int:
    """Exit code 4 when an output could not be reached."""
    if len(arguments) != 1:
        print("usage: python -m edge_rt.runtime.outputs_off CONFIG", file=sys.stderr)
        return 2
    try:
        room = Room(load_config(Path(arguments[0])))
    except EdgeRtError as error:
        print(f"edge-rt: {error}", file=sys.stderr)
        return error.exit_code
    problems = room.rest(WAIT_S)
    for problem in problems:
        print(f"edge-rt: {problem}", file=sys.stderr)
    return 4 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
