"""What a device would have logged, written down by the hour."""

from __future__ import annotations

from typing import Any

from edge_rt.core.wire import Event, encode, make_event, rfc3339, source_of
from edge_rt.fleet.store import Arrived

START_S = 1_767_225_600.0  # 2026-01-01
OLD, NEW = "fall-waist 1.0.0", "fall-waist 1.1.0"


class Diary:
    """One device; `hour` is that of the wall clock since START_S, set it or add to it."""

    def __init__(self, device: str = "dev1", boot: str = "boot1", hour: float = 0.0) -> None:
        self.source = source_of("home", device)
        self.hour = hour
        self.events: list[Event] = []
        self.trusted = True
        self.model = OLD
        self.boot(boot)

    def boot(self, name: str) -> None:
        """The machine starts anew, now."""
        self._boot, self._boot_hour = name, self.hour

    def add(self, kind: str, what: str, data: dict[str, Any] | None = None) -> Event:
        number = len(self.events) + 1
        event = make_event(
            kind,
            what,
            data or {},
            source=self.source,
            unix_s=START_S + 3600.0 * self.hour,
            random=number.to_bytes(10, "big"),
            boot_id=self._boot,
            monotonic_s=3600.0 * (self.hour - self._boot_hour),
            clock_trusted=self.trusted,
            model_version=self.model if kind == "fall" else None,
        ).sealed(number, "log")
        self.events.append(event)
        return event

    def started(self) -> Event:
        return self.add("device", "started")

    def stopped(self) -> Event:
        return self.add("device", "stopped")

    def alarm(self, what: str = "alarm", trigger: str = "score") -> Event:
        data = {"incident": f"i{len(self.events)}", "why": {"trigger": trigger}}
        return self.add("fall", what, data)

    def tell(self, what: str, reason: str = "", version: str = "1.1.0", **more: Any) -> Event:
        """An event of kind `model`, as core.update makes it."""
        said = {"name": "fall-waist", "version": version, "sha256": "0" * 64, "stage": "trial"}
        if reason:
            said["reason"] = reason
        if what == "activated":
            self.model = f"fall-waist {version}"
        elif what == "rolled_back":
            self.model = OLD
        return self.add("model", what, {**said, "step": len(self.events), **more})

    def arrived(self) -> list[Arrived]:
        """As a receiver would keep it."""
        return [Arrived(event, encode(event), event.time) for event in self.events]


def stamp(hour: float) -> str:
    return rfc3339(START_S + 3600.0 * hour)
