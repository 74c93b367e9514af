"""Patterns, pulses, contacts that bounce and fingers that hold, with time as an argument."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.pins import (
    CALM_S,
    HANDS,
    LED,
    MEANINGS,
    NEVER,
    SIREN,
    STUCK_S,
    Button,
    Debouncer,
    Gesture,
    Hand,
    Level,
    Pulse,
    level_at,
    markdown,
)

PRESS, HOLD, LATE = Gesture.PRESS, Gesture.HOLD, Gesture.LATE
STUCK, FREED = Gesture.STUCK, Gesture.FREED


def test_a_pattern_repeats_and_says_when_to_look_again() -> None:
    ask = SIREN["prealarm"]
    assert level_at(ask, 0.0) == Level(True, 0.2)
    assert level_at(ask, 0.2) == Level(False, 0.8)
    assert level_at(ask, 7.15) == pytest.approx(Level(True, 0.05))
    assert level_at(NEVER, 1e6) == Level(False, math.inf)


def test_a_pattern_that_ends_stays_at_its_end() -> None:
    assert level_at(SIREN["test"], 0.35).on
    assert level_at(SIREN["test"], 0.4) == Level(False, math.inf)


@given(st.sampled_from([*LED.values(), *SIREN.values()]), st.floats(0.0, 1e7))
def test_following_a_pattern_makes_progress(pattern: tuple, elapsed_s: float) -> None:
    level = level_at(pattern, elapsed_s)
    assert level.for_s >= 0.0
    assert level.on in {step.on for step in pattern}


def test_no_state_of_the_led_looks_like_a_dead_device() -> None:
    for name in ("ok", "problem", "prealarm", "alarm"):
        assert {step.on for step in LED[name]} == {True, False}
        assert sum(step.for_s for step in LED[name]) <= 3.0
    assert len({LED[name] for name in LED}) == len(LED)


def test_a_pulse_is_bounded_however_often_it_is_asked_for() -> None:
    pulse = Pulse(3.0)
    assert not pulse.level(0.0).on
    assert pulse.ask(10.0)
    for k in range(29):
        assert not pulse.ask(10.1 + k / 10)
    assert pulse.level(12.9) == pytest.approx(Level(True, 0.1))
    assert pulse.level(13.0) == Level(False, math.inf)
    assert pulse.ask(13.0)


def test_bouncing_contacts_are_one_change() -> None:
    bounce = Debouncer(0.03)
    assert bounce.see(False, 0.0) == []
    assert bounce.settle(0.05) == [(False, 0.0)]
    for k in range(10):
        assert bounce.see(k % 2 == 0, 1.0 + k * 0.002) == []
    assert bounce.see(True, 1.02) == []
    assert bounce.wait_s(1.03) == pytest.approx(0.02)
    assert bounce.settle(1.04) == []
    assert bounce.settle(1.05) == [(True, 1.02)]
    assert bounce.wait_s(2.0) == math.inf


def test_a_spike_is_no_press() -> None:
    button = released()
    button.see(True, 1.0)
    button.see(False, 1.01)
    assert button.tick(2.0) == []


def released(hold_s: float = 3.0) -> Button:
    button = Button(0.03, hold_s)
    button.see(False, 0.0)
    assert button.tick(0.5) == []
    assert button.hand is Hand.AWAY
    return button


def test_a_press_counts_when_it_begins_and_once() -> None:
    button = released()
    button.see(True, 1.0)
    assert button.wait_s(1.0) == pytest.approx(0.03)
    assert button.tick(1.031) == [PRESS]
    assert button.see(True, 1.5) == button.tick(1.6) == []
    button.see(False, 2.0)
    assert button.tick(2.1) == []
    button.see(True, 3.0)
    assert button.tick(3.1) == [PRESS]


def test_a_long_press_is_a_press_and_then_a_hold() -> None:
    button = released()
    button.see(True, 1.0)
    assert button.tick(1.1) == [PRESS]
    assert button.wait_s(1.1) == pytest.approx(2.9)
    assert button.tick(3.9) == []
    assert button.tick(4.0) == [HOLD]
    assert button.tick(5.0) == []


def test_a_jammed_button_is_told_once_and_works_again_when_freed() -> None:
    button = released()
    button.see(True, 1.0)
    assert button.tick(1.0 + STUCK_S) == [PRESS, HOLD, STUCK]
    assert button.tick(2.0 + STUCK_S) == []
    button.see(False, 100.0)
    assert button.tick(101.0) == [FREED]
    button.see(True, 102.0)
    assert button.tick(102.1) == [PRESS]


def test_a_button_held_at_the_start_was_pressed_once_it_is_let_go() -> None:
    button = Button(0.03, 3.0)
    button.see(True, 0.0)
    assert button.tick(1.0) == button.tick(5.0) == []
    button.see(False, 6.0)
    assert button.tick(7.0) == [LATE]
    button.see(True, 8.0)
    assert button.tick(8.1) == [PRESS]


def test_a_button_jammed_at_the_start_was_not() -> None:
    button = Button(0.03, 3.0)
    button.see(True, 0.0)
    assert button.tick(STUCK_S) == [STUCK]
    button.see(False, 40.0)
    assert button.tick(41.0) == [FREED]


def test_a_contact_that_never_rests_is_told_once_and_so_is_its_rest() -> None:
    button = released()
    found = []
    for k in range(1000):  # ten seconds of edges, each sooner than a level could settle
        button.see(k % 2 == 0, 1.0 + k * 0.01)
        found += button.tick(1.0 + k * 0.01)
    assert found == [Gesture.CHATTER]
    assert button.tick(11.5) == []
    assert button.tick(11.0 + CALM_S) == [Gesture.CALM]
    button.see(True, 20.0)
    assert button.tick(20.1) == [PRESS]


def test_fingers_and_bouncing_contacts_are_no_chatter() -> None:
    button = released()
    found = []
    for k in range(20):  # somebody in panic, on a contact that bounces
        for m in range(5):
            button.see(m % 2 == k % 2, 1.0 + k * 0.2 + m * 0.004)
        found += button.tick(1.1 + k * 0.2)
    assert set(found) == {PRESS}


def test_a_press_between_two_looks_is_not_missed() -> None:
    button = released()
    found = button.see(True, 1.0) + button.see(False, 1.06)  # both edges come with one read
    assert found == [PRESS]


def test_every_hand_can_be_let_go() -> None:
    for hand, moves in HANDS.items():
        if hand is not Hand.AWAY:
            assert any(next_hand is Hand.AWAY for next_hand, _ in moves.values()), hand


def test_help_is_one_press_and_only_a_hold_resolves() -> None:
    assert MEANINGS["help"] == {PRESS: "help_now", LATE: "help_now"}
    assert MEANINGS["cancel"] == {PRESS: "cancel", HOLD: "resolve"}  # and never a late press


def test_the_tables_of_the_guide_are_these(repository) -> None:  # type: ignore[no-untyped-def]
    guide = repository / "docs/wiring.md"
    if not guide.exists():
        pytest.skip("no wiring guide yet")
    assert markdown() in guide.read_text()
