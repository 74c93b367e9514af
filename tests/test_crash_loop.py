"""What is left out after starts that failed."""

from __future__ import annotations

from edge_rt.core.config import Config, FaceConfig, FallConfig, parse_config
from edge_rt.core.crash_loop import (
    ALARM_DELAY_S,
    BARE_AT,
    DELAYS_S,
    SPARE_AT,
    Mode,
    Starts,
    before,
    begun,
    ended,
    healthy,
    reduced,
    spared,
)


def failing(times: int) -> Starts:
    starts = before(None, "x")
    for _ in range(times):
        starts = begun(starts)
    return starts


def test_first_the_additions_go_then_all_models() -> None:
    modes = [failing(n).mode for n in range(BARE_AT + 2)]
    assert modes[:SPARE_AT] == [Mode.FULL] * SPARE_AT
    assert modes[SPARE_AT:BARE_AT] == [Mode.SPARE] * (BARE_AT - SPARE_AT)
    assert modes[BARE_AT:] == [Mode.BARE] * 2


def test_the_waits_grow_to_a_bound_and_a_single_crash_costs_none() -> None:
    delays = [failing(n).delay_s(alarm_open=False) for n in range(len(DELAYS_S) + 5)]
    assert delays[:2] == [0.0, 0.0]
    assert delays == sorted(delays)
    assert delays[-1] == DELAYS_S[-1]


def test_somebody_who_waits_for_help_waits_no_longer() -> None:
    delays = [failing(n).delay_s(alarm_open=True) for n in range(len(DELAYS_S) + 5)]
    assert max(delays) == ALARM_DELAY_S < DELAYS_S[BARE_AT]
    assert delays == sorted(delays) and delays[:2] == [0.0, 0.0]


def test_a_healthy_minute_counts_anew_and_so_does_another_configuration() -> None:
    assert healthy(failing(5)).failed == 0
    assert before(failing(5), "x").failed == 5
    assert before(failing(5), "y") == Starts("y")


def test_after_a_while_without_models_they_are_tried_again() -> None:
    assert spared(failing(BARE_AT)).mode is Mode.SPARE


def test_the_reason_is_kept_and_bounded() -> None:
    assert ended(failing(1), "x" * 10_000).reason == "x" * 300
    assert begun(ended(failing(1), "old")).reason == ""


def test_full_is_what_was_asked_for() -> None:
    config = Config(faces=FaceConfig(enabled=True))
    assert reduced(config, Mode.FULL, "fall-waist") is config


def test_spare_keeps_falls_outputs_and_uplink() -> None:
    config = parse_config(
        "[falls]\nbundle = '/srv/mine'\nthreshold = 0.9\n[faces]\nenabled = true\n"
        "[falls.alarm]\ncancel_window_s = 33.0\n[mqtt]\nhost = 'broker'\n",
        "x",
    )
    run = reduced(config, Mode.SPARE, "fall-wrist")
    assert (run.falls.enabled, run.falls.bundle, run.falls.threshold) == (True, "fall-wrist", None)
    assert not run.faces.enabled
    assert run.falls.alarm == config.falls.alarm
    assert (run.outputs, run.mqtt, run.device) == (config.outputs, config.mqtt, config.device)


def test_a_threshold_stays_with_its_bundle() -> None:
    config = Config(falls=FallConfig(bundle="fall-wrist", threshold=0.7))
    assert reduced(config, Mode.SPARE, "fall-wrist").falls.threshold == 0.7


def test_bare_runs_no_model() -> None:
    run = reduced(Config(faces=FaceConfig(enabled=True)), Mode.BARE, "fall-waist")
    assert not run.falls.enabled and not run.faces.enabled
