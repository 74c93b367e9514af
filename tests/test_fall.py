"""core.fall: the alarm machine, driven hop by hop and by hypothesis."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_rt.core.errors import StorageError
from edge_rt.core.fall import OPEN, TABLE, AlarmMachine, Event, FallRules, State, Transition
from edge_rt.core.fall import WrongState as Wrong
from edge_rt.core.fall_table import ANNOUNCED, markdown
from edge_rt.core.hop import Hop, HopFlag
from edge_rt.core.wire import KINDS

HOP_S = 0.16
RULES = FallRules(threshold=0.0, suspicion=-2.0, window_s=3.88, clear_s=4.7)
UPRIGHT = (0.0, -1.0, 0.0)
FLAT = (0.0, -0.1, 1.0)


def ids() -> Iterator[str]:
    return (f"incident-{number}" for number in itertools.count(1))


class Person:
    """Feeds a machine the hops of somebody's day; remembers every transition."""

    def __init__(self, rules: FallRules = RULES, armed: bool = True) -> None:
        self.names = ids()
        self.machine = AlarmMachine(rules, lambda: next(self.names), armed=armed)
        self.t_s = 0.0
        self.seen: list[Transition] = []

    def hop(
        self,
        mean: float = -6.0,
        peak_g: float = 1.1,
        motion_g: float = 0.15,
        gravity: tuple[float, float, float] = UPRIGHT,
        flags: int = 0,
    ) -> None:
        self.t_s += HOP_S
        self.seen += self.machine.step(Hop(self.t_s, mean, mean, peak_g, motion_g, gravity, flags))

    def walk(self, seconds: float) -> None:
        for _ in range(round(seconds / HOP_S)):
            self.hop()

    def fall(self, hits: int = 10) -> None:
        """An impact, and 0.96 s later `hits` hops at or above the threshold."""
        self.hop(peak_g=6.0, motion_g=1.2)
        for _ in range(5):
            self.hop(mean=-3.0, motion_g=0.3, gravity=FLAT)
        for _ in range(hits):
            self.hop(mean=3.0, motion_g=0.1, gravity=FLAT)

    def lie(self, seconds: float, motion_g: float = 0.01) -> None:
        for _ in range(round(seconds / HOP_S)):
            self.hop(motion_g=motion_g, gravity=FLAT)

    def tell(self, event: Event) -> None:
        self.seen += self.machine.command(event, self.t_s, by="button")

    @property
    def stages(self) -> list[str]:
        return [step.what for step in self.seen if step.what]

    @property
    def last(self) -> Transition:
        return self.seen[-1]


def test_a_fall_goes_through_all_stages_under_one_id() -> None:
    person = Person()
    person.walk(10)
    person.fall()
    person.lie(30)
    person.tell(Event.RESOLVE)
    person.walk(6)
    assert person.stages == ["suspected", "prealarm", "alarm", "resolved"]
    assert {step.incident for step in person.seen} == {"incident-1"}
    assert person.machine.state is State.MONITORING
    assert person.machine.incident is None


def test_every_stage_says_why() -> None:
    person = Person()
    person.walk(10)
    person.fall()
    prealarm = person.last.why
    assert prealarm["event"] == "fall"
    assert prealarm["mean"] == 3.0 and prealarm["threshold"] == 0.0
    assert prealarm["peak_g"] == 6.0
    assert prealarm["delay_s"] == pytest.approx(6 * HOP_S, abs=1e-3)
    assert prealarm["in_time"] is True
    assert prealarm["window_end_s"] - prealarm["window_start_s"] == pytest.approx(3.88)
    person.lie(30)
    alarm = person.last.why
    assert alarm["posture"] == "lying" and alarm["posture_deg"] == pytest.approx(84.3, abs=0.1)
    assert alarm["still_s"] >= RULES.still_s
    json.dumps([step.why for step in person.seen], allow_nan=False)


