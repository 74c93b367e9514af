"""Failed starts, counted across starts in a real state folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from edge_rt.core.config import Config, FaceConfig, FallConfig
from edge_rt.core.crash_loop import BARE_AT, SPARE_AT, Mode
from edge_rt.runtime.crash_guard import STAND_IN_NAME, STARTS_NAME, CrashGuard, factory_spare

CONFIG = Config(faces=FaceConfig(enabled=True), falls=FallConfig(bundle="/srv/mine"))


def guard(folder: Path, config: Config = CONFIG) -> CrashGuard:
    return CrashGuard(folder, config, lambda name: "fall-wrist")


def crash(folder: Path, times: int, reason: str = "") -> CrashGuard:
    for _ in range(times):
        one = guard(folder)
        one.begin()
        if reason:
            one.failed(reason)
    return guard(folder)


def test_a_first_start_runs_everything(tmp_path: Path) -> None:
    first = guard(tmp_path)
    assert (first.mode, first.config, first.report(), first.problem()) == (
        *(Mode.FULL, CONFIG, {}),
        "",
    )


def test_crashes_lead_to_the_spare_model_and_say_what_is_off(tmp_path: Path) -> None:
    after = crash(tmp_path, SPARE_AT, "falls has not turned for 11 s")
    assert after.mode is Mode.SPARE
    assert after.config.falls.bundle == "fall-wrist" and not after.config.faces.enabled
    assert after.report() == {
        "mode": "spare",
        "failed_starts": SPARE_AT,
        "reason": "falls has not turned for 11 s",
        "off": ["faces"],
        "bundle": "fall-wrist",
    }
    assert after.problem() == (
        "degraded after 3 failed starts, faces off: falls has not turned for 11 s"
    )


def test_without_a_last_word_it_was_a_crash(tmp_path: Path) -> None:
    after = crash(tmp_path, BARE_AT)
    assert after.report()["reason"] == "killed or crashed; see the service log"
    assert after.report()["off"] == ["falls", "faces"]


def test_a_clean_stop_is_no_failure_and_no_cure(tmp_path: Path) -> None:
    crash(tmp_path, SPARE_AT - 1)
    for _ in range(5):
        one = guard(tmp_path)
        one.begin()
        one.stopped()
    assert guard(tmp_path).mode is Mode.FULL
    assert crash(tmp_path, 1).mode is Mode.SPARE


def test_a_healthy_minute_is_a_cure_that_a_later_crash_does_not_undo(tmp_path: Path) -> None:
    one = crash(tmp_path, SPARE_AT)
    one.begin()
    one.healthy()
    one.failed("much later")
    assert guard(tmp_path).mode is Mode.FULL


def test_models_are_tried_again_after_a_while_without(tmp_path: Path) -> None:
    bare = crash(tmp_path, BARE_AT)
    assert bare.mode is Mode.BARE
    bare.begin()
    bare.try_again()
    assert guard(tmp_path).mode is Mode.SPARE


def test_a_changed_configuration_counts_anew(tmp_path: Path) -> None:
    crash(tmp_path, BARE_AT)
    other = msgspec.structs.replace(CONFIG, faces=FaceConfig(enabled=False))
    assert guard(tmp_path, other).mode is Mode.FULL


def test_a_damaged_count_and_a_sick_disk_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / STARTS_NAME).write_text("nonsense")
    assert crash(tmp_path, 1).mode is Mode.FULL
    gone = guard(tmp_path / "gone")
    gone.begin()
    gone.healthy()
    assert gone.mode is Mode.FULL


def test_failed_starts_are_counted_in_memory_while_the_disk_takes_nothing(
    disk: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "run"
    memory.mkdir()

    def start() -> CrashGuard:
        made = CrashGuard(disk, CONFIG, lambda name: "fall-wrist", memory)
        made.begin()
        return made

    assert start().mode is Mode.FULL  # one that the disk has counted
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    modes = [start().mode for _ in range(BARE_AT)]
    assert modes == [Mode.FULL] * (SPARE_AT - 1) + [Mode.SPARE] * SPARE_AT + [Mode.BARE]
    # With the disk back, what it is told holds.
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    well = start()
    assert well.mode is Mode.BARE and not (memory / STAND_IN_NAME).exists()
    well.stopped()
    CrashGuard(disk, CONFIG, memory=memory).healthy()
    assert start().mode is Mode.FULL


def test_the_factory_bundle_for_the_same_place(tmp_path: Path, factory_bundle: object) -> None:
    factory_bundle("fall-wrist")  # type: ignore[operator]
    assert factory_spare("fall-wrist") == "fall-wrist"
    assert factory_spare(str(tmp_path / "none")) == "fall-waist"


def test_a_bundle_of_the_wearers_own_keeps_its_place(
    tmp_path: Path, factory_bundle: object
) -> None:
    folder = factory_bundle("fall-wrist")  # type: ignore[operator]
    (tmp_path / "mine").symlink_to(folder)
    assert factory_spare(str(tmp_path / "mine")) == "fall-wrist"
