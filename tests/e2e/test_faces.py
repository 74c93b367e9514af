"""Faces through the running daemon: enrolment, unlocking, and a worker that is lost meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from daemons import Running, daemon

from edge_rt.cli.face import read_images
from edge_rt.core.errors import EdgeRtError
from edge_rt.core.types import ImageArray
from edge_rt.falls.simulate import DEMO_SCRIPT, simulate

MEDIA = Path(str(files("edge_rt") / "demo_media"))


@pytest.fixture(autouse=True)
def factory(factory_bundle: Callable[[str], Path]) -> None:
    for name in ("fall-waist", "face-detect", "face-embed"):
        factory_bundle(name)


def config(**faces: Any) -> dict[str, Any]:
    """No falls; the built-in clip three times as fast, and pauses that shrink with it."""
    rules = {"attempt_s": 4.0, "gone_s": 0.7, "hold_s": 1.5, "pause_s": 0.7}
    return {
        "falls": {"enabled": False},
        "faces": {
            "enabled": True,
            "armed": False,
            "camera": {"driver": "demo", "speed": 3.0},
            "rules": rules,
            **faces,
        },
    }


def working(running: Running) -> dict[str, Any]:
    """Wait for a worker; the faces' status."""

    def ready() -> Any:
        faces = running.status()["faces"]
        return faces["worker"] == "running" and faces

    found: dict[str, Any] = running.wait(ready, "a face worker")
    return found


def worker_and_daemon(running: Running) -> tuple[int, int]:
    return working(running)["pid"], running.process.pid


def enrol(running: Running, name: str = "owner", *pictures: Path) -> dict[str, Any]:
    working(running)
    chosen = pictures or (MEDIA / "owner_1.jpg",)
    return running.call("face_enrol", name=name, images=read_images(chosen))


@pytest.mark.native("pictures come at their own pace")
def test_the_owner_is_let_in_on_other_photographs_and_a_stranger_is_not(tmp_path: Path) -> None:
    with daemon(tmp_path, config()) as running:
        person = enrol(running)["enrolled"]
        running.call("arm", what="faces")
        nice = [os.getpriority(os.PRIO_PROCESS, pid) for pid in worker_and_daemon(running)]
        assert nice[0] > nice[1], "a slow core is given to falls first"

        def all_seen() -> bool:
            outcomes = {
                (e["data"].get("outcome"), e["data"].get("person"))
                for e in running.events()
                if e["type"] in ("edge_rt.face.unlocked", "edge_rt.face.denied")
            }
            return {("unlocked", person), ("denied", None)} <= outcomes

        running.wait(all_seen, "an unlock and a denial")
        faces = [e for e in running.events() if e["type"].startswith("edge_rt.face.")]
        for event in faces:
            assert set(event["data"]) <= {"outcome", "person", "reason", "liveness"}
            assert "owner" not in str(event)  # names stay on the device
        unlocked = [e for e in faces if e["type"].endswith("unlocked")]
        assert {e["data"]["person"] for e in unlocked} == {person}
        assert all(e["data"]["liveness"] == "not_checked" for e in unlocked)
        assert "lock: would open now" in running.log

        running.call("disarm", what="faces")
        running.wait(lambda: running.status()["faces"]["camera"] == "off", "the camera to close")


def test_persons_outlive_the_daemon_and_can_be_removed(tmp_path: Path) -> None:
    with daemon(tmp_path, config()) as running:
        enrol(running)
        with pytest.raises(EdgeRtError, match="enrolled already"):
            enrol(running)
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    with daemon(tmp_path, config()) as running:
        assert working(running)["persons"] == 1
        answer = running.call("face_verify", images=read_images((MEDIA / "owner_2.jpg",)))
        assert answer["match"] and answer["name"] == "owner"
        answer = running.call("face_verify", images=read_images((MEDIA / "stranger_1.jpg",)))
        assert not answer["match"] and answer["name"] is None
        running.call("face_remove", name="owner")
        assert running.call("face_list") == {"persons": []}
        with pytest.raises(EdgeRtError, match="not enrolled"):
            running.call("face_remove", name="owner")


@pytest.mark.native("pictures come at their own pace")
def test_nobody_enrolled_locks_nobody_out(tmp_path: Path) -> None:
    with daemon(tmp_path, config(armed=True)) as running:
        running.wait(
            lambda: running.status()["faces"]["seen_reason"] == "nobody_enrolled", "a face"
        )
        running.wait(lambda: running.status()["faces"]["frames"] > 100, "a hundred frames")
        assert not [kind for kind in running.kinds() if kind.startswith("face.")]


def test_two_persons_are_not_enrolled_as_one(tmp_path: Path) -> None:
    with daemon(tmp_path, config()) as running:
        with pytest.raises(EdgeRtError, match="pictures 1 and 2 do not look like one person"):
            enrol(running, "two", MEDIA / "owner_1.jpg", MEDIA / "stranger_1.jpg")
        assert enrol(running, "one", MEDIA / "owner_1.jpg", MEDIA / "owner_3.jpg")["templates"] == 2


