"""The fall thread: whatever samples, drivers and the pipeline do, an alarm comes out."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from edge_rt.core.errors import DaemonError, SensorError
from edge_rt.core.fall import Event, FallRules
from edge_rt.core.hop import Hop
from edge_rt.core.timebase import ClockCounters
from edge_rt.core.types import SampleBlock
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.runtime.fall_service import FallService, NextModel

PATIENCE_S = 60.0
RULES = FallRules(threshold=0.0, suspicion=-2.0, window_s=1.0, clear_s=1.5)


class Clock:
    """Monotonic time that a test can move on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


class Scorer:
    """A detector that scores what its samples' first value says; more than 90 hangs, NaN fails."""

    def __init__(self) -> None:
        self.counters = ClockCounters()
        self.hung = threading.Event()
        self.go_on = threading.Event()

    def push(self, block: SampleBlock) -> list[Hop]:
        score = float(block.acc_g[0, 0]) if len(block.acc_g) else np.nan
        if score > 90.0:
            self.hung.set()
            self.go_on.wait(PATIENCE_S)
            return []
        if np.isnan(score):
            raise RuntimeError("the engine failed")
        if score == -50.0:
            return []  # samples that complete no hop
        return [Hop(float(block.t_s[-1]), score, score, 1.0, 0.1, (0.0, 0.0, 1.0))]

    def reset(self) -> None: ...

    def swap(self, bundle: object) -> None: ...

    def branch(self) -> Callable[[object], Scorer]:
        return lambda bundle: self


class Source:
    """A sensor whose next delivery the test decides: a block, or an error to raise."""

    rate_hz, range_g = 50.0, 16.0

    def __init__(self) -> None:
        self.next: SampleBlock | Exception | None = None
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1

    def read(self, timeout_s: float) -> SampleBlock | None:
        time.sleep(0.005)
        given = self.next
        if isinstance(given, Exception):
            self.next = None
            raise given
        return given

    def close(self) -> None:
        self.closed += 1


class Watched:
    """A running service and everything that came of it."""

    def __init__(self) -> None:
        self.clock, self.scorer, self.source = Clock(), Scorer(), Source()
        self.told: list[str] = []
        self.data: list[dict[str, Any]] = []
        self.refuses = False
        self.saved: list[dict[str, Any]] = []
        self.pipeline = FallPipeline(self.scorer, RULES, lambda: "an id", range_g=16.0)
        self.service = FallService(
            self.pipeline, self.source, self.announce, self.saved.append, self.clock, lost_s=2.0
        )
        self.t_s = 0.0

    def announce(self, kind: str, what: str, data: Mapping[str, Any]) -> bool:
        if self.refuses:
            return False
        self.told.append(f"{kind}.{what}")
        self.data.append(dict(data))
        return True

    def deliver(self, score: float, stamp: float | None = None) -> None:
        """From now on the sensor delivers such blocks."""
        self.t_s += 0.2
        stamps = np.full(1, self.t_s if stamp is None else stamp)
        self.source.next = SampleBlock(stamps, np.full((1, 3), score, np.float32))

    def wait(self, condition: Callable[[], Any]) -> Any:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if found := condition():
                return found
            time.sleep(0.01)
        raise AssertionError(f"waited in vain: {self.told} {self.service.status()}")

    def fall(self) -> None:
        """Bring it to a pre-alarm."""
        self.deliver(5.0)
        self.wait(lambda: "fall.prealarm" in self.told)


@pytest.fixture
def watched() -> Iterator[Watched]:
    one = Watched()
    one.service.start()
    yield one
    one.scorer.go_on.set()
    one.service.close()


@pytest.mark.parametrize("what", ["nothing", "nan", "no hops", "empty", "stuck stamp", "nan stamp"])
def test_a_prealarm_becomes_an_alarm_whatever_the_sensor_delivers(
    watched: Watched, what: str
) -> None:
    watched.fall()
    match what:
        case "nothing":
            watched.source.next = None
        case "nan":
            watched.deliver(np.nan)
        case "no hops":
            watched.deliver(-50.0)
        case "empty":
            watched.source.next = SampleBlock(np.empty(0), np.empty((0, 3), np.float32))
        case "stuck stamp":
            watched.deliver(-50.0, stamp=0.2)
        case "nan stamp":
            watched.deliver(-50.0, stamp=np.nan)
            watched.wait(lambda: watched.service.status()["blocks"] > 2)
            watched.source.next = None
    watched.wait(lambda: watched.service.status()["state"] == "prealarm")
    hops = watched.pipeline.hops
    watched.wait(lambda: watched.service.status()["blocks"] and watched.pipeline.hops == hops)
    watched.clock.ahead_s += RULES.cancel_window_s + 3.0
    watched.wait(lambda: "fall.alarm" in watched.told)