def test_stillness_shortens_the_window_and_movement_does_not_lengthen_it() -> None:
    still, moving = Person(), Person()
    for person, motion_g in ((still, 0.01), (moving, 0.2)):
        person.walk(10)
        person.fall(hits=1)
        person.lie(25, motion_g)
        assert person.stages[-1] == "alarm"
    waited = [person.last.why["waited_s"] for person in (still, moving)]
    assert waited == [pytest.approx(10.0, abs=HOP_S), pytest.approx(20.0, abs=HOP_S)]
    assert [still.last.event, moving.last.event] == [Event.STILL, Event.TIMEOUT]


def test_standing_still_does_not_escalate_on_the_trunk_but_does_on_a_wrist() -> None:
    waited = []
    for judge_posture in (True, False):
        rules = FallRules(
            threshold=0.0, suspicion=-2.0, window_s=3.88, clear_s=4.7, judge_posture=judge_posture
        )
        person = Person(rules)
        person.walk(10)
        person.fall(hits=1)
        for _ in range(160):
            person.hop(motion_g=0.01)
        waited.append(person.last.why["waited_s"])
    assert waited == [pytest.approx(20.0, abs=HOP_S), pytest.approx(10.0, abs=HOP_S)]


def test_a_frozen_sensor_is_not_a_person_lying_still() -> None:
    person = Person()
    person.walk(10)
    person.fall(hits=1)
    for _ in range(160):
        person.hop(motion_g=0.0, gravity=FLAT, flags=int(HopFlag.STUCK))
    assert person.last.event is Event.TIMEOUT


def test_recovery_is_reported_and_cancels_only_if_the_profile_says_so() -> None:
    for cancels in (False, True):
        rules = FallRules(
            threshold=0.0, suspicion=-2.0, window_s=3.88, clear_s=4.7, cancel_on_recovery=cancels
        )
        person = Person(rules)
        person.walk(10)
        person.fall(hits=1)
        person.lie(3, 0.2)
        person.walk(18)
        end = next(step for step in person.seen if step.target in (State.ALARM, State.CANCELLED))
        assert end.why["recovered"] is True
        assert end.what == ("cancelled" if cancels else "alarm")


@pytest.mark.parametrize("peak_g", [0.9, 1.3, 16.0])
def test_the_prealarm_is_the_threshold_and_nothing_else(peak_g: float) -> None:
    person = Person()
    person.walk(5)
    person.hop(mean=-1e-6, peak_g=peak_g)
    assert "prealarm" not in person.stages
    person.hop(mean=0.0, peak_g=peak_g)
    assert person.stages == ["suspected", "prealarm"]


def test_a_late_score_still_alarms_and_says_that_it_was_late() -> None:
    person = Person()
    person.walk(10)
    person.hop(peak_g=6.0)
    for _ in range(15):
        person.hop(mean=-1.0)
    person.hop(mean=1.0)
    assert person.last.what == "prealarm"
    assert person.last.why["in_time"] is False


def test_an_impact_without_a_score_calms_down() -> None:
    person = Person()
    person.walk(5)
    person.hop(peak_g=4.0)
    person.walk(2.8)
    assert person.machine.state is State.SUSPECTED
    person.walk(0.5)
    assert person.machine.state is State.MONITORING
    assert person.stages == ["suspected"]


def test_sensor_loss_drops_nothing() -> None:
    suspected, prealarm = Person(), Person()
    suspected.walk(5)
    suspected.hop(peak_g=6.0)
    for tick in range(1, 60):
        suspected.seen += suspected.machine.tick(suspected.t_s + tick)
    assert suspected.machine.state is State.SUSPECTED
    suspected.t_s += 60
    suspected.hop(mean=2.0)
    assert suspected.last.what == "prealarm"

    prealarm.walk(5)
    prealarm.fall(hits=1)
    for tick in range(1, 22):
        prealarm.seen += prealarm.machine.tick(prealarm.t_s + tick)
    assert prealarm.last.what == "alarm"
    assert prealarm.last.t_s == pytest.approx(prealarm.t_s + 20.0)


