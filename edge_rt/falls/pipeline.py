"""The fall pipeline: samples and commands in, announcements out. Owns no thread and no clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from edge_rt.bundle import Bundle
from edge_rt.core.fall import AlarmMachine, Event, FallRules, State, Transition
from edge_rt.core.hop import Hop
from edge_rt.core.latency import LatencyRecorder
from edge_rt.core.manifest import FallManifest
from edge_rt.core.signal import SignalHealth
from edge_rt.core.telemetry import FallTotals, Histogram, score_edges
from edge_rt.core.timebase import ClockCounters
from edge_rt.core.types import SampleBlock

log = logging.getLogger(__name__)

_CAUSES = frozenset({Event.FALL, Event.HELP})  # of an alarm
# samples to scores; one score to its transitions; last sample of a window to its decision
STAGES = ("detector", "alarm", "push")
# A source whose clock is off by less than this is late or had a gap; by more, it was set anew.
REBASE_S = 5.0


class Scorer(Protocol):
    """What the pipeline needs of a detector; `falls.detector.FallDetector` is one."""

    @property
    def counters(self) -> ClockCounters: ...

    def push(self, block: SampleBlock) -> list[Hop]: ...

    def reset(self) -> None: ...

    def swap(self, bundle: Bundle) -> None: ...

    def branch(self) -> Callable[[Bundle], Scorer]: ...


class Announcement(NamedTuple):
    """`edge_rt.<kind>.<what>` with JSON-able data; fall stages carry `incident` and `why`."""

    kind: str
    what: str
    data: dict[str, Any]


class FallPipeline:
    """Detector and alarm machine of one accelerometer.

    detector   scores samples
    rules      of the alarm machine
    new_id     gives each incident its id
    range_g    the sensor saturates at +- this
    armed      whether it watches from the start
    simulated  announcements say that nobody wears this sensor
    scale      of the scores, as in the bundle's `output`, for telemetry only
    clock      seconds, for latencies only: no decision depends on it
    """

    def __init__(
        self,
        detector: Scorer,
        rules: FallRules,
        new_id: Callable[[], str],
        *,
        range_g: float,
        armed: bool = True,
        simulated: bool = False,
        scale: str = "logit",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.latency = LatencyRecorder(STAGES)
        self.latest: list[Hop] = []  # completed by the last block
        self._scores = Histogram(score_edges(scale))
        self._detector = detector
        self._machine = AlarmMachine(rules, new_id, armed=armed)
        self._health = SignalHealth(range_g)
        self._simulated = simulated
        self._clock = clock
        self._last: Hop | None = None
        self._hops = 0
        self._failures = 0
        self._problem = ""
        self._steps_told = 0
        self._offset_s = 0.0  # machine time minus the detector's
        self._started = False
        self._renewed: Callable[[], None] = lambda: None

    # ---- what moves it ----

    def push(self, block: SampleBlock) -> list[Announcement]:
        """Take samples, return what is to be announced, in order.

        A failing detector costs its window, which is then started anew, never an open incident:
        the failure is logged and counted in `status()`, and time-outs go on.
        """
        begun = self._clock()
        try:
            hops = self._detector.push(block)
        except Exception as error:  # any kind: a wearer is worse off without the alarm machine
            problem = f"{type(error).__name__}: {error}"
            if problem != self._problem:  # the same fault again and again is one line in the log
                log.exception("falls: the detector failed; its window starts anew")
            self._failures += 1
            self._problem = problem
            self._detector.reset()
            hops = []
        scored = self._clock()
        self.latency.record("detector", scored - begun)
        out: list[Announcement] = []
        self.latest = hops
        for hop in hops:
            self._last = hop
            self._scores.add(hop.score)
            steps = self._machine.step(self._on_machine_time(hop))
            if steps:
                out += self._tell(steps)
        if hops:
            self._hops += len(hops)
            self._problem = ""
        decided = self._clock()
        if hops:
            self.latency.record("alarm", (decided - scored) / len(hops))
            self.latency.record("push", decided - begun)
        try:
            out += self._watch(block)
        except Exception as error:  # what was decided above must be told whatever happens here
            log.exception("falls: the signal's health cannot be judged")
            self._problem = f"{type(error).__name__}: {error}"
        return out

    def tick(self, now_s: float) -> list[Announcement]:
        """Let time pass while no hops come, so that time-outs fire.

        now_s: on the machine's clock (`now_s`); going backwards is no time passing.
        """
        return self._tell(self._machine.tick(now_s))

    def command(self, event: Event, now_s: float, by: str) -> list[Announcement]:
        """Cancel, resolve, help_now, arm or disarm, by whom. Raises WrongState."""
        return self._tell(self._machine.command(event, now_s, by))

    def restart(self) -> None:
        """Begin the detector's window anew; an open incident stays as it is."""
        self._detector.reset()

    def swap(self, bundle: Bundle, rules: FallRules) -> None:
        """Go on with another bundle and its rules; an open incident stays as it is.

        Raises ManifestError for a bundle of another task; nothing has changed then.
        """
        self._detector.swap(bundle)
        self._machine.rules = rules
        if isinstance(bundle.manifest, FallManifest):
            edges = score_edges(bundle.manifest.output.scale)
            if edges != self._scores.edges:  # scores of another scale are other counts
                self._scores = Histogram(edges)

    def on_renewed(self, call: Callable[[], None]) -> None:
        """Have a function called when there is one more cause for an alarm that is open: another
        fall, another call for help. It returns at once and raises nothing."""
        self._renewed = call

    def take_over(self, incident: str) -> None:
        """An alarm that was announced past the machine is its own from here on, and sounds anew:
        what this one ended meanwhile may have silenced it."""
        if self._machine.state is not State.ALARM:
            log.warning("falls: %s -> alarm (called for meanwhile)", self._machine.state)
            self._machine.adopt(State.ALARM, incident)
        self._renewed()

    def set_rules(self, rules: FallRules) -> None:
        """Other durations or levels from the next step on; an open incident stays as it is."""
        self._machine.rules = rules

    def branch(self) -> Callable[[Bundle], Scorer]:
        """Begins a second detector beside the live one (`falls.detector.FallDetector.branch`)."""
        return self._detector.branch()

    # ---- what it says ----

    @property
    def machine(self) -> AlarmMachine:
        """The alarm machine, to be read."""
        return self._machine

    @property
    def broken(self) -> str:
        """What is wrong with the samples, by a word; empty: nothing."""
        return self._health.broken

    @property
    def now_s(self) -> float:
        """The machine's clock: where its last hop or tick has brought it."""
        return self._machine.now_s

    @property
    def hops(self) -> int:
        """How many windows were judged."""
        return self._hops

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        last = self._last
        return {
            **self._machine.status(),
            **self._health.status(),
            "simulated": self._simulated,
            "hops": self._hops,
            "t_s": None if last is None else round(last.t_s, 3),
            "score": None if last is None else round(last.score, 3),
            "peak_g": None if last is None else round(last.peak_g, 3),
            "flags": 0 if last is None else int(last.flags),
            "detector_failures": self._failures,
            "detector_problem": self._problem,
            "latency": self.latency.summary(),
        }

    def totals(self) -> FallTotals:
        """Running totals for telemetry; any thread may ask."""
        clock = self._detector.counters
        signal = {
            **self._health.totals(),
            "gaps": clock.gaps,
            "repeated": clock.repeated,
            "backward": clock.backward,
            "late": clock.late,
            "detector_failures": self._failures,
        }
        scores = self._scores
        return FallTotals(self.latency.snapshot(), scores.edges, tuple(scores.counts), signal)

    def save(self) -> dict[str, Any]:
        """JSON-able state of the alarm, to be stored after every announcement."""
        return self._machine.save()

    def restore(self, saved: dict[str, Any]) -> None:
        """Resume an incident after a restart. Raises StorageError if `saved` is damaged."""
        self._machine.restore(saved)

    # ---- time ----

    def _on_machine_time(self, hop: Hop) -> Hop:
        now_s = self._machine.now_s
        if not self._started:
            self._started = True
            # The machine takes over the source's clock, but not with an incident at hand: the jump
            # would eat up what is left of a cancel window.
            if self._machine.incident is not None or hop.t_s < now_s:
                self._offset_s = now_s - hop.t_s
        elif abs(hop.t_s + self._offset_s - now_s) > REBASE_S:
            # Neither may a step forward use up a cancel window. While hops are missing for real,
            # `tick` has moved the machine along, and this does not apply.
            self._offset_s = now_s - hop.t_s
        return hop._replace(t_s=hop.t_s + self._offset_s) if self._offset_s else hop

    # ---- announcements ----

    def _tell(self, steps: list[Transition]) -> list[Announcement]:
        out = []
        for step in steps:
            log.info("falls: %s -> %s (%s)", step.source, step.target, step.event)
            if step.source is step.target is State.ALARM and step.event in _CAUSES:
                self._renewed()
            if step.what is not None:
                data = {"incident": step.incident, "why": step.why}
                out.append(Announcement("fall", step.what, self._label(data)))
        return out

    def _watch(self, block: SampleBlock) -> list[Announcement]:
        out = [
            Announcement("device", change.what, self._label(change.data))
            for change in self._health.feed(block)
        ]
        stepped = self._detector.counters.clock_steps
        if stepped > self._steps_told:
            data = {"clock": "accelerometer", "steps": stepped - self._steps_told}
            out.append(Announcement("device", "clock_stepped", self._label(data)))
        self._steps_told = stepped  # a reset starts the count anew
        return out

    def _label(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "simulated": True} if self._simulated else data
