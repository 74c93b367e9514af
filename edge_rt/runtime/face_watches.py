"""A face model in shadow, where it has one, and on trial: the worker has to bear it in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from edge_rt.core.errors import error_from
from edge_rt.core.migration import Progress, judge_migration
from edge_rt.core.shadow_faces import FaceShadowPolicy, FaceShadowTally, judge_faces
from edge_rt.core.verdict import Verdict
from edge_rt.runtime.face_messages import Compare, Compared

MOST_RESTARTS = 1  # a camera's driver may end the worker once
# A shadow may last for weeks, in which a camera fails more than once: so many within this count.
RESTARTS_WITHIN_S = 3600.0


class NoShadow:
    """What stands in for the shadow of a face model that has none, and says so."""

    def verdict(self) -> Verdict:
        return Verdict(True, ("no shadow",), {"shadow": "none"})

    def seen(self) -> dict[str, Any]:
        return {}

    def status(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


class Compares(Protocol):
    """Who runs a candidate beside the live embedder (runtime.face_service)."""

    def compare(self, asked: Compare | None) -> None: ...

    def compared(self) -> Compared | None: ...

    def status(self) -> Mapping[str, Any]: ...


class FaceShadow:
    """An embedder beside the live one (runtime.update_ports.Watch).

    Within one embedding space it ends with `pictures`; into another one when everybody has enough
    templates there or has agreed to be enrolled anew, however long that takes.
    """

    def __init__(
        self,
        service: Compares,
        folder: Path,
        pictures: int,
        seen: dict[str, Any] | None,
        monotonic: Callable[[], float],
    ) -> None:
        """seen: of an earlier run. Raises StorageError if that is damaged."""
        self._service = service
        self._policy = FaceShadowPolicy(frames=pictures)
        self._kept = seen or {}
        self._base: int = service.status()["restarts"]
        self._monotonic = monotonic
        self._base_s = monotonic()
        self._passed = False
        tally = self._kept.get("tally")
        if tally is not None:
            FaceShadowTally.restore(tally)
        self._asked = Compare(str(folder), tally)
        service.compare(self._asked)

    def verdict(self) -> Verdict | None:
        """Raises what the candidate has raised in the worker."""
        status = self._service.status()
        if self._monotonic() - self._base_s > RESTARTS_WITHIN_S:
            self._base, self._base_s = status["restarts"], self._monotonic()
        restarts = status["restarts"] - self._base
        if restarts > MOST_RESTARTS:
            why = f"the worker ended {restarts} times beside it: {status['problem']}"
            return Verdict(False, (why,), {"restarts": restarts})
        now = self._now()
        if now is None:
            return None
        if now.message:
            raise error_from(now.kind, now.message)
        if now.space:
            verdict = judge_migration(_progress(now), now.space)
        else:
            verdict = judge_faces(FaceShadowTally.restore(now.seen), self._policy)
        self._passed = verdict is not None and verdict.passed
        return verdict

    def seen(self) -> dict[str, Any]:
        now = self._now()
        if now is None or now.message:
            return self._kept
        # What is collected for another space is in the worker's keeping, sealed.
        return {"space": now.space} if now.space else {"tally": now.seen}

    def status(self) -> dict[str, Any]:
        now = self._now()
        if now is None or now.message:
            return {}
        if now.space:
            return {"space": now.space, **_progress(now)._asdict()}
        frames = FaceShadowTally.restore(now.seen).frames
        return {"pictures": frames, "of_pictures": self._policy.frames}

    def close(self) -> None:
        # One that has passed goes on until the worker is replaced: who is enrolled meanwhile is
        # enrolled by it, too.
        if not self._passed:
            self._service.compare(None)

    def _now(self) -> Compared | None:
        now = self._service.compared()
        return now if now is not None and now.folder == self._asked.folder else None


def _progress(compared: Compared) -> Progress:
    return Progress(**{**compared.seen, "waiting": tuple(compared.seen["waiting"])})


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
