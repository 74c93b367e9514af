"""Supervision of the face worker, with real processes that hang, crash, leak and lie."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_rt.core.errors import ConfigError, DaemonError, InputError, StorageError
from edge_rt.core.unlock import Counters, UnlockMachine, UnlockRules
from edge_rt.runtime.actuators import LogLock
from edge_rt.runtime.face_judge import LATE_S, RETRY_S, Arming, FaceJudge
from edge_rt.runtime.face_messages import Seen
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.link import Child

PATIENCE_S = 60.0


class Watched:
    """A service and everything that came of it."""

    def __init__(
        self, how: str, *, armed: bool = True, kept: Path | None = None, **limits: Any
    ) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.saved: list[Counters] = []
        self.disk_works = True
        self.stalls_s: list[float] = []  # of the next saves
        self.pulses = 0
        machine = UnlockMachine(
            UnlockRules(hold_s=600.0), Counters(), self.save, boot_id="b", now_s=0.0
        )
        self.service = FaceService(
            [how],
            machine,
            self.announce,
            self,
            time.monotonic,
            **{
                "hang_s": 1.0,
                "memory_mb": 400.0,
                "arming": Arming(kept, armed),
                "module": "rogues.face_worker",
                **limits,
            },
        )

    name = "log"

    def pulse(self) -> None:
        self.pulses += 1

    def save(self, counters: Counters) -> None:
        if not self.disk_works:
            raise StorageError("the disk is full; free some of it")
        time.sleep(self.stalls_s.pop(0) if self.stalls_s else 0.0)
        self.saved.append(counters)

    def announce(self, kind: str, what: str, data: Mapping[str, Any]) -> None:
        self.told.append((kind, what, dict(data)))

    def wait(self, condition: Callable[[], Any]) -> Any:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if found := condition():
                return found
            time.sleep(0.02)
        raise AssertionError(f"waited in vain: {self.service.status()}")


@pytest.fixture
def rogues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets children import what is in tests/rogues."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def watch(rogues: None) -> Iterator[Callable[..., Watched]]:
    """Starts a service around a rogue; ends all of them afterwards."""
    begun: list[Watched] = []

    def start(how: str, **limits: Any) -> Watched:
        watched = Watched(how, **limits)
        begun.append(watched)
        watched.service.start()
        return watched

    yield start
    for watched in begun:
        pid = watched.service.status()["pid"]
        watched.service.close()
        if pid:
            assert not Path(f"/proc/{pid}").exists(), "the worker outlived its service"


def test_what_a_worker_frees_goes_back_to_the_system(rogues: None) -> None:
    child = Child("rogues.heap")
    with child.connection:
        mapped_bytes = int(child.connection.recv(64))
    assert child.wait(PATIENCE_S) == 0
    assert mapped_bytes >= 8 << 20


@pytest.mark.parametrize(
    ("how", "limits", "problem"),
    [
        ("hang", {}, "the worker hung: nothing heard for 1 s"),
        ("abort", {}, "the worker ended (signal 6)"),
        ("segfault", {}, "the worker ended (signal 11)"),
        ("exit", {}, "the worker ended (exit code 0)"),
        ("leak", {"memory_mb": 200.0}, "MB, over 200"),
        ("nonsense", {}, "the worker ended"),
        ("broken", {}, "mode 0644 lets others in; chmod 600 key"),
    ],
)
def test_a_worker_that_fails_is_replaced_and_the_reason_said(
    watch: Callable[..., Watched], how: str, limits: dict[str, Any], problem: str
) -> None:
    watched = watch(how, **limits)
    first = watched.wait(lambda: watched.service.status()["pid"])
    watched.wait(lambda: watched.service.status()["restarts"] >= 1)
    assert problem in watched.service.status()["problem"]
    watched.wait(lambda: watched.service.status()["pid"] not in (None, first))
    assert not Path(f"/proc/{first}").exists()


def test_a_match_unlocks_once_and_is_counted_on_disk_first(
    watch: Callable[..., Watched],
) -> None:
    watched = watch("owner")
    watched.wait(lambda: watched.pulses)
    assert watched.told == [
        (
            "face",
            "unlocked",
            {
                "outcome": "unlocked",
                "person": "p-0123456789abcdef",
                "liveness": "not_checked",
            },
        )
    ]
    assert [counters.attempting for counters in watched.saved] == [True, False]
    assert watched.service.status()["restarts"] == 0


def test_a_stranger_is_denied_and_nothing_opens(watch: Callable[..., Watched]) -> None:
    watched = watch("stranger")
    watched.wait(lambda: watched.told)
    assert watched.told[0][1:] == (
        "denied",
        {"outcome": "denied", "reason": "stranger", "liveness": "not_checked"},
    )
    assert watched.pulses == 0


def test_no_disk_no_unlocking(watch: Callable[..., Watched]) -> None:
    watched = watch("owner", armed=False)
    watched.disk_works = False
    watched.wait(lambda: watched.service.status()["worker"] == "running")
    watched.service.arm(True)
    watched.wait(lambda: "the disk is full" in watched.service.status()["problem"])
    assert watched.told == [] and watched.pulses == 0
    watched.disk_works = True
    watched.wait(lambda: watched.pulses)


def test_disarmed_nothing_is_decided(watch: Callable[..., Watched]) -> None:
    watched = watch("stranger", armed=False)
    watched.wait(lambda: watched.service.status()["worker"] == "running")
    watched.service.arm(True)
    watched.wait(lambda: watched.told)
    watched.service.arm(False)
    watched.wait(lambda: not watched.service.status()["armed"])
    count = len(watched.told)
    frames = watched.service.status()["frames"]
    watched.wait(lambda: watched.service.status()["frames"] > frames + 10)
    assert len(watched.told) == count


def test_whether_faces_are_armed_outlives_a_restart_until_the_configuration_changes(
    watch: Callable[..., Watched], tmp_path: Path
) -> None:
    kept = tmp_path / "faces.json"
    first = watch("owner", kept=kept)
    first.wait(lambda: first.pulses)
    first.service.arm(False)
    first.wait(kept.exists)
    first.service.close()
    second = watch("owner", kept=kept)
    assert not second.service.status()["armed"]
    second.wait(lambda: second.service.status()["worker"] == "running")
    assert second.pulses == 0 and second.told == []
    assert Arming(kept, False).load() is False and Arming(kept, True).load() is False
    second.service.arm(True)
    second.wait(lambda: second.pulses and Arming(kept, True).load())
    assert Arming(kept, False).load() is False  # configured anew


def test_who_cannot_be_asked_is_not_looked_at(
    watch: Callable[..., Watched], tmp_path: Path
) -> None:
    kept = tmp_path / "faces.json"
    kept.write_bytes(b"torn")
    watched = watch("owner", kept=kept)
    assert not watched.service.status()["armed"]
    assert "edge-rt arm faces" in watched.service.status()["problem"]
    watched.service.arm(True)
    watched.wait(lambda: watched.pulses)
    assert watched.service.status()["problem"] == ""


def test_what_could_not_be_kept_is_kept_later(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    arming = Arming(folder / "faces.json", True)
    arming.keep(False, 100.0)
    assert "faces.json" in arming.problem
    folder.mkdir()
    arming.turn(100.0 + RETRY_S / 2)
    assert arming.problem != ""
    arming.turn(100.0 + RETRY_S)
    assert arming.problem == "" and Arming(folder / "faces.json", True).load() is False


def test_an_attempt_does_not_outlive_disarming() -> None:
    watched = Watched("unused")
    judge = FaceJudge(
        UnlockMachine(UnlockRules(), Counters(), watched.save, boot_id="b", now_s=0.0),
        watched.announce,
        watched,
        lambda: 1.0,
    )
    owner = Seen(1.0, "match", person="p-0123456789abcdef")
    matches = UnlockRules().matches
    for _ in range(matches - 1):
        assert judge.judge(owner) is None
    judge.disarmed()
    assert watched.saved[-1] == Counters(boot_id="b", monotonic_s=1.0)
    for _ in range(matches - 1):
        assert judge.judge(owner) is None
    assert watched.pulses == 0
    watched.disk_works = False
    judge.disarmed()
    assert "the disk is full" in judge.problem
    watched.disk_works = True
    for _ in range(matches - 1):
        assert judge.judge(owner) is None
    assert judge.judge(owner) == owner.person and watched.pulses == 1


def test_who_was_seen_long_ago_is_not_let_in() -> None:
    watched = Watched("unused")
    clock, stall_s = [100.0], [0.0]

    def save(counters: Counters) -> None:
        watched.save(counters)
        clock[0] += 0.0 if counters.attempting else stall_s[0]

    judge = FaceJudge(
        UnlockMachine(UnlockRules(hold_s=0.5), Counters(), save, boot_id="b", now_s=0.0),
        watched.announce,
        watched,
        lambda: clock[0],
    )
    owner = Seen(100.0, "match", person="p-0123456789abcdef")
    clock[0] += LATE_S + 0.1
    for _ in range(20):
        assert judge.judge(owner) is None
    assert watched.saved == [] and watched.told == []
    fresh = [Seen(clock[0], "match", person=owner.person)] * UnlockRules().matches
    assert [judge.judge(seen) for seen in fresh][-1] == owner.person and watched.pulses == 1
    stall_s[0] = LATE_S + 0.1
    clock[0] += 1.0
    fresh = [Seen(clock[0], "match", person=owner.person)] * UnlockRules().matches
    assert [judge.judge(seen) for seen in fresh][-1] is None
    assert watched.pulses == 1 and watched.told[-1][2]["reason"] == "late"


def test_a_disk_that_stalls_costs_no_worker(watch: Callable[..., Watched]) -> None:
    watched = watch("owner", armed=False)
    watched.wait(lambda: watched.service.status()["worker"] == "running")
    watched.stalls_s = [2.5]  # hang_s is 1
    watched.service.arm(True)
    watched.wait(lambda: watched.pulses)
    assert watched.service.status()["restarts"] == 0


def test_commands_and_their_errors_cross_the_border(
    watch: Callable[..., Watched],
) -> None:
    watched = watch("owner", armed=False)
    watched.wait(lambda: watched.service.status()["worker"] == "running")
    assert watched.service.ask("list", {}, PATIENCE_S) == {"persons": []}
    with pytest.raises(InputError, match="picture 1: no face found"):
        watched.service.ask("enrol", {"name": "x", "images": []}, PATIENCE_S)
    watched.service.ask("remove", {"name": "x"}, PATIENCE_S)
    person = {"outcome": "removed", "person": "p-0123456789abcdef"}
    assert watched.told == [("face", "removed", person)]


def test_a_command_to_no_worker_is_refused_at_once(
    watch: Callable[..., Watched],
) -> None:
    watched = watch("mute")
    watched.wait(lambda: watched.service.status()["pid"])
    with pytest.raises(DaemonError, match="not ready"):
        watched.service.ask("list", {}, PATIENCE_S)


def test_camera_loss_and_return_are_events(watch: Callable[..., Watched]) -> None:
    watched = watch("camera")
    watched.wait(lambda: len(watched.told) == 2)
    assert [what for _, what, _ in watched.told] == ["sensor_lost", "sensor_back"]
    assert watched.told[0][2] == {"sensor": "camera", "detail": "no such device"}


def test_a_camera_that_is_slow_to_open_costs_no_worker(watch: Callable[..., Watched]) -> None:
    watched = watch("slow camera")  # 2.5 s; hang_s is 1
    watched.wait(lambda: watched.told)
    assert watched.told[0][2]["detail"] == "at last"
    assert watched.service.status()["restarts"] == 0


def test_a_camera_that_another_worker_finds_is_back(watch: Callable[..., Watched]) -> None:
    watched = watch("blind")
    watched.wait(lambda: [what for _, what, _ in watched.told] == ["sensor_lost"])
    watched.service.replace(["owner"])
    watched.wait(lambda: watched.pulses)
    assert [what for _, what, _ in watched.told] == ["sensor_lost", "sensor_back", "unlocked"]


def test_a_real_lock_needs_liveness() -> None:
    class Strike(LogLock):
        name = "gpio"

    machine = UnlockMachine(UnlockRules(), Counters(), print, boot_id="b", now_s=0.0)
    with pytest.raises(ConfigError, match="liveness"):
        FaceService(
            [],
            machine,
            lambda *_: None,
            Strike(),
            time.monotonic,
            hang_s=1.0,
            memory_mb=100.0,
            arming=Arming(None, True),
        )
