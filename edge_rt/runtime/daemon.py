"""The daemon: puts the parts together, starts them in order, stops them in reverse."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_rt import __version__
from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.probe import probe
from edge_rt.adapters.statedir import StateDir
from edge_rt.adapters.statefile import StateFile
from edge_rt.bundle import Bundle, factory_bundles, locate, open_bundle
from edge_rt.core.config import Config, SimulatedAccelerometer, parse_config
from edge_rt.core.errors import ConfigError, InputError, ManifestError, StorageError
from edge_rt.core.fall import OPEN, FallRules, rules_for
from edge_rt.core.manifest import FallManifest
from edge_rt.core.types import Announce
from edge_rt.core.unlock import Counters, UnlockMachine, penalised
from edge_rt.core.wire import source_of
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.runtime.actuators import make_lock, make_siren
from edge_rt.runtime.alarm_siren import siren_follows
from edge_rt.runtime.clock import clock_trusted
from edge_rt.runtime.commands import Commands
from edge_rt.runtime.control import ControlServer
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.fall_memory import FallMemory, logged_stages
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.letters import Letter
from edge_rt.runtime.logs import set_up
from edge_rt.runtime.places import EVENTS_NAME, TWIN_NAME, UNLOCK_NAME
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.reporting import Parts, make_home_assistant, telemetry
from edge_rt.runtime.restoring import finish_restore
from edge_rt.runtime.sources import make_accelerometer
from edge_rt.runtime.stamps import Stamps, read_boot_id

if TYPE_CHECKING:
    from edge_rt.runtime.home_assistant_service import HomeAssistantService
    from edge_rt.runtime.twin_service import TwinService
    from edge_rt.runtime.uplink_service import UplinkService

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
    set_up()
    config = load_config(config_path)
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
        self._uplink: UplinkService | None = None
        self._twin: TwinService | None = None
        self._home: HomeAssistantService | None = None
        self._fall_manifest: FallManifest | None = None
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
        if config.mqtt.enabled:
            config = self._load_twin(state.path)
        if config.falls.enabled:
            self._falls = self._make_falls(state.path, recorder, stamps.boot_id)
        if config.faces.enabled:
            self._faces = self._make_faces(state.path, recorder, stamps.boot_id)
        recorder.announce("device", "started", {"version": __version__, "engine": self._engine})
        # Whoever finds the control socket finds the log too; a sick disk holds up nothing for long.
        recorder.flush(FIRST_EVENT_S)
        for service in (self._falls, self._faces):
            if service is not None:
                self._stack.callback(service.close)
                service.start()
        if config.mqtt.enabled:
            self._start_uplink(state.path, recorder, stamps.boot_id)
        parts = Parts(self._falls, self._faces, self._uplink, self._home)
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
            "mqtt": self._uplink.status() if self._uplink else None,
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
        if self._uplink is not None:
            uplink = self._uplink.status()
            if uplink["error"]:
                found.append(f"mqtt: {uplink['error']}")
            if uplink["alarms_unheard"]:
                found.append(f"mqtt: {uplink['alarms_unheard']} alarms without a receipt")
        if self._falls is not None:
            if self._falls.stuck_s() > LOOK_S:
                found.append(f"falls: the thread has not turned for {self._falls.stuck_s():.0f} s")
            falls = self._falls.status()
            if falls["sensor"] == "lost":
                found.append(f"accelerometer: {falls['sensor_detail']}")
            if falls["problem"]:
                found.append(f"falls: {falls['problem']}")
        if self._faces is not None and (problem := self._faces.status()["problem"]):
            found.append(f"faces: {problem}")
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

    def _load_twin(self, folder: Path) -> Config:
        """The configuration with the settings from afar that were last in force."""
        # paho and TLS cost memory and time that a device without a broker need not spend.
        from edge_rt.core.twin import Desired
        from edge_rt.runtime.twin_service import TwinService

        file = StateFile(folder / TWIN_NAME, Desired)
        self._twin = TwinService(self.config, file, self._apply)
        return self._twin.load()

    def _apply(self, config: Config) -> None:
        """Make settings from afar live. Raises ConfigError where the bundle forbids them."""
        if self._falls is not None and self._fall_manifest is not None:
            self._falls.set_rules(_fall_rules(config, self._fall_manifest))
        if self._uplink is not None:
            self._uplink.set_patience(config.mqtt.alarm_patience_s)

    def _start_uplink(self, folder: Path, recorder: Recorder, boot_id: str) -> None:
        from edge_rt.core.uplink_wire import Topics
        from edge_rt.runtime.uplink_service import UplinkService

        twin = self._twin
        assert twin is not None
        topics = Topics(self.config.device.fleet, self.config.device.name)
        siren = make_siren(self.config.outputs.siren)
        self._home = home = make_home_assistant(
            topics, twin.config.mqtt, folder, self._falls, self._faces
        )
        self._uplink = UplinkService(
            twin.config.mqtt,
            topics,
            recorder,
            folder / EVENTS_NAME,
            lambda incident: siren.sound("alarm"),
            boot_id=boot_id,
            handlers={
                "twin/desired": lambda _, body: Letter("twin/reported", twin.desire(body), True)
            },
            greetings=lambda: [*home.greet(), Letter("twin/reported", twin.report(), True)],
        )
        home.send = self._uplink.post
        recorder.listen(home.notice)
        self._stack.callback(self._uplink.stop)
        self._uplink.start()

    def _make_falls(self, folder: Path, recorder: Recorder, boot_id: str) -> FallService:
        config = self.config.falls
        bundle = self._open(config.bundle)
        manifest = bundle.manifest
        if not isinstance(manifest, FallManifest):
            raise ManifestError(f"bundle {config.bundle} is not a fall model; see falls.bundle")
        self._fall_manifest = manifest
        rules = self._fall_rules_at_start(manifest)
        source = make_accelerometer(config.source, manifest.decision.placement)
        detector = FallDetector(
            bundle, rate_hz=source.rate_hz, range_g=source.range_g, stamps=config.stamps
        )
        pipeline = FallPipeline(
            detector,
            rules,
            lambda: uuid.uuid4().hex,
            range_g=source.range_g,
            simulated=isinstance(config.source, SimulatedAccelerometer),
            scale=manifest.output.scale,
        )
        siren = make_siren(self.config.outputs.siren)
        recorder.listen(siren_follows(siren), urgent=True)
        announce = _announcer(recorder, f"{manifest.name} {manifest.version}")
        memory = self._memory = FallMemory(folder, boot_id, time.monotonic)
        self._stack.callback(memory.close)
        restored = memory.restore(pipeline, logged_stages(recorder))
        if pipeline.machine.state in OPEN:
            siren.sound(pipeline.machine.state.value)
        for kind, what, data in restored.tell:
            announce(kind, what, data)
        return FallService(
            pipeline,
            source,
            announce,
            memory.save,
            time.monotonic,
            # A sensor cannot be missed before its hops are due.
            lost_s=max(config.lost_s, 3.0 * manifest.input.hop / manifest.input.rate_hz),
            speed=config.source.speed,
            asleep_s=restored.asleep_s,
        )

    def _fall_rules_at_start(self, manifest: FallManifest) -> FallRules:
        if self._twin is not None:
            try:
                return _fall_rules(self._twin.config, manifest)
            except ConfigError as error:  # a bundle with other bounds has come since
                self._twin.forget(str(error))
        return _fall_rules(self.config, manifest)

    def _make_faces(self, folder: Path, recorder: Recorder, boot_id: str) -> FaceService:
        config = self.config.faces
        file = StateFile(folder / UNLOCK_NAME, Counters)
        try:
            counters = file.load() or Counters()
        except StorageError as error:
            # The file stays damaged until the penalty has been written over it.
            log.error("the unlock counters start from the longest lockout: %s", error)
            counters = penalised(config.rules)
        machine = UnlockMachine(
            config.rules, counters, file.save, boot_id=boot_id, now_s=time.monotonic()
        )
        return FaceService(
            [str(folder), _as_json(self.config)],
            machine,
            _announcer(recorder, None),
            make_lock(self.config.outputs.lock),
            time.monotonic,
            hang_s=config.hang_s,
            memory_mb=config.memory_mb,
            armed=config.armed,
        )

    def _open(self, name: str) -> Bundle:
        """A bundle from a file that a person named is first tried in a process that may crash."""
        runtime = self.config.runtime
        folder = locate(name)
        if folder not in factory_bundles().values():
            probe(folder, runtime.engine, run=False)
        bundle = open_bundle(folder, runtime.engine, runtime.threads)
        bundle.interpreter.warm_up()
        self._engine = bundle.interpreter.engine
        return bundle


def _fall_rules(config: Config, manifest: FallManifest) -> FallRules:
    """The rules of the alarm machine. Raises ConfigError for what the bundle does not allow."""
    falls = config.falls
    profile: dict[str, float | bool] = {
        "cancel_window_s": falls.alarm.cancel_window_s,
        "escalated_window_s": falls.alarm.escalated_window_s,
        "cancel_on_recovery": falls.alarm.cancel_on_recovery,
    }
    if falls.threshold is not None:
        profile["threshold"] = falls.threshold
    try:
        return rules_for(manifest, **profile)
    except ValueError as error:
        raise ConfigError(f"[falls]: {error}; correct the configuration") from None


def _announcer(recorder: Recorder, model: str | None) -> Announce:
    def announce(kind: str, what: str, data: Mapping[str, Any]) -> None:
        recorder.announce(kind, what, data, model_version=model)

    return announce


def _group_of(folder: Path) -> int:
    """The service's group may use the control socket."""
    return os.stat(folder).st_gid


def _as_json(config: Config) -> str:
    import msgspec

    return msgspec.json.encode(config).decode()


__all__ = ["Daemon", "InputError", "load_config", "run"]
