"""Embedders from afar, beside the live one: a real worker, the built-in clip, real bundles.

The candidates are the factory embedder with a few weights changed. Only the self-test is left out:
tests/test_trying.py has it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from candidates import Edit, coarser, constant, turned, write_candidate
from update_driver import recorder_for

from edge_rt.adapters.templates import STORE_NAMES, bound_of
from edge_rt.core.config import Config, DemoCamera, FaceConfig
from edge_rt.core.errors import InputError
from edge_rt.core.unlock import UnlockRules
from edge_rt.core.update_config import UpdatesConfig
from edge_rt.core.update_record import Candidate, State
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.runtime.actuators import LogLock
from edge_rt.runtime.compose import Place
from edge_rt.runtime.compose_faces import make_faces
from edge_rt.runtime.face_exam import OTHERS, OWNER
from edge_rt.runtime.places import MIGRATION_NAME
from edge_rt.runtime.update_task import Rules, TaskUpdate

pytestmark = pytest.mark.native("pictures come at their own pace")

PATIENCE_S = 40.0
MEDIA = Path(__file__).parents[1] / "edge_rt" / "demo_media"
ELSEWHERE = "another-space"


class Tries:
    """The child processes find nothing to say."""

    def self_test(self, folder: Path) -> Mapping[str, Any]:
        return {}

    def challenge(self, folder: Path) -> Mapping[str, Any]:
        return {}


class Door:
    """A device with a face worker and the machine of its embedder's updates."""

    def __init__(self, state: Path, **updates: Any) -> None:
        state.mkdir(exist_ok=True)
        self.state = state
        quick = {"face_pictures": 5, "face_templates": 2, "face_apart_h": 0.0, "trial_h": 0.0005}
        rules = UnlockRules(attempt_s=4.0, gone_s=0.5, hold_s=0.5, pause_s=0.5, failures=10)
        self.config = Config(
            mqtt=MqttConfig(enabled=True, insecure=True),  # never called
            faces=FaceConfig(enabled=True, camera=DemoCamera(speed=4.0), rules=rules),
            updates=UpdatesConfig(**{"enabled": True, "faces": "shadow", **quick, **updates}),
        )
        self.recorder = recorder_for(state)
        lock = LogLock()
        place = Place(self.config, state, "b" * 32, self.recorder, None, lock)  # type: ignore[arg-type]
        faces = make_faces(place)
        self.service = faces.service
        ((self.model, self.journal),) = ((m, j) for m, j in faces.models if m.name == "face-embed")
        self.task = TaskUpdate(
            self.journal,
            self.model,
            Tries(),
            self.staged,
            self.recorder.announce,
            Rules(settle_s=1.0, retry_s=0.5),
            time.monotonic,
        )
        self.service.start()
        self.wait(lambda: self.service.status()["worker"] == "running", "a worker")

    def staged(self, sha256: str) -> Path:
        return self.state / "updates" / "staging" / sha256

    def bring(self, source: Path, edit: Edit, version: str = "9.0.0", **changes: Any) -> None:
        """What the fetcher does: a candidate lies in its staging folder."""
        sha256 = version.replace(".", "").ljust(64, "e")
        folder = self.staged(sha256)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_candidate(folder, source, edit, version=version, **changes)
        self.task.offer(Candidate("face-embed", version, sha256))
        self.task.arrived(sha256)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            self.task.turn()
            if found := condition():
                return found
            time.sleep(0.02)
        raise AssertionError(f"{what}: {self.task.status()}, {self.service.status()}")

    def state_is(self, state: State) -> None:
        self.wait(lambda: self.task.record.state is state, state)

    def enrol(self, name: str = "owner", *pictures: str) -> str:
        images = [
            base64.b64encode((MEDIA / picture).read_bytes()).decode()
            for picture in pictures or OWNER[:1]
        ]
        answer = self.service.ask("enrol", {"name": name, "images": images}, PATIENCE_S)
        return str(answer["enrolled"])

    def ask(self, command: str, name: str) -> dict[str, Any]:
        return self.service.ask(command, {"name": name}, PATIENCE_S)

    def knows(self, picture: str) -> str | None:
        image = base64.b64encode((MEDIA / picture).read_bytes()).decode()
        name: str | None = self.service.ask("verify", {"images": [image]}, PATIENCE_S)["name"]
        return name

    def running(self) -> Any:
        return self.service.status()["models"].get("face-embed")

    def spaces(self) -> dict[str, str]:
        """Of each store that is there."""
        found = {name: bound_of(self.state / name) for name in STORE_NAMES}
        return {name: bound.embedding_space for name, bound in found.items() if bound}

    def close(self) -> None:
        self.task.close()
        self.service.close()
        self.recorder.close(5.0)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Callable[..., Door]]:
    made: list[Door] = []

    def make(**updates: Any) -> Door:
        made.append(Door(tmp_path / "state", **updates))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def embed(factory_bundle: Callable[[str], Path]) -> Path:
    factory_bundle("face-detect")
    return factory_bundle("face-embed")


