"""Cameras of a running daemon: closed while disarmed, asleep while nothing moves, lost and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import pytest
from daemons import Running, daemon

from edge_rt.cli.face import read_images
from edge_rt.core.types import ImageArray
from edge_rt.faces.clip import DEMO_SCENES, demo_clip

RATE_HZ = 15.0


@pytest.fixture(autouse=True)
def factory(factory_bundle: Callable[[str], Path]) -> None:
    for name in ("face-detect", "face-embed"):
        factory_bundle(name)


def write_film(path: Path, frames: Iterable[ImageArray]) -> None:
    """A real video file."""
    new = path.with_name("new-" + path.name)
    writer = cv2.VideoWriter(str(new), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, (640, 480))
    for frame in frames:
        writer.write(frame)
    writer.release()
    os.replace(new, path)


def scene(first: float, seconds: float) -> Iterable[ImageArray]:
    """So much of the demo's clip, from a second on."""
    clip = demo_clip()._clip
    return (clip.frame(round(first * RATE_HZ) + k) for k in range(round(seconds * RATE_HZ)))


def config(film: Path, **faces: Any) -> dict[str, Any]:
    camera = {"driver": "replay", "file": str(film), "repeat": True}
    return {
        "falls": {"enabled": False},
        "faces": {"enabled": True, "armed": False, "camera": camera, **faces},
    }


def faces(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = running.status()["faces"]
    return found


def holds(running: Running, film: Path) -> bool:
    """Whether the worker has the camera's file open, by the kernel's word."""
    folder = Path(f"/proc/{faces(running)['pid']}/fd")
    links = []
    for entry in folder.iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:  # closed meanwhile
            continue
    return str(film) in links


def test_while_disarmed_the_camera_is_closed_and_nothing_is_taken(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    write_film(film, scene(1.0, 2.0))
    with daemon(tmp_path, config(film)) as running:
        running.wait(lambda: faces(running)["worker"] == "running", "a worker")
        assert not holds(running, film)
        for _ in range(2):
            running.call("arm", what="faces")
            running.wait(lambda: faces(running)["camera"] == "on", "the camera")
            assert holds(running, film)
            running.call("disarm", what="faces")
            running.wait(lambda: faces(running)["camera"] == "off", "the camera to close")
            assert not holds(running, film)
        frames = faces(running)["frames"]
        beats = running.status()["uptime_s"] + 1.5  # three beats of the worker
        running.wait(lambda: running.status()["uptime_s"] > beats, "time to pass")
        assert faces(running)["frames"] == frames
        assert not faces(running)["asleep"]


def test_nothing_moving_it_sleeps_and_whoever_comes_is_let_in(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    empty = list(scene(0.0, 1.0))[0]
    coming = list(scene(DEMO_SCENES[0][1], DEMO_SCENES[1][1]))
    write_film(film, [*[empty] * 150, *coming])
    rules = {"hold_s": 60.0}
    wired = config(film, wake={"rate_hz": 4.0, "awake_s": 1.0}, rules=rules)
    with daemon(tmp_path, wired) as running:
        running.wait(lambda: faces(running)["worker"] == "running", "a worker")
        owner = Path(__file__).parents[2] / "edge_rt/demo_media/owner_1.jpg"
        running.call("face_enrol", name="owner", images=read_images([owner]))
        running.call("arm", what="faces")
        running.wait(lambda: faces(running)["asleep"], "sleep")
        first, at_s = faces(running), running.status()["uptime_s"]
        running.wait(lambda: running.status()["uptime_s"] > at_s + 1.5, "time to pass")
        then, took_s = faces(running), running.status()["uptime_s"] - at_s
        assert then["asleep"]
        assert then["frames"] - first["frames"] <= 4.0 * took_s + 3.0  # 15 a second when awake
        assert then["dropped"] == first["dropped"]  # passed over asleep is not dropped
        running.wait(lambda: "face.unlocked" in running.kinds(), "the owner to be let in")
        running.wait(lambda: not faces(running)["asleep"], "the status to say that it is awake")


def test_a_camera_that_vanishes_is_told_and_comes_back_by_itself(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    write_film(film, scene(0.0, 0.5))
    with daemon(tmp_path, config(film, armed=True)) as running:
        running.wait(lambda: faces(running)["camera"] == "on", "the camera")
        film.unlink()  # found out when the film begins anew
        running.wait(lambda: "device.sensor_lost" in running.kinds(), "the loss")
        running.wait(lambda: faces(running)["camera"] == "lost", "the status to say so")
        assert any(problem.startswith("camera: ") for problem in running.status()["problems"])
        write_film(film, scene(0.0, 0.5))
        running.wait(lambda: "device.sensor_back" in running.kinds(), "the return")
        running.wait(lambda: not running.status()["problems"], "an end of the problem")
        assert faces(running)["restarts"] == 0
