"""`edge-rt demo`: the real daemon on simulated or recorded input, watched from outside."""

from __future__ import annotations

import contextlib
import importlib.resources
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edge_rt.cli import demo_mqtt, options, output
from edge_rt.cli.child import child, last_words
from edge_rt.cli.demo_mqtt import OtherSide, other_side
from edge_rt.cli.demo_view import View, make_view
from edge_rt.cli.face import read_images
from edge_rt.core.errors import (
    DaemonError,
    EdgeRtError,
    InputError,
    ManifestError,
    StorageError,
)
from edge_rt.core.toml import write_toml
from edge_rt.runtime.client import Client
from edge_rt.runtime.protocol import socket_path

START_S = 30.0  # a slow board loading models for the first time
PERIOD_S = 0.1
FAST = 5.0
LOOK_S = 3.0  # how long an alarm stands before the demo resolves it
GIVE_UP_S = 240.0  # of the scene's own time; the built-in scene takes about 75 s


@click.command()
@click.option("--fast", is_flag=True, help="Play five times as fast.")
@click.option("--trials", type=options.FILE, help="Replay a recorded trials/1 file instead.")
@click.option("--trial", default="", help="Which trial of the file; the first by default.")
@click.option("--video", type=options.FILE, help="Show the camera pipeline this video instead.")
@click.option("--camera", help="Use a real camera instead, e.g. /dev/video0.")
@click.option("--owner", type=options.FILE, help="Photograph to enrol instead of the built-in.")
@click.option("--mqtt", is_flag=True, help="Show the events arriving by MQTT, and somebody told.")
@click.option("--seconds", type=click.FloatRange(1.0), help="Stop after so long.")
@click.option("--wrist", is_flag=True, help="The accelerometer is worn on the wrist.")
@options.engine
@options.as_json
def demo(**choices: Any) -> None:
    """Detect a fall and unlock for a face; no hardware, no network.

    Starts the daemon in a folder of its own, with a simulated wearer and a clip of photographs that
    move like a camera's picture, and shows what it sees. With --mqtt a private broker and the
    fleet's receiver run beside it, on loopback. Afterwards everything is ended, the folder removed.
    """
    as_json, with_mqtt = choices.pop("as_json"), choices.pop("mqtt")
    # What was started is ended on a polite request too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with (
        tempfile.TemporaryDirectory(prefix="edge-rt-demo-") as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        story = Story(folder, **choices)
        if with_mqtt:
            story.other = stack.enter_context(other_side(folder / "other"))
        stack.enter_context(running_daemon(folder, story.config()))
        plain = as_json or not sys.stdout.isatty()
        summary = story.play(stack.enter_context(make_view(plain, as_json)))
    if as_json:
        output.print_json(summary)
    if summary["missed"]:
        raise DaemonError("the demo did not show " + ", ".join(summary["missed"]))