def test_one_of_the_same_space_is_compared_then_takes_over(
    door: Callable[..., Door], embed: Path
) -> None:
    at = door()
    at.enrol()
    at.bring(embed, coarser(2))
    at.state_is(State.SHADOWING)
    at.wait(lambda: at.task.status()["watching"], "the first pictures")
    assert at.running() == "1.0.0"
    at.wait(lambda: at.task.record.state is State.IDLE, "the end")
    assert at.running() == "9.0.0", at.task.record
    assert at.knows(OWNER[1]) == "owner" and at.knows(OTHERS[0]) is None
    assert list(at.spaces()) == ["templates.bin"]


def test_into_another_space_everybody_is_taken_along_and_back_again(
    door: Callable[..., Door], embed: Path
) -> None:
    at = door(trial_h=1.0)
    owner = at.enrol()
    at.bring(embed, turned, embedding_space=ELSEWHERE)
    at.state_is(State.SHADOWING)
    at.wait(lambda: at.task.status()["watching"], "what it says of itself")
    assert at.task.status()["watching"]["waiting"] == (owner,)
    # Who comes now is enrolled by both; who goes is waited for no longer.
    guest = at.enrol("guest", OTHERS[1])
    old = at.spaces()
    at.wait(lambda: at.task.record.state is State.TRIAL and at.running() == "9.0.0", "the swap")
    assert at.spaces() == {**old, "templates-b.bin": ELSEWHERE}
    assert at.knows(OWNER[1]) == "owner" and at.knows(OTHERS[1]) == "guest"
    assert at.knows(OTHERS[0]) is None
    at.ask("remove", guest)
    at.task.roll_back("a test")
    at.wait(lambda: at.running() == "1.0.0", "the former worker")
    assert at.knows(OWNER[1]) == "owner" and at.knows(OTHERS[1]) is None
    at.wait(lambda: at.spaces() == old, "the new templates to go")
    assert not (at.state / MIGRATION_NAME).exists()


def test_it_waits_for_each_and_outlives_the_worker(door: Callable[..., Door], embed: Path) -> None:
    at = door()
    at.enrol()
    away = at.enrol("who is away", OTHERS[1])
    with pytest.raises(InputError, match="nobody is waited for"):
        at.ask("anew", away)
    at.bring(embed, turned, embedding_space=ELSEWHERE)
    at.wait(lambda: at.task.record.state is State.SHADOWING and progress(at) == 1, "the owner")
    kept = (at.state / MIGRATION_NAME).read_bytes()
    assert kept.startswith(b"edge-rt\x01") and away.encode() not in kept
    before = at.service.compared()
    at.service.restart()
    at.wait(lambda: at.service.compared() is not before, "the next worker's word")
    assert at.task.record.state is State.SHADOWING and progress(at) == 1
    assert at.running() == "1.0.0" and at.knows(OTHERS[1]) == "who is away"
    at.ask("anew", away)
    at.wait(lambda: at.task.record.state is State.IDLE, "the end")
    assert at.running() == "9.0.0"
    assert at.knows(OWNER[1]) == "owner" and at.knows(OTHERS[1]) is None


def progress(door: Door) -> Any:
    return (door.task.status()["watching"] or {}).get("migrated")


@pytest.mark.parametrize("space", [None, ELSEWHERE])
def test_one_to_whom_everybody_is_the_same_is_stopped(
    door: Callable[..., Door], embed: Path, space: str | None
) -> None:
    at = door()
    at.enrol()
    at.bring(embed, constant, **({"embedding_space": space} if space else {}))
    at.wait(lambda: at.task.record.refused, "the refusal")
    assert at.running() == "1.0.0" and at.knows(OWNER[1]) == "owner"
    assert at.service.status()["restarts"] == 0


@pytest.mark.release
def test_one_that_says_it_is_of_this_space_and_is_not_is_stopped(
    door: Callable[..., Door], embed: Path
) -> None:
    at = door()
    at.enrol()
    at.bring(embed, turned)
    at.wait(lambda: at.task.record.refused, "the refusal")
    assert at.running() == "1.0.0" and at.knows(OWNER[1]) == "owner"