def picture(name: str) -> ImageArray:
    image: ImageArray = cv2.imread(str(MEDIA / name))  # type: ignore[assignment]
    return image


def two_faces() -> ImageArray:
    left, right = picture("owner_2.jpg"), picture("stranger_1.jpg")
    right = cv2.resize(right, (right.shape[1] * left.shape[0] // right.shape[0], left.shape[0]))
    return np.ascontiguousarray(np.concatenate([left, right], axis=1))


def tiny_face() -> ImageArray:
    canvas = np.full((480, 640, 3), 120, np.uint8)
    small = cv2.resize(picture("owner_1.jpg"), (60, 75), interpolation=cv2.INTER_AREA)
    canvas[200:275, 300:360] = small
    return canvas


def blurred_face() -> ImageArray:
    return np.asarray(cv2.GaussianBlur(picture("owner_1.jpg"), (0, 0), 12.0), np.uint8)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: np.full((480, 640, 3), 128, np.uint8), "no face found"),
        (two_faces, "more than one face"),
        (tiny_face, "no face found|too small"),
        (blurred_face, "blurred|no face found"),
    ],
)
def test_a_bad_photograph_is_refused_and_enrols_nobody(
    tmp_path: Path, make: Callable[[], ImageArray], part: str
) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), make())
    with daemon(tmp_path, config()) as running:
        working(running)
        with pytest.raises(EdgeRtError, match=part) as caught:
            enrol(running, "somebody", MEDIA / "owner_1.jpg", path)
        assert str(caught.value).startswith("picture 2: ")
        assert running.call("face_list") == {"persons": []}
        path.write_bytes(b"no picture at all")
        with pytest.raises(EdgeRtError, match="picture 1: not a picture"):
            enrol(running, "somebody", path)


def test_falls_lose_no_sample_while_the_face_worker_hangs_and_dies(tmp_path: Path) -> None:
    speed = 6.0
    both = config(armed=True, hang_s=1.0) | {
        "falls": {
            "source": {
                "driver": "simulated", "scene": "demo", "seed": 7, "repeat": False, "speed": speed,
            },
            "alarm": {"cancel_window_s": 10.0, "escalated_window_s": 5.0},
        }
    }  # fmt: skip
    with daemon(tmp_path, both) as running:
        for number in (signal.SIGSTOP, signal.SIGSEGV, signal.SIGKILL):
            faces = working(running)
            os.kill(faces["pid"], number)
            running.wait(
                lambda before=faces["restarts"]: running.status()["faces"]["restarts"] > before,
                f"the end of the worker after {number!r}",
            )
        running.wait(lambda: running.status()["falls"]["sensor"] == "ended", "the scene's end")
        falls = running.status()["falls"]
        expected = simulate(DEMO_SCRIPT, 7)
        assert falls["blocks_dropped"] == 0
        # Health counts what it has seen in half-second steps; hops tell of every sample.
        length_s = len(expected.block.t_s) / expected.rate_hz
        assert abs(falls["t_s"] - length_s) < 0.2
        assert falls["hops"] == pytest.approx(length_s / 0.16, abs=3)
        running.wait(lambda: "fall.alarm" in running.kinds(), "the alarm")


def test_a_key_that_others_can_read_stops_faces_and_nothing_else(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o644)
    both = config(template_key=str(key)) | {"falls": {"enabled": True}}
    with daemon(tmp_path, both) as running:
        running.wait(
            lambda: any("chmod 600" in problem for problem in running.status()["problems"]),
            "the problem to be told",
        )
        running.wait(lambda: running.status()["falls"]["sensor"] == "ok", "falls to watch")
        key.chmod(0o600)
        working(running)  # it tries again by itself


def test_a_store_of_another_key_is_kept_and_told(tmp_path: Path) -> None:
    with daemon(tmp_path, config()) as running:
        enrol(running)
        assert running.stop() == 0
    store = tmp_path / "state" / "templates.bin"
    before = store.read_bytes()
    (tmp_path / "state" / "templates.key").write_bytes(os.urandom(32))
    with daemon(tmp_path, config()) as running:
        running.wait(
            lambda: any("another key" in problem for problem in running.status()["problems"]),
            "the problem to be told",
        )
        assert store.read_bytes() == before


def test_a_camera_that_is_absent_is_an_event_and_comes_back(tmp_path: Path) -> None:
    missing = {"driver": "opencv", "device": str(tmp_path / "video9")}
    with daemon(tmp_path, config(armed=True, camera=missing)) as running:
        running.wait(lambda: "device.sensor_lost" in running.kinds(), "the loss")
        (lost,) = [e for e in running.events() if e["type"] == "edge_rt.device.sensor_lost"]
        assert "no such camera" in lost["data"]["detail"]
        status = running.status()
        assert status["faces"]["camera"] == "lost"
        assert any("no such camera" in problem for problem in status["problems"])
        assert running.status()["faces"]["restarts"] == 0
