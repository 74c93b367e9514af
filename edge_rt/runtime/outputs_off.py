"""Brings every output to rest; for whoever cleans up after a daemon that was killed.

    python -m edge_rt.runtime.outputs_off /etc/edge-rt/config.toml      (systemd: ExecStopPost=)

On Raspberry Pi kernels a line keeps its level when the process that drove it dies. What the daemon
does at its next start is done here at once, and also when there is no next start. The outputs are
those that the daemon opened, whatever has become of the configuration; without its note of them,
those of the configuration.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_rt.core.config import Config
from edge_rt.core.errors import EdgeRtError, StorageError
from edge_rt.runtime.config_file import load_config
from edge_rt.runtime.outputs_kept import kept_outputs
from edge_rt.runtime.room import Room

# A busy line may be given back, a driver may come up again; systemd ends this after 20 s
# (TimeoutStopSec=), and closing three lines that hang takes its time too.
WAIT_S = 8.0


def main(arguments: list[str], wait_s: float = WAIT_S) -> int:
    """Exit code 4 when an output could not be reached."""
    if len(arguments) != 1:
        print("usage: python -m edge_rt.runtime.outputs_off CONFIG", file=sys.stderr)
        return 2
    try:
        config = _used(Path(arguments[0]))
    except EdgeRtError as error:
        print(f"edge-rt: {error}", file=sys.stderr)
        return error.exit_code
    problems = Room(config).rest(wait_s)
    for problem in problems:
        print(f"edge-rt: {problem}", file=sys.stderr)
    return 4 if problems else 0


def _used(path: Path) -> Config:
    """Raises what load_config does, if that is all there is."""
    config, fault = None, None
    try:
        config = load_config(path)
    except EdgeRtError as error:
        fault = error
    # systemd names the run folder, in case the configuration cannot any more.
    folder = os.environ.get("RUNTIME_DIRECTORY") or (config or Config()).runtime.run_dir
    try:
        kept = kept_outputs(Path(folder))
    except StorageError as error:
        print(f"edge-rt: {error}", file=sys.stderr)
        kept = None
    if kept is not None:
        return kept
    if config is None:
        assert fault is not None
        raise fault
    return config


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
