"""What every part of the daemon is made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edge_rt.core.config import Config
from edge_rt.core.types import Announce
from edge_rt.runtime.actuators import Lock, Siren
from edge_rt.runtime.recorder import Recorder


class Place(NamedTuple):
    """The configuration, the state folder, this boot, and what the parts share."""

    config: Config
    folder: Path
    boot_id: str
    recorder: Recorder
    siren: Siren
    lock: Lock


def announcer(recorder: Recorder, model: str | None) -> Announce:
    """Announces in the name of a model, "name version"."""

    def announce(kind: str, what: str, data: Mapping[str, Any]) -> bool:
        ticket = recorder.announce(kind, what, data, model_version=model)
        return not ticket.done() or ticket.exception() is None

    return announce
