"""Which loops are late."""

from __future__ import annotations

import pytest

from edge_rt.adapters import forkserver
from edge_rt.core.crash_loop import HEALTHY_S
from edge_rt.core.trying import TIMEOUT_S
from edge_rt.core.turning import PATIENCE_S, late
from edge_rt.runtime.fall_models import SWAP_S
from edge_rt.runtime.trying import CHALLENGE_S


def test_loops_that_turned_within_their_patience_are_not_late() -> None:
    assert late({}) == []
    assert late(dict(PATIENCE_S)) == []
    assert late(dict.fromkeys(PATIENCE_S, 0.5)) == []


def test_one_late_loop_is_found_among_all() -> None:
    for loop, patience_s in PATIENCE_S.items():
        stuck = {**dict.fromkeys(PATIENCE_S, 0.1), loop: patience_s + 0.1}
        assert [one.loop for one in late(stuck)] == [loop]


def test_the_longest_stuck_comes_first_and_says_so() -> None:
    found = late({"falls": 20.4, "control": 400.0})
    assert list(map(str, found)) == [
        "control has not turned for 400 s",
        "falls has not turned for 20 s",
    ]


def test_a_loop_without_a_patience_is_our_mistake() -> None:
    with pytest.raises(KeyError):
        late({"laundry": 1.0})


def test_a_line_that_hangs_for_good_takes_no_models() -> None:
    """Its restarts come after a healthy minute: they make no crash loop."""
    for loop in ("siren", "lock", "cancel button", "help button", "updates"):
        assert PATIENCE_S[loop] >= 2 * HEALTHY_S


def test_the_updates_may_take_what_their_tests_may_take() -> None:
    tries_s = 2 * CHALLENGE_S + forkserver.PATIENCE_S
    back_s = 3 * (TIMEOUT_S + SWAP_S)  # the model before, the one before that, the factory's
    assert PATIENCE_S["updates"] > 2 * (2 * back_s + tries_s)


def test_a_stalled_card_alone_does_not_end_the_watch() -> None:
    """What may stand in a write is given longer than what may not."""
    patient = {PATIENCE_S[loop] for loop in ("recorder", "faces", "uplink")}
    assert min(patient) > 2 * max(PATIENCE_S["falls"], PATIENCE_S["control"])