def test_a_gap_in_the_hops_extends_the_suspicion() -> None:
    person = Person()
    person.walk(5)
    person.hop(peak_g=6.0)
    person.t_s += 8.0  # the window starts anew
    person.hop(flags=int(HopFlag.WARMING))
    assert person.machine.state is State.SUSPECTED
    person.walk(3.2)
    assert person.machine.state is State.MONITORING


def test_one_event_does_not_alarm_twice_and_the_next_one_does() -> None:
    person = Person()
    person.walk(5)
    person.fall(hits=4)
    person.tell(Event.CANCEL)
    for _ in range(10):
        person.hop(mean=2.0)  # the impact is still inside the window
    person.walk(4.0)
    assert person.machine.state is State.CANCELLED
    person.walk(1.0)
    assert person.machine.state is State.MONITORING
    assert person.stages == ["suspected", "prealarm", "cancelled"]
    person.fall()
    assert person.stages[3:] == ["suspected", "prealarm"]
    assert person.last.incident == "incident-2"


def test_scores_that_stay_high_after_a_cancel_alarm_again_in_the_end() -> None:
    person = Person()
    person.walk(5)
    person.fall(hits=4)
    person.tell(Event.CANCEL)
    for _ in range(round(31 / HOP_S)):
        person.hop(mean=2.0)
    assert person.stages == ["suspected", "prealarm", "cancelled", "suspected", "prealarm"]


def test_a_second_fall_joins_the_open_incident() -> None:
    person = Person()
    person.walk(5)
    person.fall(hits=4)
    person.walk(6)
    person.fall(hits=4)
    assert person.last.event is Event.FALL and person.last.what is None
    assert person.last.why["falls"] == 2
    person.lie(20, 0.2)
    assert person.last.what == "alarm"
    assert person.last.why["waited_s"] == pytest.approx(20.0, abs=HOP_S)  # not extended
    person.walk(6)
    person.fall(hits=4)
    assert (person.last.source, person.last.target) == (State.ALARM, State.ALARM)
    person.tell(Event.RESOLVE)
    assert person.last.why["falls"] == 3
    assert {step.incident for step in person.seen} == {"incident-1"}


@pytest.mark.parametrize("state", list(State))
def test_help_now_raises_the_alarm_from_anywhere(state: State) -> None:
    person = Person(armed=state is not State.DISARMED)
    person.walk(5)
    if state is State.SUSPECTED:
        person.hop(peak_g=6.0)
    elif state not in (State.DISARMED, State.MONITORING):
        person.fall(hits=1)
    if state in (State.ALARM, State.RESOLVED):
        person.tell(Event.HELP)
    if state is State.RESOLVED:
        person.tell(Event.RESOLVE)
    if state is State.CANCELLED:
        person.tell(Event.CANCEL)
    assert person.machine.state is state
    ended = person.machine.incident if state in (State.RESOLVED, State.CANCELLED) else None
    person.tell(Event.HELP)
    assert person.machine.state is State.ALARM
    assert person.machine.incident not in (None, ended)
    person.tell(Event.RESOLVE)
    person.walk(10)
    resting = State.DISARMED if state is State.DISARMED else State.MONITORING
    assert person.machine.state is resting


def test_an_open_incident_cannot_be_disarmed_and_the_refusal_names_both() -> None:
    person = Person()
    person.walk(5)
    person.fall(hits=1)
    running = "cannot disarm: a pre-alarm is running; you can cancel or call for help$"
    with pytest.raises(Wrong, match=running):
        person.tell(Event.DISARM)
    person.lie(21)
    with pytest.raises(Wrong, match="cannot cancel: the alarm is out; you can resolve$"):
        person.tell(Event.CANCEL)
    assert person.machine.state is State.ALARM


