"""From a publisher that signs, through a real broker, to a confirmed model on a running daemon."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from candidates import ALWAYS, NEVER, Edit, input_scaled, same, shifted, write_candidate
from daemons import Running, daemon
from e2e.test_uplink_outage import PEER, Namespace, ip
from e2e.uplink_peer import Peer
from updates import Fleet, config_for

from edge_rt.adapters.bundle_files import read_bundle, write_manifest
from edge_rt.adapters.trials import Trial, write_trials
from edge_rt.core.errors import DaemonError
from edge_rt.core.manifest import FallManifest
from edge_rt.falls.simulate import ACTIVITIES, Script, simulate
from edge_rt.fleet.receiver import Receiver
from edge_rt.fleet.store import Store

SPEED = 100.0
FETCH = {
    "missing_s": 0.4,
    "patience_s": 5.0,
    "retry_s": 0.5,
    "interval_s": 0.1,
    "clock_grace_s": 0.1,
}
QUICK = {
    **{"enabled": True, "shadow_h": 0.28, "shadow_block_s": 5.0, "trial_h": 0.001},
    **{"alarms_per_day": 1e6, "settle_s": 1.0, "retry_h": 0.0005},
}


# What is wrong with it, what its manifest says besides, and who finds out.
WORSE: dict[str, tuple[Edit, dict[str, Any], str]] = {
    "always fires": (ALWAYS, {}, "challenging"),
    "never fires": (NEVER, {}, "challenging"),
    "too slow": (same, {"latency_budget_ms": 0.001}, "testing"),
    "made for another sensor": (input_scaled(0.1), {}, "challenging"),
    "subtly less sensitive": (shifted(-2.0), {}, "shadowing"),
}


@pytest.fixture
def waist(factory_bundle: Callable[[str], Path]) -> Path:
    return factory_bundle("fall-waist")


@pytest.fixture
def day(tmp_path: Path) -> dict[str, Any]:
    """A replayed sensor at 50 Hz: a busy day in two minutes without a fall, again and again."""
    kinds = ("walking", "sitting", "lying", "bending")  # no impact: nothing is suspected
    script = tuple(entry for kind in kinds for entry in ACTIVITIES[kind])
    record(tmp_path / "day.npz", script)
    return replay(tmp_path / "day.npz", SPEED)


def record(path: Path, script: Script) -> float:
    """Write a simulated recording; its length in s."""
    acc_g = simulate(script, 3, rate_hz=50.0, placement="waist").block.acc_g
    write_trials(path, [Trial("s", "day", "a day", False, "waist", 50.0, acc_g)])
    return len(acc_g) / 50.0


def replay(path: Path, speed: float) -> dict[str, Any]:
    return {"driver": "replay", "file": str(path), "repeat": True, "speed": speed}


def config(broker: Broker, root: Path, source: dict[str, Any], **updates: Any) -> dict[str, Any]:
    return {
        "device": {"fleet": "home", "name": "dev1"},
        "falls": {
            "source": source,
            "alarm": {"cancel_window_s": 10.0, "escalated_window_s": 5.0},
        },
        "mqtt": {
            **broker.section("dev1"),
        },
        "updates": {**QUICK, **updates, "fetch": {**FETCH, "root": str(root)}},
    }


def model_events(running: Running) -> list[str]:
    """`<what> <version>` of each model event so far."""
    return [
        f"{e['type'].split('.')[2]} {e['data']['version']}"
        for e in running.events()
        if e["type"].startswith("edge_rt.model.")
    ]


def windows(running: Running) -> tuple[int, float]:
    falls = running.status()["falls"]
    return falls["hops"], falls["t_s"]


def hop_s(folder: Path) -> float:
    manifest = read_bundle(folder).manifest
    assert isinstance(manifest, FallManifest)
    return manifest.input.hop / manifest.input.rate_hz


def goes_through(running: Running, *events: str) -> None:
    """Until these model events have come, one after the other."""
    for event in events:
        running.wait(lambda event=event: event in model_events(running), event)


def offer(fleet: Fleet, folder: Path, waist: Path, edit: Edit, version: str, **more: Any) -> None:
    """Sign a candidate made of the factory model, and bring it to the broker."""
    bundle = write_candidate(folder / version, waist, edit, version=version, **more)
    fleet.publisher().publish(bundle, 100)
    fleet.upload()


@pytest.mark.native("a share of the processor is judged")
def test_from_publish_to_confirmed_and_back_by_hand(
    make_broker: Callable[..., Broker],
    pki: Pki,
    fleet: Fleet,
    waist: Path,
    day: dict[str, Any],
    tmp_path: Path,
) -> None:
    broker = fleet.broker = make_broker(pki)
    offer(fleet, tmp_path, waist, NEVER, "9.0.0")
    with daemon(tmp_path, config(broker, fleet.folder / "root.json", day)) as running:
        running.wait(lambda: running.status()["falls"]["hops"] > 10, "the first windows")
        hops, t_s = windows(running)
        goes_through(running, "staged 9.0.0", "rejected 9.0.0")
        offer(fleet, tmp_path, waist, same, "9.1.0")
        said = ["staged 9.1.0", "shadow 9.1.0", "activated 9.1.0", "confirmed 9.1.0"]
        goes_through(running, *said)
        assert model_events(running) == ["staged 9.0.0", "rejected 9.0.0", *said]
        # Not a window lost or doubled since: the grid is even, so the count tells.
        more, later_s = windows(running)
        assert (more - hops) * hop_s(waist) == pytest.approx(later_s - t_s, abs=2e-3)
        status = running.status()
        assert status["falls"]["blocks_dropped"] == 0 and status["problems"] == []
        assert status["falls"]["detector_failures"] == 0
        task = running.call("model_status")["tasks"]["fall"]
        assert (task["version"], task["slot"], task["state"]) == ("9.1.0", "a", "idle")
        running.stop()
    with daemon(tmp_path, config(broker, fleet.folder / "root.json", day)) as running:
        assert running.call("model_status")["tasks"]["fall"]["version"] == "9.1.0"
        answer = running.call("model_rollback", task="fall")
        assert answer["slot"] == "factory"
        goes_through(running, "rolled_back 9.1.0")
        assert running.status()["problems"] == []


def reason(running: Running, event: str) -> str:
    """Why, as the last event of this kind and version says it."""
    what, version = event.split()
    found = [
        e["data"]
        for e in running.events()
        if e["type"] == f"edge_rt.model.{what}" and e["data"]["version"] == version
    ]
    return f"{found[-1]['stage']}: {found[-1].get('reason', '')}"


@pytest.mark.release
def test_worse_models_are_stopped_without_a_person(
    make_broker: Callable[..., Broker],
    pki: Pki,
    fleet: Fleet,
    waist: Path,
    day: dict[str, Any],
    tmp_path: Path,
) -> None:
    """On a stream without a fall; the good model stays live throughout."""
    broker = fleet.broker = make_broker(pki)
    with daemon(tmp_path, config(broker, fleet.folder / "root.json", day)) as running:
        for number, (edit, more, stage) in enumerate(WORSE.values()):
            version = f"9.{number}.0"
            offer(fleet, tmp_path, waist, edit, version, **more)
            goes_through(running, f"rejected {version}")
            assert reason(running, f"rejected {version}").startswith(stage)
        task = running.call("model_status")["tasks"]["fall"]
        assert (task["version"], task["slot"]) == ("1.0.0", "factory")


@contextlib.contextmanager
def receiving(broker: Broker, folder: Path) -> Iterator[None]:
    """The other side, which receipts what comes, in a thread of its own."""
    stop = threading.Event()

    def run() -> None:
        receiver = Receiver(broker.settings("@receiver"), "home", Store(folder))
        while not stop.is_set():
            receiver.turn(0.1)
        receiver.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


class Carer:
    """Looks after each alarm, and notes what the update did at that moment."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.met: set[str] = set()

    def look(self, event: str) -> bool:
        """Whether this model event has come."""
        status = self.running.status()
        if status["falls"]["state"] == "alarm":
            self.met.add(status["models"]["tasks"]["fall"]["state"])
            with contextlib.suppress(DaemonError):  # its cancel window may have begun anew
                self.running.call("resolve")
        return event in model_events(self.running)

    def until(self, *events: str) -> None:
        """Until these have come, one after the other; the shadow takes its time."""
        for event in events:
            end_s = time.monotonic() + SHADOW_PATIENCE_S
            while not self.look(event):
                assert time.monotonic() < end_s, f"no {event}: {model_events(self.running)}"
                time.sleep(0.05)

    def until_met(self, state: str) -> None:
        """Until an alarm has been looked after while the update was in this state."""
        end_s = time.monotonic() + MEETING_PATIENCE_S
        while state not in self.met:
            assert time.monotonic() < end_s, f"no alarm in {state}, but in {self.met}"
            self.look("")
            time.sleep(0.05)

    def incidents(self) -> list[str]:
        """One for each alarm, in order."""
        events = self.running.events()
        return [e["data"]["incident"] for e in events if e["type"] == "edge_rt.fall.alarm"]


