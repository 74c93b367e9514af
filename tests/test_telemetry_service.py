"""When reports are made and what of, on a clock that the test drives."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_rt.core.errors import DaemonError
from edge_rt.core.latency import LatencyRecorder
from edge_rt.core.telemetry import FallTotals, Vitals, When
from edge_rt.runtime.letters import Letter
from edge_rt.runtime.telemetry_service import LOOK_S, Sources, TelemetryService


class Board:
    """Everything the service asks, and all that it says."""

    def __init__(self, *, period_s: float = 60.0, uplink: bool = True) -> None:
        self.now_s = 1000.0
        self.vitals = Vitals(temperature_c=50.0, under_voltage=False, under_voltage_seen=False)
        self.latency = LatencyRecorder(("push",))
        self.samples = 0
        self.scores = [0, 0]
        self.worker: dict[str, Any] | None = {"latency": {}, "frames": 3, "seen": {"good": 3}}
        self.letters: list[Letter] = []
        self.events: list[tuple[str, str]] = []
        self.looks = 0
        self.service = TelemetryService(
            Sources(
                lambda: self.vitals, self.when, lambda: {"version": "1"}, self.falls, self.faces
            ),
            lambda kind, what, data: self.events.append((kind, what)),
            lambda: self.now_s,
            period_s=period_s,
            send=self.letters.append if uplink else None,
            on_look=self.look,
        )

    def when(self, period_s: float) -> When:
        return When("2026-01-31T12:00:00.000Z", False, "b", str(int(self.now_s * 1000)), period_s)

    def falls(self) -> FallTotals:
        signal = {"samples": self.samples, "saturated": 0, "not_finite": 0}
        return FallTotals(self.latency.snapshot(), (0.0,), tuple(self.scores), signal)

    def faces(self) -> dict[str, Any]:
        if self.worker is None:
            raise DaemonError("the face worker is not ready")
        return dict(self.worker)

    def look(self) -> None:
        self.looks += 1

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + self.service.turn())
        self.service.turn()

    def reports(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for letter in self.letters:
            assert (letter.qos, letter.retain, letter.absolute) == (0, False, False)
            found.setdefault(letter.topic, []).append(msgspec.json.decode(letter.payload))
        return found


def test_each_report_covers_the_time_since_the_last() -> None:
    board = Board()
    board.latency.record("push", 9.0)  # before the service had started to look: of no period
    board.latency.reset()
    for _ in range(3):
        board.samples += 3000
        board.scores[1] += 4
        board.latency.record("push", 0.001)
        board.run(60.0)
    found = board.reports()
    assert set(found) == {"dt/health", "dt/latency", "dt/input", "dt/score"}
    assert [len(rows) for rows in found.values()] == [3, 3, 3, 3]
    assert [row["period_s"] for row in found["dt/health"]] == [60.0] * 3
    assert [row["counts"] for row in found["dt/score"]] == [[0, 4]] * 3
    assert [row["accelerometer"]["rate_hz"] for row in found["dt/input"]] == [50.0] * 3
    assert [row["falls"]["push"]["count"] for row in found["dt/latency"]] == [1.0] * 3
    assert found["dt/input"][0]["camera"] == {"frames": 3, "seen": {"good": 3}}
    assert board.looks >= 3 * 60 / LOOK_S


def test_a_worker_that_does_not_answer_costs_its_own_figures_only() -> None:
    board = Board()
    board.worker = None
    board.run(60.0)
    found = board.reports()
    assert found["dt/latency"][0]["faces"] is None and found["dt/input"][0]["camera"] is None
    assert found["dt/health"][0]["temperature_c"] == 50.0


def test_a_weak_supply_is_an_event_with_or_without_an_uplink() -> None:
    for uplink in (True, False):
        board = Board(uplink=uplink)
        board.run(30.0)
        assert board.events == []
        board.vitals = board.vitals._replace(under_voltage=True, under_voltage_seen=True)
        board.run(90.0)
        assert board.events == [("device", "power_low")]
        assert bool(board.letters) is uplink


def test_no_period_no_reports() -> None:
    board = Board(period_s=0.0)
    board.run(300.0)
    assert board.letters == [] and board.looks >= 60


def test_a_failing_source_is_asked_again() -> None:
    board = Board()
    asked: list[None] = []

    def broken() -> Vitals:
        asked.append(None)
        raise ZeroDivisionError

    service = TelemetryService(
        Sources(broken, board.when, dict), lambda kind, what, data: None, lambda: board.now_s
    )
    service.start()
    service.close()
    assert asked
