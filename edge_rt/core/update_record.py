"""What is written down of a task's models: which is live, which is pinned, who is on the way."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_rt.core.manifest import Name, Sha256, Version

Slot = Literal["a", "b"]
SLOTS: tuple[Slot, Slot] = ("a", "b")
# "factory": the bundle that the configuration names; it lies outside the slots and always stays.
Place = Literal["a", "b", "factory"]
Count = Annotated[int, Meta(ge=0)]
# How a reason ends that is the publisher's wish, and no fault of the model.
BY_PUBLISHER = "by the publisher"


class State(StrEnum):
    """Where an update stands. A kill in any of them leaves `Record.live` to start on."""

    IDLE = "idle"  # no update under way
    FETCHING = "fetching"  # chunks are on their way; nothing of them is trusted yet
    TESTING = "testing"  # golden vectors, latency and memory, in a child process
    CHALLENGING = "challenging"  # the device's own falls and activities, in a child process
    SHADOWING = "shadowing"  # beside the live model, announcing nothing
    INSTALLING = "installing"  # from staging into the spare slot
    TRIAL = "trial"  # it is the live model, watched; the former one is pinned


class Candidate(msgspec.Struct, frozen=True):
    """A release as the signed catalog names it.

    sha256  of the blob that it travels as: what was refused is known by it
    """

    name: Name
    version: Version
    sha256: Sha256
    security_epoch: Count = 0


class Notice(msgspec.Struct, frozen=True):
    """An event `model.<what>` that is to be told; kept until the event log has it."""

    what: str
    data: dict[str, Any]


class Record(msgspec.Struct, frozen=True):
    """The journal of one task; see core.update for what moves it.

    step      how many moves there were; in each notice, so that repeats can be told
    live      what a start runs; while on trial the slot on trial
    previous  what `live` goes back to; never overwritten while it stands here
    contents  what lies in the slots
    active    the candidate on trial has judged live samples
    loads     starts with the live slot that have not held yet
    tries     starts in the present state that have not held yet
    cuts      starts in a row that did not hold because the machine itself ended
    boot_id   the kernel's, of the boot in which this was written; empty: not known
    refused   newest last
    failed    the last candidate that failed for no fault of its own
    manifests sha256 of model.toml as it was unpacked, by the sha256 of what it came in; the other
              files hang on what it says of them
    """

    step: int = 0
    state: State = State.IDLE
    live: Place = "factory"
    previous: Place = "factory"
    candidate: Candidate | None = None
    contents: dict[Place, Candidate] = {}
    active: bool = False
    loads: Count = 0
    tries: Count = 0
    cuts: Count = 0
    boot_id: str = ""
    refused: tuple[Candidate, ...] = ()
    failed: Candidate | None = None
    notices: tuple[Notice, ...] = ()
    manifests: dict[Sha256, Sha256] = {}

    @property
    def running(self) -> Candidate | None:
        """What lies in the live slot; None for the factory bundle, which is in no slot."""
        return self.contents.get(self.live)


def spare(live: Place) -> Slot:
    """The slot that a candidate goes into."""
    return "b" if live == "a" else "a"