def fork_server(daemon_pid: int) -> int:
    """The child of a daemon that is a copy of it."""
    command = Path(f"/proc/{daemon_pid}/cmdline").read_bytes()
    children = Path(f"/proc/{daemon_pid}/task/{daemon_pid}/children").read_text().split()
    (found,) = (int(n) for n in children if Path(f"/proc/{n}/cmdline").read_bytes() == command)
    return found


@contextlib.contextmanager
def halted(pid: int) -> Iterator[None]:
    """Stops a process meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def cable() -> Iterator[Namespace]:
    """A network of its own with one cable to it."""
    if os.getuid() != 0 or shutil.which("tc") is None:
        pytest.skip("needs root, ip(8) and tc(8) to make a slow line")
    try:
        made = Namespace()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    ip("-n", made.name, "link", "set", "lo", "up")  # the receiver sits beside the broker
    yield made
    made.remove()


FALLS = "fall-walking"  # repeated: a fall in each pass of 19 s
# What is announced reaches the shadow some 0.2 s late on a busy machine, which may be no more than
# the few seconds of signal by which it tells falls apart.
SLOWER = 10.0
SHADOW_PATIENCE_S = 300.0
MEETING_PATIENCE_S = 120.0


# A fall every two minutes of signal. Each alarm drops the download's connection and what is
# in flight on it: with one every few seconds nothing would come over a thin line.
FALL_NOW_AND_THEN: Script = (("walk", 20.0), "fall", ("lie", 16.0), "get_up", ("walk", 70.0))


@pytest.mark.release
def test_a_model_that_misbehaves_on_trial_is_left_without_a_person(
    make_broker: Callable[..., Broker], pki: Pki, fleet: Fleet, waist: Path, tmp_path: Path
) -> None:
    """Every alarm is one too many here, and the wearer falls again and again."""
    broker = fleet.broker = make_broker(pki)
    offer(fleet, tmp_path, waist, same, "9.1.0")
    strict = {"alarms_per_day": 1e-6, "trial_h": 1.0}
    source = {"driver": "simulated", "scene": FALLS, "seed": 3, "speed": SLOWER}
    conf = config(broker, fleet.folder / "root.json", source, **strict)
    with receiving(broker, tmp_path / "site"), daemon(tmp_path, conf) as running:
        carer = Carer(running)
        with halted(fork_server(running.process.pid)):  # else the self-test may be too short for it
            carer.until_met("testing")
        carer.until("shadow 9.1.0", "activated 9.1.0", "rolled_back 9.1.0")
        assert reason(running, "rolled_back 9.1.0").startswith("trial: ")
        assert running.call("model_status")["tasks"]["fall"]["slot"] == "factory"


@pytest.mark.release
def test_a_fall_in_every_phase_is_alarmed_and_overtakes_the_download(
    make_broker: Callable[..., Broker],
    tmp_path_factory: pytest.TempPathFactory,
    cable: Namespace,
    fleet: Fleet,
    waist: Path,
    tmp_path: Path,
) -> None:
    """On a line of 256 kbit/s, where eight chunks in flight take a quarter of a minute."""
    pki = Pki(tmp_path_factory.mktemp("pki"), cable.broker)
    broker = fleet.broker = make_broker(pki, start=False, host=cable.broker)
    broker.start(cable.inside)
    broker.wait_ready()
    heavy = tmp_path / "heavy"
    shutil.copytree(waist, heavy)
    (heavy / "notes.bin").write_bytes(random.Random(1).randbytes(500_000))
    offer(fleet, tmp_path, heavy, same, "9.1.0")
    cable.slow("256kbit")
    peer = tmp_path / "receiver.json"
    mqtt = config_for(broker, "@receiver")
    peer.write_bytes(msgspec.json.encode(Peer(str(tmp_path / "site"), mqtt, 0)))
    receiver = subprocess.Popen(
        [*cable.inside, sys.executable, str(PEER), "receiver", str(peer)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    pass_s = record(tmp_path / "falls.npz", FALL_NOW_AND_THEN)
    source = replay(tmp_path / "falls.npz", SLOWER)
    conf = config(broker, fleet.folder / "root.json", source, trial_h=0.004)
    try:
        with daemon(tmp_path, conf) as running:
            carer = Carer(running)
            running.wait(lambda: running.status()["models"]["fetch"]["taken"] > 0, "a chunk")
            carer.until("staged 9.1.0", "shadow 9.1.0", "activated 9.1.0", "confirmed 9.1.0")
            assert {"fetching", "shadowing", "trial"} <= carer.met
            passes = running.status()["falls"]["t_s"] / pass_s
            incidents = carer.incidents()
            assert len(set(incidents)) == len(incidents)
            assert abs(len(incidents) - passes) < 2, "a fall in each pass, an alarm each"
            mqtt_status = running.status()["mqtt"]
            assert running.status()["models"]["fetch"]["pauses"] > 0
            # Decision to PUBACK, the download on the same line: with its chunks ahead it would
            # be 16 s.
            assert mqtt_status["alarm_to_puback"]["p95_ms"] < 3000.0, mqtt_status
    finally:
        receiver.kill()
        receiver.wait()


@pytest.mark.release
def test_a_face_model_comes_by_a_new_worker_and_falls_go_on(
    make_broker: Callable[..., Broker],
    pki: Pki,
    fleet: Fleet,
    factory_bundle: Callable[[str], Path],
    day: dict[str, Any],
    tmp_path: Path,
) -> None:
    broker = fleet.broker = make_broker(pki)
    folder = factory_bundle("face-embed")
    shutil.copytree(folder, tmp_path / "next")
    manifest = {**msgspec.to_builtins(read_bundle(folder).manifest), "version": "9.1.0"}
    del manifest["files"]
    write_manifest(tmp_path / "next", manifest)
    fleet.publisher().publish(tmp_path / "next", 100)
    fleet.upload()
    conf = config(broker, fleet.folder / "root.json", day, faces="trial_only")
    conf["faces"] = {"enabled": True, "camera": {"driver": "demo"}}

    def models(running: Running) -> Any:
        return running.status()["faces"]["models"].get("face-embed")

    with daemon(tmp_path, conf) as running:
        running.wait(lambda: running.status()["falls"]["hops"] > 10, "the first windows")
        hops, t_s = windows(running)
        said = ["staged 9.1.0", "shadow 9.1.0", "activated 9.1.0", "confirmed 9.1.0"]
        goes_through(running, *said)
        assert models(running) == "9.1.0"
        more, later_s = windows(running)
        every_s = hop_s(factory_bundle("fall-waist"))
        assert (more - hops) * every_s == pytest.approx(later_s - t_s, abs=2e-3)
        assert running.stop() == 0
    with daemon(tmp_path, conf) as running:
        running.wait(lambda: models(running) == "9.1.0", "the worker with the confirmed model")
        assert running.call("model_rollback", task="face-embed")["slot"] == "factory"
        assert models(running) == manifest_version(folder)


def manifest_version(folder: Path) -> str:
    return read_bundle(folder).manifest.version
