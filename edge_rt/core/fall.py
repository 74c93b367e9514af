"""The fall alarm machine: hops, commands and time in; transitions with their reasons out.

Pure: the clock, the incident ids and the samples are arguments. The behaviour is the table in
`core.fall_table`; this module only finds out which event has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from edge_rt.core.errors import StorageError
from edge_rt.core.fall_evidence import TIMES, History, Incident, judge, posture
from edge_rt.core.fall_reasons import reasons, shorten
from edge_rt.core.fall_rules import FallRules, rules_for
from edge_rt.core.fall_table import (
    ANNOUNCED,
    OPEN,
    TABLE,
    Event,
    State,
    WrongState,
    following,
)
from edge_rt.core.hop import Hop

__all__ = [
    "OPEN",
    "TABLE",
    "AlarmMachine",
    "Event",
    "FallRules",
    "State",
    "Transition",
    "WrongState",
    "rules_for",
]

SAVE_SCHEMA = 1
# The incident at hand, if any, is over: a call for help opens one of its own.
_AT_REST = frozenset({State.DISARMED, State.MONITORING, State.CANCELLED, State.RESOLVED})
GAP_S = 1.0  # hops come many times a second: further apart, something was lost in between


class Transition(NamedTuple):
    """One use of the table.

    t_s       machine time, seconds on the samples' clock
    what      the stage that is announced as `edge_rt.fall.<what>`, None for a silent transition
    incident  id of the incident it belongs to, None if there is none
    why       JSON-able reasons: scores, thresholds, window times, peak, motion, posture
    """

    t_s: float
    event: Event
    source: State
    target: State
    what: str | None
    incident: str | None
    why: dict[str, Any]


class _Saved(msgspec.Struct, kw_only=True):
    schema: int
    state: State
    armed: bool
    now_s: float
    since_s: float
    above_t_s: float | None
    incident: Incident | None


class AlarmMachine:
    """Fall alarm of one sensor.

    rules   durations and levels
    new_id  gives each incident its id; the same id runs through all its stages
    now_s   start of the machine's clock; afterwards it only ever moves forward
    """

    def __init__(
        self,
        rules: FallRules,
        new_id: Callable[[], str],
        *,
        armed: bool = True,
        now_s: float = 0.0,
    ) -> None:
        self.rules = rules
        self._new_id = new_id
        self._state = State.MONITORING if armed else State.DISARMED
        self._armed = armed
        self._now = self._since = now_s
        self._above: float | None = None  # when the mean score last was at the threshold
        self._rising = True  # a mean at the threshold would be a new fall, not the same one
        self._incident: Incident | None = None
        self._calm_at = now_s
        self._history = History()
        self._out: list[Transition] = []

    # ---- what it says ----

    @property
    def state(self) -> State:
        """Where the machine is."""
        return self._state

    @property
    def incident(self) -> str | None:
        """Id of the incident at hand; None while there is none."""
        return self._incident.id if self._incident else None

    @property
    def now_s(self) -> float:
        """Machine time: the largest time seen so far."""
        return self._now

    @property
    def deadline_s(self) -> float | None:
        """When the pre-alarm becomes an alarm, as things stand; None outside a pre-alarm."""
        if self._state is not State.PREALARM:
            return None
        return self._since + (
            self.rules.escalated_window_s if self._lies_still() else self.rules.cancel_window_s
        )

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        last = self._history.last
        return {
            "state": self._state.value,
            "armed": self._armed,
            "incident": self.incident,
            "in_state_s": round(self._now - self._since, 3),
            "alarm_in_s": None if self.deadline_s is None else shorten(self.deadline_s - self._now),
            "mean": shorten(last.mean) if last else None,
            "threshold": self.rules.threshold,
        }

    # ---- what moves it ----

    def step(self, hop: Hop) -> list[Transition]:
        """Take one hop; the transitions it causes, in order. Never raises for any float value."""
        last = self._now
        self._advance(hop.t_s)
        if hop.t_s != self._now:  # a source whose clock went back cannot stretch a window
            hop = hop._replace(t_s=self._now)
        self._history.add(hop)
        if self._now - last > GAP_S:
            # What the gap hid may have been the score of this very impact: look on for as long.
            self._calm_at += self._now - last
        fall = False
        if hop.mean >= self.rules.threshold:
            fall, self._rising = self._rising, False
            self._above = self._now
        elif not self._rising and self._above is not None:
            self._rising = self._now - self._above >= self.rules.clear_s
        self._take(hop, fall)
        return self._drain()

    def tick(self, now_s: float) -> list[Transition]:
        """Let time pass without samples, so that time-outs fire when the sensor is lost."""
        self._advance(now_s)
        self._time_out()
        return self._drain()

    def command(self, event: Event, now_s: float, by: str = "") -> list[Transition]:
        """Cancel, resolve, help_now, arm or disarm; `by` says who, for the record.

        Raises WrongState if the table has no entry for it; nothing has changed then.
        """
        following(self._state, event)  # refuse before anything changes
        # A window that has just run out is not closed first: who cancels before the alarm is
        # out is believed.
        self._advance(now_s)
        if event in (Event.ARM, Event.DISARM):
            self._armed = event is Event.ARM
        if event is Event.HELP and self._state in _AT_REST:
            self._open("help_now")
        self._fire(event, by=by)
        return self._drain()

    # ---- save and restore ----

    def save(self) -> dict[str, Any]:
        """JSON-able state, to be stored whenever a transition happened."""
        saved = _Saved(
            schema=SAVE_SCHEMA,
            state=self._state,
            armed=self._armed,
            now_s=self._now,
            since_s=self._since,
            above_t_s=self._above,
            incident=self._incident,
        )
        built: dict[str, Any] = msgspec.to_builtins(saved)
        return built

    def restore(self, saved: dict[str, Any]) -> None:
        """Resume from `save()` at this machine's own time; the time between does not count.

        An alarm stays latched, a pre-alarm goes on with what was left of its window.
        Raises StorageError if `saved` is not what this version writes.
        """
        try:
            old = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as error:
            raise StorageError(f"saved fall state: {error}; remove it to start afresh") from None
        if old.schema != SAVE_SCHEMA:
            raise StorageError(f"saved fall state: schema {old.schema} is not {SAVE_SCHEMA}")
        if (old.incident is None) != (old.state in (State.DISARMED, State.MONITORING)):
            raise StorageError(f"saved fall state: {old.state} does not fit its incident")
        shift = self._now - old.now_s
        if old.incident is not None:
            for name in TIMES:
                value = getattr(old.incident, name)
                if value is not None:
                    setattr(old.incident, name, value + shift)
        self._state, self._armed, self._incident = old.state, old.armed, old.incident
        self._since = old.since_s + shift
        # Windows start anew with the process: an old event cannot echo in them once it is closed,
        # and waiting for it to clear would leave the first seconds unwatched.
        echo = old.above_t_s if old.state in OPEN else None
        self._above = None if echo is None else echo + shift
        self._rising = self._above is None or self._now - self._above >= self.rules.clear_s
        self._calm_at = self._now + self.rules.suspect_s

    def adopt(self, state: State, incident: str) -> None:
        """Take over an open incident that another record knows of (core.fall_resume)."""
        self._state, self._since = state, self._now
        self._incident = Incident(
            id=incident,
            suspected_t_s=self._now,
            trigger="restored",
            prealarm_t_s=self._now,
            falls=1,
        )

    def forget(self) -> None:
        """Drop the incident at hand: another record says that it has ended."""
        self._state = State.MONITORING if self._armed else State.DISARMED
        self._since, self._incident = self._now, None

    # ---- which event has happened ----

    def _take(self, hop: Hop, fall: bool) -> None:
        rules, state = self.rules, self._state
        if state is State.MONITORING:
            score = hop.mean >= rules.suspicion
            if score or hop.peak_g >= rules.impact_g:
                self._open("score" if score else "impact")
                self._fire(Event.SUSPECT)
                state = self._state
        if state is State.SUSPECTED:
            assert self._incident is not None
            self._note_impact(self._incident)
            if hop.mean >= rules.threshold:
                self._count_fall(hop)
                self._incident.prealarm_t_s = self._now
                self._fire(Event.FALL)
                judge(self._incident, hop, rules)
            elif hop.mean >= rules.suspicion or hop.peak_g >= rules.impact_g:
                self._calm_at = self._now + rules.suspect_s
            elif self._now >= self._calm_at:
                self._fire(Event.CALM)
        elif state in OPEN:
            assert self._incident is not None
            if fall:
                self._count_fall(hop)
                self._fire(Event.FALL)
            judge(self._incident, hop, rules)
        self._time_out()

    def _time_out(self) -> None:
        rules, state = self.rules, self._state
        if state is State.PREALARM:
            assert self._incident is not None
            if self._incident.recovered and rules.cancel_on_recovery:
                self._fire(Event.RECOVERED)
            elif self._now - self._since >= rules.cancel_window_s:
                self._fire(Event.TIMEOUT)
            elif self._now - self._since >= rules.escalated_window_s and self._lies_still():
                self._fire(Event.STILL)
        elif state in (State.CANCELLED, State.RESOLVED) and (
            self._above is None
            or self._now - self._above >= rules.clear_s
            or self._now - self._since >= rules.holdoff_max_s
        ):
            self._rising = True
            self._fire(Event.CLEAR if self._armed else Event.DISARM)

    def _lies_still(self) -> bool:
        incident = self._incident
        return (
            incident is not None
            and incident.still_s >= self.rules.still_s
            and posture(incident, self.rules) != "upright"
        )

    # ---- keeping the record ----

    def _advance(self, t_s: float) -> None:
        if self._now < t_s and isfinite(t_s):
            self._now = t_s

    def _open(self, trigger: str) -> None:
        self._incident = Incident(id=self._new_id(), suspected_t_s=self._now, trigger=trigger)
        self._calm_at = self._now + self.rules.suspect_s

    def _note_impact(self, incident: Incident) -> None:
        """The hardest hit that the window still sees is the impact; gravity before it, upright."""
        hit = self._history.impact(incident.suspected_t_s - self.rules.window_s)
        if hit is None or (incident.impact_g is not None and hit.peak_g <= incident.impact_g):
            return
        incident.impact_t_s, incident.impact_g = hit.t_s, hit.peak_g
        reference = self._history.reference(hit.t_s)
        if reference is not None:
            incident.reference = reference

    def _count_fall(self, hop: Hop) -> None:
        assert self._incident is not None
        self._rising = False
        self._incident.falls += 1
        top = self._incident.top_score
        self._incident.top_score = hop.mean if top is None else max(top, hop.mean)

    def _fire(self, event: Event, by: str = "") -> None:
        source, incident = self._state, self._incident
        target = self._state = following(source, event)
        if target is not source:
            self._since = self._now
        if target is State.ALARM and source is not State.ALARM and incident is not None:
            incident.alarm_t_s = self._now
        what = ANNOUNCED.get(target) if target is not source else None
        self._out.append(
            Transition(
                self._now,
                event,
                source,
                target,
                what,
                incident.id if incident else None,
                reasons(event, self._now, self.rules, self._history.last, incident, by),
            )
        )
        if target in (State.MONITORING, State.DISARMED):
            self._incident = None

    def _drain(self) -> list[Transition]:
        out, self._out = self._out, []
        return out