class Story:
    """What the demo plays, and what should come of it."""

    def __init__(
        self,
        folder: Path,
        *,
        fast: bool = False,
        trials: Path | None = None,
        trial: str = "",
        video: Path | None = None,
        camera: str | None = None,
        owner: Path | None = None,
        seconds: float | None = None,
        wrist: bool = False,
        engine: str = "auto",
    ) -> None:
        if video and camera:
            raise InputError("--video and --camera exclude each other; name one of them")
        if trial and not trials:
            raise InputError(f"--trial {trial} needs --trials FILE: the file that holds it")
        if owner is not None and not owner.is_file():
            raise InputError(f"{owner}: no such file; name a photograph")
        self._folder = folder
        self._speed = FAST if fast else 1.0
        self._trials, self._trial = trials, trial
        self._video, self._camera, self._owner = video, camera, owner
        if video is not None:
            _check_video(video)
        if camera is not None and not Path(camera).exists():
            raise InputError(f"{camera}: no such camera; plug it in, or see ls /dev/video*")
        self._seconds = seconds
        self._wrist = wrist
        self._engine = engine
        self.other: OtherSide | None = None  # where the events go by MQTT
        built_in_falls, built_in_faces = trials is None, video is None and camera is None
        self._expected = {
            "a fall alarm": built_in_falls,
            "an unlock for the owner": built_in_faces and owner is None,
            "a stranger denied": built_in_faces and owner is None,
        }

    def config(self) -> dict[str, Any]:
        """The daemon's configuration, as plain values."""
        if self._trials:
            accelerometer: dict[str, Any] = {
                "driver": "replay", "file": str(self._trials.absolute()), "trial": self._trial,
            }  # fmt: skip
        else:
            accelerometer = {"driver": "simulated", "scene": "demo", "seed": 7, "repeat": False}
        accelerometer["speed"] = self._speed
        if self._camera:
            camera: dict[str, Any] = {"driver": "opencv", "device": self._camera}
        elif self._video:
            camera = {"driver": "replay", "file": str(self._video.absolute()), "repeat": True}
        else:
            camera = {"driver": "demo", "speed": self._speed}
        mqtt = {} if self.other is None else {"mqtt": self.other.config()}
        return {
            **mqtt,
            "device": {"fleet": demo_mqtt.FLEET, "name": demo_mqtt.DEVICE},
            "runtime": {
                "engine": self._engine,
                "state_dir": str(self._folder / "state"),
                "run_dir": str(self._folder),
            },
            "falls": {
                "bundle": "fall-wrist" if self._wrist else "fall-waist",
                "source": accelerometer,
                "alarm": {"cancel_window_s": 12.0, "escalated_window_s": 8.0},
            },
            "faces": {
                "enabled": True,
                "armed": False,
                "camera": camera,
                # The clip leaves time for a hold and a pause; played faster, they shrink with it.
                "rules": {
                    "attempt_s": 10.0 / self._speed,
                    "gone_s": 2.0 / self._speed,
                    "hold_s": 5.0 / self._speed,
                    "pause_s": 2.0 / self._speed,
                },
            },
        }

    def play(self, view: View) -> dict[str, Any]:
        """Enrol, watch, resolve, sum up."""
        with Client(self._folder) as control:
            self._enrol(control)
            control.call("arm", what="faces")
            begun = time.monotonic()
            limit_s = self._seconds or GIVE_UP_S / self._speed
            events: list[dict[str, Any]] = []
            alarm_at: float | None = None
            while True:
                status = control.call("status")
                last = int(events[-1]["sequence"]) if events else 0
                events += control.stream("events", after=last, limit=1000)
                if self.other is not None:
                    status["other_side"] = self.other.look(status["mqtt"])
                view.show(status, events)
                passed = time.monotonic() - begun
                if alarm_at is None and any(_is(e, "fall", "alarm") for e in events):
                    alarm_at = passed
                if alarm_at is not None and passed - alarm_at > LOOK_S / self._speed:
                    with contextlib.suppress(DaemonError):  # resolved already
                        control.call("resolve")
                if passed > limit_s or (not self._seconds and self._over(status, events)):
                    break
                time.sleep(PERIOD_S)
        summary = self._sum_up(status, events, passed)
        view.end(summary)
        return summary

    def _enrol(self, control: Client) -> None:
        photograph = self._owner or Path(_media("owner_1.jpg"))
        deadline = time.monotonic() + START_S
        while control.call("status")["faces"]["worker"] != "running":
            if time.monotonic() > deadline:
                problem = control.call("status")["faces"]["problem"]
                raise DaemonError(f"the face worker did not start: {problem or 'see its log'}")
            time.sleep(PERIOD_S)
        control.call("face_enrol", name="owner", images=read_images((photograph,)))

    def _over(self, status: dict[str, Any], events: list[dict[str, Any]]) -> bool:
        """All that was expected has happened, and recordings are played out."""
        if self._missed(status, events):
            return False
        falls = status["falls"]
        if self._trials:
            return bool(falls["sensor"] == "ended" and falls["state"] in ("monitoring", "alarm"))
        return any(_is(e, "fall", "resolved") for e in events)

    def _missed(self, status: dict[str, Any], events: list[dict[str, Any]]) -> list[str]:
        seen = {
            "a fall alarm": any(_is(e, "fall", "alarm") for e in events),
            "an unlock for the owner": any(_is(e, "face", "unlocked") for e in events),
            "a stranger denied": any(
                _is(e, "face", "denied") and e["data"].get("reason") == "stranger" for e in events
            ),
        }
        found = [what for what, wanted in self._expected.items() if wanted and not seen[what]]
        if "other_side" in status and self._expected["a fall alarm"]:
            found += demo_mqtt.missed(status["other_side"])
        return found

    def _sum_up(
        self, status: dict[str, Any], events: list[dict[str, Any]], passed_s: float
    ) -> dict[str, Any]:
        counts: dict[str, int] = {}
        for event in events:
            kind = event["type"].removeprefix("edge_rt.")
            counts[kind] = counts.get(kind, 0) + 1
        prealarms = [e["data"]["why"] for e in events if _is(e, "fall", "prealarm")]
        return {
            "input": "recorded" if self._trials else "simulated",
            "engine": status["engine"],
            "seconds": round(passed_s, 1),
            "events": counts,
            "delay_s": [why.get("delay_s") for why in prealarms],
            "latency": {
                "falls": status["falls"]["latency"], "faces": status["faces"]["latency"],
            },
            "face_worker_restarts": status["faces"]["restarts"],
            "other_side": status.get("other_side"),
            "missed": self._missed(status, events),
        }  # fmt: skip


def _check_video(path: Path) -> None:
    """Raises InputError for what the camera pipeline could not play."""
    from edge_rt.adapters.camera_replay import ReplayCamera

    camera = ReplayCamera(path)
    try:
        camera.open()
    finally:
        camera.close()


def _is(event: dict[str, Any], kind: str, what: str) -> bool:
    return bool(event["type"] == f"edge_rt.{kind}.{what}")


def _media(name: str) -> str:
    return str(importlib.resources.files("edge_rt") / "demo_media" / name)


@contextlib.contextmanager
def running_daemon(folder: Path, config: dict[str, Any]) -> Iterator[None]:
    """The daemon in a process of its own, ended at the end; its log is shown if it fails."""
    (folder / "config.toml").write_text(write_toml(config), encoding="utf-8")
    log = folder / "daemon.log"
    words = [sys.executable, "-m", "edge_rt", "run", "--config", str(folder / "config.toml")]
    with child(words, log) as process:
        deadline = time.monotonic() + START_S
        while not socket_path(folder).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise _startup_error(process.poll(), last_words(log))
            time.sleep(0.02)
        try:
            yield
        except EdgeRtError:
            if process.poll() is not None:
                raise DaemonError(f"the daemon ended: {last_words(log)}") from None
            raise


def _startup_error(exit_code: int | None, words: str) -> EdgeRtError:
    """What the daemon said of itself, with its own exit code where it is one of ours."""
    kinds = {2: InputError, 3: ManifestError, 4: StorageError}
    if exit_code in kinds and words.startswith("edge-rt: "):
        return kinds[exit_code](words.removeprefix("edge-rt: "))
    return DaemonError(f"the daemon did not start: {words}")
