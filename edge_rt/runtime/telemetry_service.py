"""Reports at a set interval, and an eye on the power supply; on a thread of its own.

It reads running totals that the pipelines keep anyway; nobody waits for it, and it may be slow.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from edge_rt.core import telemetry
from edge_rt.core.errors import EdgeRtError
from edge_rt.core.telemetry import FallTotals, PowerWatch, Vitals, When
from edge_rt.core.types import Announce
from edge_rt.runtime.letters import Letter

log = logging.getLogger(__name__)

# A weak supply is noticed within this; reading the board takes under a millisecond.
LOOK_S = 5.0

Send = Callable[[Letter], None]


class Sources(NamedTuple):
    """Where the figures come from; None: no such part. All may be called from any thread.

    when    the period in seconds -> what heads a report
    health  what the runtime knows of itself, JSON-able
    faces   what the worker has counted since the last call; may take a second, raises EdgeRtError
    """

    vitals: Callable[[], Vitals]
    when: Callable[[float], When]
    health: Callable[[], dict[str, Any]]
    falls: Callable[[], FallTotals] | None = None
    faces: Callable[[], dict[str, Any]] | None = None


class TelemetryService:
    """period_s: 0 for no reports; send: None without an uplink; on_look: called at each look."""

    def __init__(
        self,
        sources: Sources,
        announce: Announce,
        clock: Callable[[], float],
        *,
        period_s: float = 0.0,
        send: Send | None = None,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._sources = sources
        self._announce = announce
        self._clock = clock
        self._send = send
        self._period_s = period_s if send is not None else 0.0
        self._on_look = on_look
        self._power = PowerWatch()
        self._reported_s = clock()
        self._falls = sources.falls() if sources.falls is not None else None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; waits for a report that is being made."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def turn(self) -> float:
        """Do what is due; seconds until the next time."""
        now_s = self._clock()
        vitals = self._sources.vitals()
        weak = self._power.look(vitals, now_s)
        if weak is not None:
            log.warning("the power supply is too weak")
            self._announce("device", "power_low", weak)
        self._on_look()
        wait_s = LOOK_S
        if self._period_s:
            if now_s - self._reported_s >= self._period_s:
                self._report(vitals, now_s)
            wait_s = min(wait_s, self._reported_s + self._period_s - now_s)
        return max(0.0, wait_s)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            try:
                wait_s = self.turn()
            except Exception:  # figures may fail; the next look may not be lost with them
                log.exception("telemetry: unexpected failure")
                wait_s = LOOK_S

    def _report(self, vitals: Vitals, now_s: float) -> None:
        assert self._send is not None  # there is no period without it
        when = self._sources.when(round(now_s - self._reported_s, 3))
        self._reported_s = now_s
        before, after = self._falls, self._sources.falls() if self._sources.falls else None
        self._falls = after
        faces = self._from_worker()
        latency = faces.pop("latency") if faces is not None else None
        reports = {
            "health": telemetry.health(when, vitals, self._sources.health()),
            "latency": telemetry.latency(when, before, after, latency),
            "input": telemetry.input_quality(when, before, after, faces),
        }
        if before is not None and after is not None:
            reports["score"] = telemetry.scores(when, before, after)
        for what, payload in reports.items():
            self._send(Letter(f"dt/{what}", payload, qos=0))

    def _from_worker(self) -> dict[str, Any] | None:
        if self._sources.faces is None:
            return None
        try:
            return self._sources.faces()
        except EdgeRtError as error:  # starting, replaced, or busy with an enrolment
            log.debug("telemetry: no figures of faces: %s", error)
            return None