@pytest.mark.parametrize("state", State)
def test_a_refusal_speaks_to_people_in_every_state(state: State) -> None:
    """It offers what moves the machine on, and nothing that only evidence and time can do."""
    words = {Event.HELP: "call for help"}
    for event in (Event.CANCEL, Event.RESOLVE, Event.DISARM):
        if event in TABLE[state]:
            continue
        said = str(Wrong(state, event))
        offered = said.partition("; you can ")[2].split(" or ")
        assert offered != [""]
        for other in Event:
            moves = TABLE[state].get(other, state) is not state
            told = other in (Event.CANCEL, Event.RESOLVE, Event.HELP, Event.ARM, Event.DISARM)
            assert (words.get(other, other.value) in offered) is (moves and told)


def test_disarmed_ignores_falls() -> None:
    person = Person()
    person.tell(Event.DISARM)
    person.walk(5)
    person.fall()
    assert person.stages == []
    person.tell(Event.ARM)
    person.walk(5)
    person.fall()
    assert person.stages == ["suspected", "prealarm"]


@pytest.mark.parametrize("waited_s", [2.0, 25.0])
def test_a_restart_resumes_the_incident(waited_s: float) -> None:
    before = Person()
    before.walk(5)
    before.fall(hits=1)
    before.lie(waited_s, 0.2)
    saved = json.loads(json.dumps(before.machine.save()))
    after = Person()
    after.t_s = 5000.0  # another boot, another clock
    after.machine.tick(5000.0)
    after.machine.restore(saved)
    assert after.machine.state is before.machine.state
    assert after.machine.incident == "incident-1"
    after.lie(30, 0.2)
    assert after.machine.state is State.ALARM
    if before.machine.state is State.PREALARM:
        assert after.last.why["waited_s"] == pytest.approx(20.0, abs=2 * HOP_S)
    else:
        assert after.stages == []  # announced before the restart: latched, not raised again
    after.tell(Event.RESOLVE)
    assert after.last.incident == "incident-1"


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"state": "asleep"}, {"state": "alarm"}, {"now_s": "noon"}],
)
def test_a_damaged_saved_state_is_refused(change: dict[str, object]) -> None:
    person = Person()
    with pytest.raises(StorageError, match="saved fall state"):
        person.machine.restore({**person.machine.save(), **change})
    assert person.machine.state is State.MONITORING


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e308, -1e308])
def test_no_number_breaks_it(odd: float) -> None:
    person = Person()
    person.walk(5)
    person.fall(hits=1)
    for hop in (
        Hop(odd, 0.0, -5.0, 1.0, 0.1, UPRIGHT),
        Hop(person.t_s, odd, -5.0, odd, odd, (odd, odd, 0.0)),
    ):
        if hop.t_s != 1e308:
            person.seen += person.machine.step(hop)
    person.tell(Event.HELP)
    json.dumps([step.why for step in person.seen], allow_nan=False)
    json.dumps(person.machine.status(), allow_nan=False)
    assert person.machine.state is State.ALARM


def test_backward_time_cannot_stretch_the_window() -> None:
    person = Person()
    person.walk(10)
    person.fall(hits=1)
    raised = person.machine.now_s
    person.t_s -= 8.0
    person.lie(8.0, 0.2)
    assert person.machine.now_s == pytest.approx(raised, abs=2 * HOP_S)
    person.lie(20.5, 0.2)
    assert person.machine.state is State.ALARM


def test_rules_that_contradict_each_other_are_refused() -> None:
    for wrong in (
        {"suspicion": 1.0},
        {"still_s": 11.0},
        {"escalated_window_s": 30.0},
        {"cancel_window_s": math.nan},
        {"impact_g": 0.0},
    ):
        values = {"threshold": 0.0, "suspicion": -2.0, "window_s": 3.88, "clear_s": 4.7, **wrong}
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FallRules(**values)


def test_the_table_prints_and_every_stage_is_an_event_kind() -> None:
    assert set(TABLE) == set(State)
    assert len(markdown().splitlines()) == 2 + len(State)
    assert set(ANNOUNCED.values()) == set(KINDS["fall"])


