"""What travels over the control socket: one JSON object a line, both ways.

-> {"id": 1, "command": "arm", "args": {"what": "faces"}}
<- {"id": 1, "result": {...}}                             the answer
<- {"id": 1, "error": {"kind": "...", "message": "..."}}  or a refusal
<- {"id": 1, "item": {...}}                               a stream: many of these ...
<- {"id": 1, "result": {...}}                             ... and an end
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

SOCKET_NAME = "control.sock"
# Enrolment photographs travel inside a request: 8 MB of them, in base64. Decoded and sent on to the
# worker that is some 50 MB for a moment, one such request at a time.
MAX_LINE_BYTES = 11 * 1024 * 1024


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command and its arguments."""

    id: int
    command: str
    args: dict[str, Any] = {}


class Problem(msgspec.Struct, frozen=True):
    """kind: class name from core.errors; message: one line for a person."""

    kind: str
    message: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the three is set."""

    id: int
    result: dict[str, Any] | None = None
    item: dict[str, Any] | None = None
    error: Problem | None = None


def socket_path(run_dir: Path) -> Path:
    """Where the daemon listens."""
    return run_dir / SOCKET_NAME