@pytest.mark.parametrize("score", [np.nan, -50.0])
def test_samples_that_cannot_be_used_are_a_lost_sensor(watched: Watched, score: float) -> None:
    watched.deliver(-9.0)
    watched.wait(lambda: watched.service.status()["sensor"] == "ok")
    watched.deliver(score)
    watched.clock.ahead_s += 3.0
    watched.wait(lambda: "device.sensor_lost" in watched.told)
    assert "no usable samples" in watched.service.status()["sensor_detail"]
    watched.deliver(-9.0)
    watched.wait(lambda: "device.sensor_back" in watched.told)


@pytest.mark.parametrize("error", [SensorError("unplugged"), OSError(5, "EIO"), KeyError("bug")])
def test_the_reader_outlives_whatever_a_driver_raises(watched: Watched, error: Exception) -> None:
    watched.deliver(-9.0)
    watched.wait(lambda: watched.service.status()["sensor"] == "ok")
    watched.source.next = error
    watched.wait(lambda: "device.sensor_lost" in watched.told)
    watched.wait(lambda: watched.source.opened > 1)
    watched.deliver(-9.0)
    watched.wait(lambda: "device.sensor_back" in watched.told)
    assert watched.source.closed >= 1


class Frozen(Source):
    """Delivers a sample each 0.2 s, the same value until it was opened `mends` times and once."""

    def __init__(self, mends: int) -> None:
        super().__init__()
        self.mends, self.t_s = mends, 0.0

    def read(self, timeout_s: float) -> SampleBlock | None:
        time.sleep(0.002)
        self.t_s += 0.2
        value = -9.0 if self.opened <= self.mends else -9.0 + 0.1 * np.sin(self.t_s)
        return SampleBlock(np.full(1, self.t_s), np.full((1, 3), value, np.float32))


def test_a_frozen_sensor_is_lost_opened_anew_and_comes_back_by_itself() -> None:
    watched = Watched()
    watched.source = Frozen(mends=2)
    watched.service = FallService(
        watched.pipeline, watched.source, watched.announce, watched.saved.append, watched.clock,
        lost_s=2.0,
    )  # fmt: skip
    watched.service.start()
    watched.wait(lambda: "device.sensor_lost" in watched.told)
    watched.wait(lambda: watched.source.opened == 2)
    status = watched.service.status()
    assert status["sensor"] == "lost" and "the same value" in status["sensor_detail"]
    assert not watched.service.has_samples()
    watched.clock.ahead_s += 10.0  # the next try
    watched.wait(lambda: "device.sensor_back" in watched.told)
    assert watched.source.opened == 3 and watched.service.status()["sensor"] == "ok"
    assert watched.told == ["device.sensor_lost", "device.sensor_back"]
    watched.service.close()


def test_help_is_answered_even_by_a_pipeline_that_hangs(watched: Watched) -> None:
    watched.deliver(99.0)
    assert watched.scorer.hung.wait(PATIENCE_S)
    watched.source.next = None
    with pytest.raises(DaemonError, match="did not answer"):
        watched.service.command(Event.DISARM, by="test")
    assert watched.service.command(Event.HELP, by="test")["state"] == "alarm"
    assert watched.told == ["fall.alarm"]
    watched.clock.ahead_s += 30.0
    assert watched.service.stuck_s() > 29.0


def test_what_was_called_past_a_hanging_pipeline_is_its_own_afterwards(watched: Watched) -> None:
    watched.deliver(99.0)
    assert watched.scorer.hung.wait(PATIENCE_S)
    with pytest.raises(DaemonError, match="did not answer"):
        watched.service.command(Event.DISARM, by="test")
    renewed: list[str] = []
    watched.service._pipeline.on_renewed(lambda: renewed.append(watched.service.alarm_state()[1]))
    watched.service.command(Event.HELP, by="test")
    watched.service.command(Event.HELP, by="test")  # pressed again: the same incident
    incident = watched.data[-1]["incident"]
    watched.deliver(-9.0)
    watched.scorer.go_on.set()
    watched.wait(lambda: watched.service.alarm_state() == ("alarm", incident))
    watched.wait(lambda: incident in renewed)  # what was cancelled meanwhile has silenced it
    watched.wait(lambda: watched.saved and watched.saved[-1]["state"] == "alarm")
    # Whoever was told that it failed does not have it done later.
    assert watched.service.status()["armed"]
    watched.source.next = None
    watched.service.command(Event.RESOLVE, by="test")
    assert [w for w in watched.told if "fall." in w] == [*["fall.alarm"] * 2, "fall.resolved"]
    assert {d["incident"] for d in watched.data if "incident" in d} == {incident}


