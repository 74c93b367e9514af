"""A face model on trial: the worker has to bear it. There is no shadow to wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edge_rt.core.verdict import Verdict

MOST_RESTARTS = 1  # a camera's driver may end the worker once


class NoShadow:
    """What stands in for the shadow of a face model, and says so."""

    def verdict(self) -> Verdict:
        return Verdict(True, ("face models have no shadow",), {"shadow": "none"})

    def seen(self) -> dict[str, Any]:
        return {}

    def status(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


class _Seen(NamedTuple):
    hours: float
    restarts: int


class FaceTrial:
    """A trial of a face model: the worker has to bear it (runtime.update_ports.Watch)."""

    def __init__(
        self,
        status: Callable[[], Mapping[str, Any]],
        span_h: float,
        seen: dict[str, Any] | None,
        monotonic: Callable[[], float],
    ) -> None:
        self._status = status
        self._span_h = span_h
        self._monotonic = monotonic
        self._before = _Seen(0.0, 0)
        if seen:
            self._before = _Seen(float(seen["hours"]), int(seen["restarts"]))
        self._begun_s = monotonic()
        self._base: int = status()["restarts"]

    def verdict(self) -> Verdict | None:
        seen = self._now()
        figures = seen._asdict()
        if seen.restarts > MOST_RESTARTS:
            problem = self._status()["problem"]
            return Verdict(False, (f"the worker ended {seen.restarts} times: {problem}",), figures)
        if seen.hours < self._span_h:
            return None
        if self._status()["worker"] != "running":
            return Verdict(False, ("the worker is not running",), figures)
        return Verdict(True, (f"{seen.hours:.1f} h, {seen.restarts} restarts",), figures)

    def seen(self) -> dict[str, Any]:
        return self._now()._asdict()

    def status(self) -> dict[str, Any]:
        return {**self.seen(), "of_hours": self._span_h}

    def close(self) -> None: ...

    def _now(self) -> _Seen:
        hours = (self._monotonic() - self._begun_s) / 3600.0
        restarts = self._status()["restarts"] - self._base
        return _Seen(self._before.hours + hours, self._before.restarts + restarts)
