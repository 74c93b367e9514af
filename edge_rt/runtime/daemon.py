"""The daemon: puts the parts together, starts them in order, stops them in reverse."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_rt import __version__
from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.statedir import StateDir
from edge_rt.core.config import Config, parse_config
from edge_rt.core.errors import ConfigError
from edge_rt.core.wire import source_of
from edge_rt.runtime.actuators import make_siren
from edge_rt.runtime.clock import clock_trusted
from edge_rt.runtime.commands import Commands
from edge_rt.runtime.compose import Place
from edge_rt.runtime.compose_faces import make_faces
from edge_rt.runtime.compose_falls import make_falls
from edge_rt.runtime.control import ControlServer
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.fall_memory import FallMemory
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.logs import set_up
from edge_rt.runtime.places import EVENTS_NAME
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.reporting import Parts, telemetry
from edge_rt.runtime.restoring import finish_restore
from edge_rt.runtime.stamps import Stamps, read_boot_id

if TYPE_CHECKING:
    from edge_rt.runtime.compose_mqtt import MqttPart

log = logging.getLogger(__name__)

FIRST_EVENT_S = 0.5
LOOK_S = 1.0
STUCK_S = 10.0  # the fall thread turns ten times a second
CLOSE_S = 3.0  # systemd waits longer; a disk that takes longer than this is sick


def load_config(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError, also when it cannot be read."""
    try:
        return parse_config(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a configuration file") from None


def run(config_path: Path) -> int:
    """Run until SIGTERM or SIGINT. Raises what `Daemon.start` raises."""
    config = load_config(config_path)
    set_up()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    daemon = Daemon(config)
    try:
        daemon.start()
        while not stop.wait(LOOK_S):
            if daemon.stuck_s() > STUCK_S:
                # A thread inside native code cannot be ended; a process can, and what was open is
                # saved. Whoever supervises this process starts it anew.
                log.critical("the fall thread has not turned for %g s; leaving", STUCK_S)
                time.sleep(LOOK_S)  # the log has a thread of its own
                os._exit(os.EX_SOFTWARE)
    finally:
        daemon.close()
    return 0


class Daemon:
    """One device. `start` once, `close` once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._born_s = time.monotonic()
        self._ready_s = 0.0
        self._stack = ExitStack()
        self._recorder: Recorder | None = None
        self._mqtt: MqttPart | None = None
        self._falls: FallService | None = None
        self._faces: FaceService | None = None
        self._memory: FallMemory | None = None
        self._engine = ""

    def start(self) -> None:
        """Open state, models and sensors, then the control socket.

        Raises ConfigError, InputError, PublisherError for what a person must mend first, and
        StorageError when the state folder cannot be used at all. A sensor that is absent, a camera
        that is absent and a full disk are not among them: the daemon runs and says so.
        """
        config = self.config
        state = self._stack.enter_context(StateDir(Path(config.runtime.state_dir)))
        finish_restore(state.path)
        stamps = Stamps(
            source_of(config.device.fleet, config.device.name),
            read_boot_id(),
            clock_trusted=clock_trusted,
        )
        recorder = self._start_recorder(state.path, stamps)
        self._stack.callback(self._say_stopped)
        place = Place(
            config, state.path, stamps.boot_id, recorder, make_siren(config.outputs.siren)
        )
        if config.faces.enabled:
            # First, for the worker takes longest to load its models and does so on its own.
            self._faces = make_faces(place)
            self._stack.callback(self._faces.close)
            self._faces.start()
        if config.mqtt.enabled:
            # paho and TLS cost memory and time that a device without a broker need not spend.
            from edge_rt.runtime.compose_mqtt import MqttPart

            self._mqtt = MqttPart(place)
        if config.falls.enabled:
            made = make_falls(place, self._mqtt)
            self._stack.callback(made.memory.close)
            self._falls, self._memory, self._engine = made.service, made.memory, made.engine
        recorder.announce("device", "started", {"version": __version__, "engine": self._engine})
        if self._falls is not None:
            self._stack.callback(self._falls.close)
            self._falls.start()
        # Whoever finds the control socket finds the log too; a sick disk holds up nothing for long.
        recorder.flush(FIRST_EVENT_S)
        if self._mqtt is not None:
            self._stack.callback(self._mqtt.stop)
            self._mqtt.start(self._falls, self._faces)
        parts = Parts(self._falls, self._faces, self._mqtt)
        self._stack.enter_context(
            telemetry(state.path, recorder, stamps, parts, config.mqtt.telemetry_s)
        )
        table = Commands(
            recorder, state.path / EVENTS_NAME, self._falls, self._faces, self.status
        ).table()
        server = ControlServer(Path(config.runtime.run_dir), table, _group_of(state.path))
        server.start()
        self._stack.callback(server.close)
        self._ready_s = time.monotonic() - self._born_s
        log.info("ready after %.2f s; engine %s", self._ready_s, self._engine or "none")

    def close(self) -> None:
        """Stop everything; what was announced is written if the disk lets us."""
        self._stack.close()

    def stuck_s(self) -> float:
        """How long the fall thread has not turned; 0 without one."""
        return self._falls.stuck_s() if self._falls is not None else 0.0

    def status(self) -> dict[str, Any]:
        """JSON-able: what the daemon sees and does now."""
        assert self._recorder is not None
        return {
            "device": {"fleet": self.config.device.fleet, "name": self.config.device.name},
            "version": __version__,
            "engine": self._engine,
            "uptime_s": round(self._uptime_s(), 3),
            "ready_s": round(self._ready_s, 3),
            "pid": os.getpid(),
            "clock_trusted": clock_trusted(),
            "problems": self._problems(),
            "falls": self._falls.status() if self._falls else None,
            "faces": self._faces.status() if self._faces else None,
            "mqtt": self._mqtt.status() if self._mqtt else None,
            "storage": self._recorder.status()._asdict(),
        }

    def _say_stopped(self) -> None:
        if self._recorder is not None and self._ready_s:
            self._recorder.announce("device", "stopped", {"uptime_s": round(self._uptime_s(), 1)})

    def _uptime_s(self) -> float:
        return time.monotonic() - self._born_s

    def _problems(self) -> list[str]:
        """What a person should look at; empty on a healthy device."""
        assert self._recorder is not None
        found = []
        storage = self._recorder.status()
        if storage.storage == "failing":
            found.append(f"storage: {storage.error} ({storage.pending} events kept in memory)")
        if self._memory is not None and self._memory.problem:
            found.append(f"storage: {self._memory.problem}")
        if self._mqtt is not None:
            found += [f"mqtt: {problem}" for problem in self._mqtt.problems()]
        if self._falls is not None:
            if self._falls.stuck_s() > LOOK_S:
                found.append(f"falls: the thread has not turned for {self._falls.stuck_s():.0f} s")
            falls = self._falls.status()
            if falls["sensor"] == "lost":
                found.append(f"accelerometer: {falls['sensor_detail']}")
            for problem in (falls["problem"], falls["detector_problem"]):
                if problem:
                    found.append(f"falls: {problem}")
        if self._faces is not None:
            faces = self._faces.status()
            if faces["camera"] == "lost":
                found.append(f"camera: {faces['camera_detail']}")
            if faces["problem"]:
                found.append(f"faces: {faces['problem']}")
        return found

    # ---- parts ----

    def _start_recorder(self, folder: Path, stamps: Stamps) -> Recorder:
        max_bytes = self.config.runtime.event_log_max_mb * 1024 * 1024
        path = folder / EVENTS_NAME
        recorder = Recorder(
            # Only an uplink pins events: without one nobody will ever receipt them.
            lambda draft, check: EventLog(
                path, draft, max_bytes=max_bytes, pinned=self.config.mqtt.enabled, check=check
            ),
            stamps,
        )
        self._recorder = recorder
        self._stack.callback(recorder.close, CLOSE_S)
        return recorder


def _group_of(folder: Path) -> int:
    """The service's group may use the control socket."""
    return os.stat(folder).st_gid
