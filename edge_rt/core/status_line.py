"""The daemon's state in one line of words, for `systemctl status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_rt.core.fall_table import OPEN

MAX_PROBLEMS = 2  # the line is read at a glance; edge-rt status has them all


def status_line(status: Mapping[str, Any]) -> str:
    """`falls watching; faces off; mqtt online`, and what is wrong.

    status  what the control socket answers to "status"
    """
    parts = [_falls(status["falls"]), _faces(status["faces"]), _mqtt(status["mqtt"])]
    problems = list(status["problems"])
    shown = problems[:MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    words = "; ".join(parts)
    return f"{words}; PROBLEM: {', '.join(shown)}" if shown else words


def _falls(falls: Mapping[str, Any] | None) -> str:
    if falls is None:
        return "falls off"
    state = str(falls["state"])
    if state == "disarmed":
        return "falls disarmed"
    if falls["sensor"] != "ok":
        open_too = f"{state.upper()}, " if state in OPEN else ""
        return f"falls {open_too}not watching (sensor {falls['sensor']})"
    words = "falls watching" if state == "monitoring" else f"falls {state.upper()}"
    return f"{words} (simulated)" if falls["simulated"] else words


def _faces(faces: Mapping[str, Any] | None) -> str:
    if faces is None:
        return "faces off"
    if not faces["armed"]:
        return "faces disarmed"
    if faces["worker"] != "running":
        return f"faces {faces['worker']}"
    return "faces looking" if faces["camera"] == "on" else f"faces: camera {faces['camera']}"


def _mqtt(mqtt: Mapping[str, Any] | None) -> str:
    return "mqtt off" if mqtt is None else f"mqtt {mqtt['state']}"
