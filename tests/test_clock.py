"""Whether the wall clock may be believed."""

from __future__ import annotations

import time

import pytest

from edge_rt.runtime.clock import believable, clock_trusted

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("kernel_state", "unix_s", "trusted"),
    [
        (0, NOW_S, True),  # TIME_OK
        (1, NOW_S, True),  # a leap second is coming
        (5, NOW_S, False),  # TIME_ERROR: nothing has set it
        (-1, NOW_S, False),  # the kernel does not tell
        (0, 0.0, False),  # "synchronised" with an RTC without a battery
        (0, 1_700_000_000.0, False),  # before edge_rt existed
    ],
)
def test_the_kernel_and_the_year_must_both_agree(
    kernel_state: int, unix_s: float, trusted: bool
) -> None:
    assert believable(kernel_state, unix_s) is trusted


def test_this_machine_answers() -> None:
    assert clock_trusted() in (True, False)
    assert time.time() > 1_735_689_600, "the tests need a clock that is set"
