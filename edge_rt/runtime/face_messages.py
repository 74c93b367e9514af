"""What the daemon and its face worker tell each other: one JSON object a line on a socket pair.

The worker sees, the daemon decides: pictures, embeddings and distances stay in the worker.
"""

from __future__ import annotations

from typing import Any

import msgspec

# A request may carry enrolment photographs; the same bound as on the control socket.
MAX_LINE_BYTES = 11 * 1024 * 1024


class _Message(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """Base: the tag names the class on the wire."""


# ---- daemon to worker ----


class Arm(_Message, tag="arm", frozen=True):
    """Open the camera and look (on), or close it (off): nothing is captured while disarmed."""

    on: bool


class Ask(_Message, tag="ask", frozen=True):
    """Run a command; exactly one Answer with the same id comes back."""

    id: int
    command: str
    args: dict[str, Any]


class Compare(_Message, tag="compare", frozen=True):
    """Run the embedder in `folder` beside the live one; an empty folder: none from now on.

    seen  what an earlier Compared has said of it, to go on with
    """

    folder: str
    seen: dict[str, Any] | None = None


class Unlocked(_Message, tag="unlocked", frozen=True):
    """The daemon let this person in. Only told while a candidate runs."""

    person: str


ToWorker = Arm | Ask | Compare | Unlocked


# ---- worker to daemon ----


class Ready(_Message, tag="ready", frozen=True):
    """Models loaded and warm, templates read."""

    engine: str
    models: dict[str, str]
    persons: int


class Beat(_Message, tag="beat", frozen=True):
    """The main loop has turned. Sent by the turning itself, so that a hung call silences it.

    camera: "off", "on", "lost" or "ended"; asleep: nothing moves, frames are taken at the low rate;
    latency: LatencyRecorder.summary().
    """

    camera: str
    frames: int
    dropped: int
    latency: dict[str, dict[str, float]]
    asleep: bool = False


class Seen(_Message, tag="seen", frozen=True):
    """Verdict on one frame: "no_face", "poor", "stranger" or "match"."""

    t_s: float
    verdict: str
    reason: str = ""
    person: str = ""


class CameraState(_Message, tag="camera", frozen=True):
    """The camera was lost or came back."""

    lost: bool
    detail: str = ""


class CameraOpening(_Message, tag="opening", frozen=True):
    """The camera is being opened, which a driver may take long for; nothing is said meanwhile."""


class CameraOpened(_Message, tag="opened", frozen=True):
    """found: what the camera delivers; differences: where that is not what was asked for."""

    found: str
    differences: list[str]


class Answer(_Message, tag="answer", frozen=True):
    """Outcome of an Ask. kind and message are set when it failed."""

    id: int
    result: dict[str, Any] | None = None
    kind: str = ""
    message: str = ""


class Compared(_Message, tag="compared", frozen=True):
    """How far the candidate in `folder` is: counts, and pseudonyms of those it waits for.

    space  the embedding space that people are migrated to; empty: it is the live one
    seen   FaceShadowTally.save() within one space, else the fields of migration.Progress
    kind and message are set when it cannot run; then it runs no longer.
    """

    folder: str
    space: str = ""
    seen: dict[str, Any] = {}
    kind: str = ""
    message: str = ""


class Failed(_Message, tag="failed", frozen=True):
    """The worker cannot run (bad model, bad key, hung driver); it ends after this."""

    kind: str
    message: str


FromWorker = (
    Ready | Beat | Seen | CameraState | CameraOpening | CameraOpened | Answer | Compared | Failed
)