class AnyDay(RuleBasedStateMachine):
    """Anything may happen in any order; what must hold, holds."""

    def __init__(self) -> None:
        super().__init__()
        self.names = ids()
        self.machine = AlarmMachine(RULES, lambda: next(self.names))
        self.t_s = 0.0
        self.latched: str | None = None
        self.opened: str | None = None

    def check(self, steps: list[Transition], at: State) -> None:
        state = at
        for step in steps:
            assert step.source is state
            assert TABLE[step.source][step.event] is step.target
            state = step.target
            if step.source in OPEN:
                assert step.incident == self.opened
            if step.target in OPEN:
                self.opened = step.incident
            if step.target is State.ALARM:
                self.latched = step.incident
            if step.event is Event.RESOLVE and step.source is State.ALARM:
                assert step.incident == self.latched
                self.latched = None
        assert state is self.machine.state

    @rule(
        dt_s=st.sampled_from([0.16, 0.16, 0.16, -3.0, 0.0, 7.0]),
        mean=st.sampled_from([-6.0, -1.0, 0.0, 4.0, math.nan]),
        peak_g=st.sampled_from([1.0, 2.9, 3.0, 16.0]),
        motion_g=st.sampled_from([0.0, 0.01, 0.2, 2.0]),
        gravity=st.sampled_from([UPRIGHT, FLAT, (0.0, 0.0, 0.0)]),
        flags=st.sampled_from([0, 1, 2, 8]),
        repeat=st.integers(1, 50),
    )
    def hops(
        self,
        dt_s: float,
        mean: float,
        peak_g: float,
        motion_g: float,
        gravity: tuple[float, float, float],
        flags: int,
        repeat: int,
    ) -> None:
        for _ in range(repeat):
            self.t_s += dt_s
            before, at = self.machine.now_s, self.machine.state
            hop = Hop(self.t_s, mean, mean, peak_g, motion_g, gravity, flags)
            steps = self.machine.step(hop)
            self.check(steps, at)
            assert self.machine.now_s >= before
            if at is State.MONITORING:
                assert any(s.what == "prealarm" for s in steps) == (mean >= RULES.threshold)

    @rule(dt_s=st.sampled_from([-1.0, 0.5, 25.0]))
    def tick(self, dt_s: float) -> None:
        before, at = self.machine.now_s, self.machine.state
        self.check(self.machine.tick(self.machine.now_s + dt_s), at)
        assert self.machine.now_s >= before

    @rule(event=st.sampled_from([Event.CANCEL, Event.RESOLVE, Event.HELP, Event.ARM, Event.DISARM]))
    def command(self, event: Event) -> None:
        at = self.machine.state
        if event in TABLE[at]:
            self.check(self.machine.command(event, self.t_s), at)
        else:
            saved = self.machine.save()
            with pytest.raises(Wrong):
                self.machine.command(event, self.t_s)
            assert self.machine.save() == saved

    @rule()
    def restart(self) -> None:
        saved = json.loads(json.dumps(self.machine.save()))
        now_s = self.machine.now_s
        self.machine = AlarmMachine(RULES, lambda: next(self.names), now_s=now_s)
        self.machine.restore(saved)

    @precondition(lambda self: self.machine.state is State.PREALARM)
    @rule()
    def silence(self) -> None:
        """Whatever went before, a pre-alarm left alone becomes an alarm in its window."""
        at = self.machine.state
        # A moment more: now + window - now may round to less than the window.
        self.check(self.machine.tick(self.machine.now_s + RULES.cancel_window_s + 1e-6), at)
        assert self.machine.state is State.ALARM

    @invariant()
    def an_alarm_is_latched(self) -> None:
        assert (self.machine.state is State.ALARM) == (self.latched is not None)
        if self.latched is not None:
            assert self.machine.incident == self.latched


AnyDay.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyDay = AnyDay.TestCase
