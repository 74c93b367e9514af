"""What an update is driven by: who tries a candidate, who runs the model, who watches it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Verdict(Protocol):
    """How a span of watching ended. figures: JSON-able; final: a no is for good."""

    @property
    def passed(self) -> bool: ...

    @property
    def reasons(self) -> tuple[str, ...]: ...

    @property
    def figures(self) -> Mapping[str, Any]: ...

    @property
    def final(self) -> bool: ...


class Watch(Protocol):
    """Shadow or trial under way."""

    def verdict(self) -> Verdict | None:
        """None while the span is not over. Never waits."""
        ...

    def seen(self) -> dict[str, Any]:
        """What to go on with after a restart; JSON-able, at most some hundred kilobytes."""
        ...

    def status(self) -> dict[str, Any]:
        """For a person: how far it is. Cheap."""
        ...

    def close(self) -> None: ...


class Live(Protocol):
    """Runs the model of one task. Methods are called from the thread `updates` only."""

    name: str  # of the models that may come: a wrist's model is none for the waist
    version: str  # of the factory bundle
    security_epoch: int  # of the factory bundle
    declines: str  # why no candidate is taken at all; empty: they are

    def go(self, folder: Path | None) -> dict[str, Any]:
        """Run this bundle from now on; None: the factory's. Figures of the change.

        Raises EdgeRtError; then the former model still runs.
        """
        ...

    def look(self) -> None:
        """Called at each turn: counts what it counts. Returns at once."""
        ...

    def fits(self, folder: Path) -> None:
        """Raises EdgeRtError if this device could not run the bundle as configured."""
        ...

    def shadow(self, folder: Path, seen: dict[str, Any] | None) -> Watch:
        """Run a candidate beside the live model. Raises PublisherError for one that cannot."""
        ...

    def trial(self, seen: dict[str, Any] | None) -> Watch:
        """Watch the live model."""
        ...


class Tries(Protocol):
    """Tries a candidate in a child process. Both return figures.

    Raise PublisherError for the candidate's fault, any other EdgeRtError for ours.
    """

    def self_test(self, folder: Path) -> Mapping[str, Any]: ...

    def challenge(self, folder: Path) -> Mapping[str, Any]: ...