def test_a_call_that_goes_past_the_pipeline_joins_the_incident_that_is_open(
    watched: Watched,
) -> None:
    watched.fall()
    incident = watched.data[-1]["incident"]
    watched.deliver(99.0)
    assert watched.scorer.hung.wait(PATIENCE_S)
    watched.service.command(Event.HELP, by="test")
    assert (watched.told[-1], watched.data[-1]["incident"]) == ("fall.alarm", incident)
    watched.deliver(-9.0)
    watched.scorer.go_on.set()
    watched.wait(lambda: watched.service.alarm_state() == ("alarm", incident))
    assert watched.told.count("fall.alarm") == 1


def test_help_is_heard_and_kept_after_the_thread_has_ended(watched: Watched) -> None:
    watched.service.close()
    began_s = time.monotonic()
    assert watched.service.command(Event.HELP, by="test")["state"] == "alarm"
    assert time.monotonic() - began_s < 1.5  # at once: a press waits for nothing
    assert watched.told == ["fall.alarm"]
    assert watched.saved[-1]["state"] == "alarm"


def test_what_was_told_the_thread_before_its_end_is_done(watched: Watched) -> None:
    watched.deliver(99.0)
    assert watched.scorer.hung.wait(PATIENCE_S)
    answers: list[dict[str, Any]] = []
    calling = threading.Thread(
        target=lambda: answers.append(watched.service.command(Event.HELP, by="test"))
    )
    calling.start()
    watched.wait(lambda: not watched.service._inbox.empty())
    watched.service._stopping.set()
    watched.scorer.go_on.set()
    calling.join(PATIENCE_S)
    assert answers[0]["state"] == "alarm" and watched.saved[-1]["state"] == "alarm"
    assert watched.told == ["fall.alarm"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_call_that_was_refused_is_not_answered_with_an_alarm(
    watched: Watched, ended: bool
) -> None:
    if ended:
        watched.service.close()
    else:
        watched.deliver(99.0)
        assert watched.scorer.hung.wait(PATIENCE_S)
    watched.refuses = True
    with pytest.raises(DaemonError, match="could not record it"):
        watched.service.command(Event.HELP, by="test")


def test_help_is_told_whatever_fails_in_the_pipeline(watched: Watched) -> None:
    def fails(*_: object) -> list[Any]:
        raise RuntimeError("a bug")

    watched.pipeline.command = fails  # type: ignore[method-assign]
    assert watched.service.command(Event.HELP, by="test")["problem"] == "RuntimeError: a bug"
    assert watched.told == ["fall.alarm"]
    watched.wait(lambda: watched.service.alarm_state()[0] == "alarm")


def test_every_change_of_state_is_saved_silent_ones_too(watched: Watched) -> None:
    watched.fall()
    watched.deliver(-9.0)
    watched.service.command(Event.CANCEL, by="test")
    watched.wait(lambda: watched.saved[-1]["state"] == "cancelled")
    for _ in range(30):
        watched.deliver(-9.0)
        time.sleep(0.01)
    watched.wait(lambda: watched.saved[-1]["state"] == "monitoring")


def test_a_running_cancel_window_is_saved_again_and_again(watched: Watched) -> None:
    watched.fall()
    count = len(watched.saved)
    watched.clock.ahead_s += 1.5
    watched.wait(lambda: len(watched.saved) > count)
    assert watched.saved[-1]["state"] == "prealarm"


def test_time_asleep_counts_against_a_restored_prealarm() -> None:
    first = Watched()
    first.service.start()
    first.fall()
    first.service.close()
    second = Watched()
    second.pipeline.restore(first.saved[-1])
    second.service = FallService(
        second.pipeline, second.source, second.announce, second.saved.append, second.clock,
        lost_s=2.0, asleep_s=RULES.cancel_window_s,
    )  # fmt: skip
    second.service.start()
    second.wait(lambda: "fall.alarm" in second.told)
    second.service.close()


def test_close_before_start_is_harmless() -> None:
    Watched().service.close()


def test_a_swap_that_was_given_up_does_not_come_later(watched: Watched) -> None:
    """Who gave up goes by the old model: the new one may not run in its name."""
    swapped: list[object] = []
    watched.scorer.swap = swapped.append  # type: ignore[method-assign]
    watched.deliver(99.0)  # hangs
    assert watched.scorer.hung.wait(PATIENCE_S)
    bundle: Any = types.SimpleNamespace(manifest=None)
    given_up = watched.service.swap(NextModel(bundle, RULES, watched.announce, 2.0))
    assert given_up.cancel()
    watched.deliver(-5.0)
    watched.scorer.go_on.set()
    taken = watched.service.swap(NextModel(bundle, RULES, watched.announce, 2.0))
    assert "hops" in taken.result(PATIENCE_S)
    assert swapped == [bundle]
