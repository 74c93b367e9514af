"""The unlock machine: k of n, what failures cost, and that no restart gives a free try."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_rt.adapters.statefile import StateFile
from edge_rt.core import unlock
from edge_rt.core.errors import ConfigError, StorageError
from edge_rt.core.unlock import Counters, Input, Look, State, UnlockMachine, UnlockRules, Verdict
from edge_rt.core.wire import check_face_data

NO_FACE, POOR = Look(Verdict.NO_FACE), Look(Verdict.POOR, reason="blurred")
STRANGER = Look(Verdict.STRANGER)
ADA, BO = (Look(Verdict.MATCH, person=f"p-{n:016x}") for n in (1, 2))
RULES = UnlockRules()


class Device:
    """A machine with a disk and a clock that the test drives; reboots keep only the disk."""

    def __init__(self, rules: UnlockRules = RULES) -> None:
        self.rules = rules
        self.disk = Counters()
        self.disk_works = True
        self.saved = 0
        self.boots = 0
        self.now_s = 0.0
        self.reboot()

    def save(self, counters: Counters) -> None:
        if not self.disk_works:
            raise StorageError("unlock.json: disk is full")
        self.disk = msgspec.json.decode(msgspec.json.encode(counters), type=Counters)
        self.saved += 1

    def start(self) -> None:
        self.machine = UnlockMachine(
            self.rules, self.disk, self.save, boot_id=f"b{self.boots}", now_s=self.now_s
        )

    def reboot(self, uptime_s: float = 3.0) -> None:
        self.boots += 1
        self.now_s = uptime_s
        self.start()

    def see(self, *looks: Look, every_s: float = 0.1) -> list[str]:
        told = []
        for look in looks:
            self.now_s += every_s
            told += [outcome.what for outcome in self.machine.step(look, self.now_s)]
        return told

    def deny(self, times: int = 1) -> list[str]:
        told = []
        for _ in range(times):
            told += self.see(*[STRANGER] * RULES.frames)
            self.now_s += self.rules.pause_s
        return told


@pytest.fixture
def device() -> Device:
    return Device()


# ---- k of n ----


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([ADA, ADA, ADA], ["unlocked"]),
        ([ADA, ADA], []),
        ([STRANGER, ADA, STRANGER, ADA, ADA], ["unlocked"]),
        ([STRANGER, STRANGER, STRANGER], ["denied"]),
        ([ADA, STRANGER, STRANGER, STRANGER], ["denied"]),
        ([ADA, BO, ADA, BO], []),
        ([ADA, BO, ADA, BO, ADA], ["unlocked"]),
        ([ADA, BO, STRANGER, BO, ADA], ["denied"]),
        ([ADA, POOR, NO_FACE, ADA, POOR, ADA], ["unlocked"]),
        ([POOR] * 50 + [NO_FACE] * 50, []),
    ],
)
def test_k_of_n(device: Device, looks: list[Look], told: list[str]) -> None:
    assert device.see(*looks) == told


def test_outcomes_say_who_and_why_and_no_more(device: Device) -> None:
    (outcome,) = [o for n in range(3) for o in device.machine.step(ADA, 5 + n)]
    assert outcome.data("not_checked") == {
        "outcome": "unlocked",
        "person": ADA.person,
        "liveness": "not_checked",
    }
    check_face_data(outcome.data("not_checked"))
    denied = Device()
    for _ in range(RULES.failures):
        for outcome in (o for _ in range(5) for o in denied.machine.step(STRANGER, denied.now_s)):
            check_face_data(outcome.data("not_checked"))
            assert outcome.reason in ("stranger", "too_many_failures")
        denied.now_s += RULES.pause_s


def test_who_leaves_or_takes_too_long_is_denied(device: Device) -> None:
    assert device.see(ADA) == []
    assert device.see(*[NO_FACE] * 25) == ["denied"]
    device.now_s += RULES.pause_s
    assert device.see(ADA, *[POOR] * 110) == ["denied"]


def test_after_an_unlock_nothing_is_decided_for_a_while(device: Device) -> None:
    device.see(ADA, ADA, ADA)
    assert device.see(*[ADA] * 40) == []
    assert device.see(*[ADA] * 20) == ["unlocked"]


# ---- what failures cost ----


def test_lockouts_grow_to_the_cap(device: Device) -> None:
    assert device.deny(RULES.failures - 1) == ["denied"] * (RULES.failures - 1)
    lengths = []
    for _ in range(8):
        assert device.deny() == ["denied", "lockout"]
        lengths.append(round(device.machine.lockout_s(device.now_s) + RULES.pause_s))
        assert device.see(ADA, ADA, ADA) == [], "a lockout holds for everyone"
        device.now_s += lengths[-1]
    assert lengths == [30, 60, 120, 240, 480, 900, 900, 900]


def test_an_unlock_forgives(device: Device) -> None:
    device.deny(RULES.failures - 1)
    assert device.see(ADA, ADA, ADA) == ["unlocked"]
    device.now_s += RULES.hold_s
    assert device.deny(RULES.failures) == ["denied"] * RULES.failures + ["lockout"]


def test_a_reboot_starts_the_countdown_again_and_a_restart_does_not(device: Device) -> None:
    device.deny(RULES.failures)
    device.now_s += 20
    for uptime_s in (3.0, 10.0, 10_000.0):  # a monotonic clock of another boot tells nothing
        device.reboot(uptime_s)
        assert device.machine.lockout_s(device.now_s) == RULES.lockout_s
    device.now_s += 20
    device.start()
    assert device.machine.lockout_s(device.now_s) == RULES.lockout_s - 20


def test_a_lockout_that_is_over_is_over_after_a_reboot_too(device: Device) -> None:
    device.deny(RULES.failures)
    device.now_s += RULES.lockout_s
    device.see(NO_FACE)
    device.reboot()
    assert device.see(ADA, ADA, ADA) == ["unlocked"]


def test_a_long_countdown_is_saved_on_the_way(device: Device) -> None:
    device.deny(RULES.failures + 0)
    for _ in range(4):
        device.now_s += device.machine.lockout_s(device.now_s)
        device.deny()
    device.now_s += 200  # of 480
    device.see(NO_FACE)
    device.reboot()
    assert device.machine.lockout_s(device.now_s) == pytest.approx(280, abs=5)


def test_a_clock_that_runs_backwards_shortens_nothing(device: Device) -> None:
    device.deny(RULES.failures)
    left_s = device.machine.lockout_s(device.now_s)
    for now_s in (-1e9, 0.0):
        device.machine.step(ADA, now_s)
    assert device.machine.lockout_s(device.now_s) == left_s


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_cutting_attempts_off_gains_nothing(device: Device, frames: int) -> None:
    for _ in range(50):
        device.see(*[STRANGER] * frames)
        device.reboot()
    assert device.disk.failures == RULES.failures
    assert device.machine.lockout_s(device.now_s) > 0


def test_nothing_is_decided_without_a_disk(device: Device) -> None:
    device.disk_works = False
    for _ in range(10):
        with pytest.raises(StorageError):
            device.see(ADA)
    assert device.machine.state is State.WATCHING
    device.disk_works = True
    device.see(ADA, ADA)
    device.disk_works = False
    with pytest.raises(StorageError):
        device.see(ADA)
    device.disk_works = True
    assert device.see(ADA) == ["unlocked"]


def test_a_daemon_starts_on_a_full_disk(device: Device) -> None:
    device.deny(RULES.failures - 1)
    device.see(STRANGER)
    device.disk_works = False
    device.reboot()
    assert device.machine.lockout_s(device.now_s) == RULES.lockout_s
    assert device.see(ADA, ADA, ADA) == []


def test_a_sick_disk_gives_no_more_looks(device: Device) -> None:
    device.see(ADA)
    device.disk_works = False
    device.see(STRANGER, STRANGER)
    for _ in range(20):
        with pytest.raises(StorageError):
            device.see(STRANGER)
    device.disk_works = True
    assert device.see(ADA) == ["denied"]


def test_the_charge_is_on_disk_before_the_outcome(device: Device) -> None:
    device.see(STRANGER)
    assert (device.disk.failures, device.disk.attempting) == (1, True)
    device.see(*[STRANGER] * 4)
    assert (device.disk.failures, device.disk.attempting) == (1, False)


def test_unreadable_counters_cost_the_longest_lockout(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "unlock.json", Counters)
    file.file.write(b"nonsense")
    with pytest.raises(StorageError):
        file.load()
    device = Device()
    device.disk = unlock.penalised(RULES)
    device.start()
    assert device.machine.lockout_s(device.now_s) == RULES.lockout_cap_s
    device.now_s += RULES.lockout_cap_s
    assert device.see(ADA, ADA, ADA) == ["unlocked"], "the owner is not shut out for ever"


# ---- rules, table, guard ----


@pytest.mark.parametrize(
    "text",
    [
        '{"failures": 0}',
        '{"failures": 11}',
        '{"lockout_s": 1}',
        '{"lockout_s": 1000}',
        '{"matches": 6}',
        '{"frames": 0}',
        '{"lockout": 5}',
    ],
)
def test_settings_cannot_switch_the_limits_off(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=UnlockRules)


def test_the_table_is_whole() -> None:
    for state, event in itertools.product(State, Input):
        if event in unlock.TABLE[state]:
            assert unlock.transition(state, event) in State
        else:
            with pytest.raises(ValueError, match=f"no {event} in state {state}"):
                unlock.transition(state, event)


def test_without_liveness_only_the_log_is_driven() -> None:
    unlock.check_actuator("log", unlock.LIVENESS_NOT_CHECKED)
    unlock.check_actuator("gpio", "passed")
    for liveness in ("not_checked", "failed"):
        with pytest.raises(ConfigError, match="'gpio' needs liveness"):
            unlock.check_actuator("gpio", liveness)


class Attacker(RuleBasedStateMachine):
    """Any frames, pauses, reboots, restarts and disk faults: the limits hold.

    An attempt is what was charged: at most `frames` judged frames. The model below keeps, on an
    attacker's side, when each began in running time, which no reboot shortens.
    """

    @initialize(failures=st.integers(1, 4), frames=st.integers(1, 4), matches=st.integers(1, 4))
    def begin(self, failures: int, frames: int, matches: int) -> None:
        rules = UnlockRules(failures=failures, frames=frames, matches=min(matches, frames))
        self.device = Device(rules)
        self.running_s = 0.0
        self.denials = 0  # charged in a row
        self.free_at_s = 0.0  # no attempt may begin before
        self.judged = 0
        self.attempting = False
        self.stale_since: int | None = None

    def settle(self) -> None:
        """The running attempt counts as denied."""
        self.attempting = False
        lockout_s = self.device.rules.lockout_after(self.denials)
        self.free_at_s = max(self.free_at_s, self.running_s + lockout_s)

    @rule(look=st.sampled_from([NO_FACE, POOR, STRANGER, ADA, BO]), after_s=st.floats(0.01, 4))
    def frame(self, look: Look, after_s: float) -> None:
        self.device.now_s += after_s
        self.running_s += after_s
        before = self.device.machine.counters
        try:
            outcomes = self.device.machine.step(look, self.device.now_s)
        except StorageError:
            outcomes = []
        counters = self.device.machine.counters
        assert counters == self.device.disk or self.stale(), "what is known is on disk"
        if counters.attempting and not before.attempting or self.instant(before, outcomes):
            assert self.running_s >= self.free_at_s - 1e-6, "an attempt during a lockout"
            assert not self.attempting
            self.attempting = True
            self.denials += 1
            self.judged = 0
        if self.attempting and look.verdict in (Verdict.STRANGER, Verdict.MATCH):
            self.judged += 1
        if any(outcome.what == "unlocked" for outcome in outcomes):
            assert self.judged <= self.device.rules.frames, "unlocked by more looks than allowed"
            assert self.attempting and look.verdict is Verdict.MATCH
            self.attempting = False
            self.denials = 0
        elif outcomes:
            assert self.attempting
            self.settle()
            locked = self.device.rules.lockout_after(self.denials) > 0
            assert [outcome.what for outcome in outcomes] == ["denied"] + ["lockout"] * locked

    @staticmethod
    def instant(before: Counters, outcomes: list[unlock.Outcome]) -> bool:
        """Begun and ended by one frame."""
        return not before.attempting and bool(outcomes)

    @rule(uptime_s=st.none() | st.floats(1, 1e5))
    def power(self, uptime_s: float | None) -> None:
        if uptime_s is None:
            self.device.start()
        else:
            self.device.reboot(uptime_s)
        self.stale_since = None if self.device.disk_works else self.device.saved
        if self.attempting:
            self.settle()

    @rule(hours=st.floats(0, 0.5))
    def wait(self, hours: float) -> None:
        self.device.now_s += hours * 3600
        self.running_s += hours * 3600

    @rule(works=st.booleans())
    def disk(self, works: bool) -> None:
        self.device.disk_works = works

    @invariant()
    def counted(self) -> None:
        if hasattr(self, "device"):
            assert self.device.disk.failures == self.denials
            assert self.device.disk.attempting == self.attempting or self.stale()

    def stale(self) -> bool:
        """Started on a disk that took nothing, and nothing was saved since."""
        return self.stale_since == self.device.saved


TestAttacker = Attacker.TestCase
TestAttacker.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
