"""The daemon: puts the parts together, starts them in order, stops them in reverse."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_rt import __version__
from edge_rt.adapters.eventlog import Draft, EventLog
from edge_rt.adapters.readahead import read_through
from edge_rt.adapters.statedir import StateDir
from edge_rt.core.config import Config
from edge_rt.core.crash_loop import Mode
from edge_rt.core.errors import StorageError, in_words
from edge_rt.core.fall_table import OPEN, State
from edge_rt.core.wire import source_of
from edge_rt.runtime.clock import clock_trusted
from edge_rt.runtime.commands import FALLS, Commands
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.compose_alarm import make_alarm
from edge_rt.runtime.compose_faces import make_faces
from edge_rt.runtime.compose_falls import make_falls
from edge_rt.runtime.compose_updates import make_updates
from edge_rt.runtime.control import ControlServer
from edge_rt.runtime.crash_guard import CrashGuard
from edge_rt.runtime.device_commands import DeviceCommands
from edge_rt.runtime.early_calls import EarlyCalls, unheard
from edge_rt.runtime.event_lines import log_event
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.fall_memory import FallMemory, open_stage
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.model_commands import ModelCommands
from edge_rt.runtime.outputs_kept import keep_outputs
from edge_rt.runtime.places import EVENTS_NAME
from edge_rt.runtime.presence import Presence
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.reporting import Parts, telemetry
from edge_rt.runtime.restoring import finish_restore
from edge_rt.runtime.room import Room
from edge_rt.runtime.sensor_desk import SensorDesk, sensor_commands
from edge_rt.runtime.stamps import Stamps, read_boot_id

if TYPE_CHECKING:
    from edge_rt.runtime.compose_mqtt import MqttPart
    from edge_rt.runtime.trying import Trier
    from edge_rt.runtime.update_service import UpdateService

log = logging.getLogger(__name__)

FIRST_EVENT_S = 0.5
SLOW_S = 1.0  # the fall thread turns ten times a second
CLOSE_S = 3.0  # systemd waits longer; a disk that takes longer than this is sick


class Daemon:
    """One device. `begin` and `start` once, `close` once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._state: StateDir | None = None
        self._stage: str | None = None  # of the incident that was open at the start
        self._born_s = time.monotonic()
        self._ready_s = 0.0
        self._stack = ExitStack()
        self._recorder: Recorder | None = None
        self._mqtt: MqttPart | None = None
        self._falls: FallService | None = None
        self._faces: FaceService | None = None
        self._memory: FallMemory | None = None
        self._control: ControlServer | None = None
        self._guard: CrashGuard | None = None
        self._room: Room | None = None
        self._desk: SensorDesk | None = None
        self._updates: UpdateService | None = None
        self._engine = ""

    def begin(self) -> bool:
        """Take the state folder and, but for an open alarm, count this start; starts no thread.

        True if a fork server may be made before `start`: not while an alarm is open, for nothing
        that may fail or wait comes before its siren, nor in a smaller mode, for the engine that it
        loads may be what ended the starts before.
        Raises StorageError when the state folder cannot be used at all, DaemonError when another
        process has it.
        """
        state = self._state = self._stack.enter_context(
            StateDir(Path(self.config.runtime.state_dir))
        )
        run_dir = Path(self.config.runtime.run_dir)
        self._stage = State.ALARM if unheard(run_dir) else open_stage(state.path)
        guard = self._guard = CrashGuard(state.path, self.config, memory=run_dir)
        if self._stage:
            return False
        guard.begin()
        return guard.mode is Mode.FULL

    def start(
        self, trier: Trier | None = None, pause: Callable[[float], object] = time.sleep
    ) -> None:
        """Open state, models and sensors, then the control socket.

        trier: tries models that come from afar; None: in an interpreter of its own each.
        pause: waits so many seconds, or less when asked to stop; needed after starts that failed.

        Raises ConfigError, InputError, PublisherError for what a person must mend first. A sensor
        or a camera that is absent, a full disk and a control socket that cannot be made are not
        among them: the daemon runs and says so.
        """
        state, guard, stage = self._state, self._guard, self._stage
        assert state is not None and guard is not None  # of begin()
        # First of all: what a killed daemon has left on goes off before anything may fail here.
        room = self._room = Room(self.config, lambda: not self._ready_s or bool(self._problems()))
        self._stack.callback(room.close)
        keep_outputs(self.config)
        room.start()
        # An alarm that is open sounds before anything that may fail, hang or wait.
        if stage:
            if self.config.falls.enabled:
                room.sound(stage)
            guard.begin()
        _finish_restore(state.path, guard)
        config = guard.config
        stamps = Stamps(
            source_of(config.device.fleet, config.device.name),
            read_boot_id(),
            clock_trusted=clock_trusted,
        )
        recorder = self._start_recorder(state.path, stamps)
        recorder.listen(log_event)
        self._stack.callback(self._hear_no_more)
        self._stack.callback(self._say_stopped)
        # Buttons are heard before anything that may fail, hang or wait, too.
        presence = Presence()
        announce = announcer(recorder, None)
        run_dir = Path(config.runtime.run_dir)
        calls = EarlyCalls(room, announce, run_dir, alarm_open=stage == State.ALARM)
        acts = dict.fromkeys(FALLS, calls.not_yet) | {"help_now": calls.help_now}
        room.watch(acts, presence, announce)
        if delay_s := guard.delay_s(alarm_open=stage != ""):
            pause(delay_s)
        place = Place(config, state.path, stamps.boot_id, recorder, room, room.lock)
        seen = None
        if config.faces.enabled:
            # First, for the worker takes longest to load its models and does so on its own.
            seen = make_faces(place)
            self._faces = seen.service
            self._stack.callback(self._faces.close)
            self._faces.start()
        if config.mqtt.enabled:
            self._mqtt = _make_uplink(place, guard)
        made = None
        if config.falls.enabled:
            made = make_falls(place, self._mqtt)
            self._falls, self._memory, self._engine = made.service, made.memory, made.engine
            self._desk = made.desk
        elif self.config.falls.enabled:
            # No model may run, but an alarm that is open sounds, and who calls for help is heard.
            alarm = make_alarm(place, self._mqtt)
            self._falls, self._memory = alarm
        recorder.announce("device", "started", {"version": __version__, "engine": self._engine})
        if guard.mode is not Mode.FULL:
            log.error("%s", guard.problem())
            recorder.announce("device", "degraded", guard.report())
        commands = Commands(
            recorder, state.path / EVENTS_NAME, self._falls, self._faces, room, self.status
        )
        acts |= commands.pressed()
        if self._falls is not None:
            self._falls.called(calls.connect(acts["help_now"]))
            self._stack.callback(self._falls.close)
            self._falls.start()
            calls.hand_over()
        # Whoever finds the control socket finds the log too; a sick disk holds up nothing for long.
        recorder.flush(FIRST_EVENT_S)
        recorder.listen(presence.notice)
        updates = self._updates = make_updates(place, made, seen, trier, self._mqtt)
        device = DeviceCommands(config, self._falls, self._faces, presence, self.status)
        device.rollback = lambda task: updates.roll_back(task, "a command")
        rows = device.table() | ModelCommands(updates).table()
        if self._mqtt is not None:
            self._stack.callback(self._mqtt.stop)
            self._mqtt.start(self._falls, self._faces, commands.table("operator") | rows)
        self._stack.callback(updates.close)
        updates.start()
        parts = Parts(self._falls, self._faces, self._mqtt)
        self._stack.enter_context(
            telemetry(state.path, recorder, stamps, parts, config.mqtt.telemetry_s)
        )
        # What only somebody at the device may ask stays out of reach of MQTT.
        table = commands.table() | rows | sensor_commands(self._desk)
        group = _group_of(state.path)
        server = self._control = ControlServer(run_dir, table, group)
        server.start()
        self._stack.callback(server.close)
        self._ready_s = time.monotonic() - self._born_s
        log.info("ready after %.2f s; engine %s", self._ready_s, self._engine or "none")

    def close(self) -> None:
        """Stop everything; what was announced is written if the disk lets us."""
        self._stack.close()

    def left_on(self) -> list[str]:
        """After `close`: what may still be on in the room."""
        return self._room.left_on() if self._room is not None else []

    def stuck_s(self) -> dict[str, float]:
        """How long ago each loop last turned, by its name in core.turning."""
        found: dict[str, float] = {}
        if self._recorder is not None:
            found["recorder"] = self._recorder.stuck_s()
            found["teller"] = self._recorder.teller_stuck_s()
        if self._falls is not None:
            found["falls"] = self._falls.stuck_s()
            found["accelerometer"] = self._falls.reader_stuck_s()
        if self._faces is not None:
            found["faces"] = self._faces.stuck_s()
        if self._mqtt is not None:
            found["uplink"] = self._mqtt.stuck_s()
        if self._control is not None:
            found["control"] = self._control.stuck_s()
        if self._updates is not None:
            found["updates"] = self._updates.stuck_s()
        if self._room is not None:
            found |= self._room.stuck_s()
        return found

    def watches(self) -> bool:
        """Whether it does what it is for: falls are watched, or not asked for."""
        return self._falls is None or self._falls.watches()

    def alarm_open(self) -> bool:
        """Whether somebody waits for help."""
        return self._falls is not None and self._falls.alarm_state()[0] in OPEN

    @property
    def mode(self) -> Mode:
        """How much of the configuration runs."""
        return self._guard.mode if self._guard is not None else Mode.FULL

    def healthy(self) -> None:
        """It has run long enough: this start counts as good."""
        if self._guard is not None:
            self._guard.healthy()

    def stopped(self) -> None:
        """It was asked to stop: this start does not count as failed."""
        if self._guard is not None:
            self._guard.stopped()

    def failed(self, reason: str) -> None:
        """It is about to end, and why."""
        if self._guard is not None:
            self._guard.failed(reason)

    def try_again(self) -> None:
        """It is about to end so that the models are tried again."""
        if self._guard is not None:
            self._guard.try_again()

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
            "room": self._room.status() if self._room else None,
            "models": self._updates.status() if self._updates else None,
            "storage": self._recorder.status()._asdict(),
        }

    def _hear_no_more(self) -> None:
        """Buttons go last: what is pressed until then is still recorded and remembered."""
        if self._room is not None:
            self._room.unwatch()
        if self._memory is not None:
            self._memory.close()

    def _say_stopped(self) -> None:
        if self._recorder is not None and self._ready_s:
            self._recorder.announce("device", "stopped", {"uptime_s": round(self._uptime_s(), 1)})

    def _uptime_s(self) -> float:
        return time.monotonic() - self._born_s

    def _problems(self) -> list[str]:
        """What a person should look at; empty on a healthy device."""
        assert self._recorder is not None
        found = []
        if self._guard is not None and self._guard.problem():
            found.append(self._guard.problem())
        storage = self._recorder.status()
        if storage.storage == "failing":
            found.append(f"storage: {storage.error} ({storage.pending} events kept in memory)")
        if storage.aside:
            found.append(f"storage: the event log was set aside as {storage.aside}; keep that file")
        if self._memory is not None and self._memory.problem:
            found.append(f"storage: {self._memory.problem}")
        if self._room is not None:
            found += self._room.problems()
        if self._mqtt is not None:
            found += [f"mqtt: {problem}" for problem in self._mqtt.problems()]
        if self._falls is not None:
            if self._falls.stuck_s() > SLOW_S:
                found.append(f"falls: the thread has not turned for {self._falls.stuck_s():.0f} s")
            falls = self._falls.status()
            if falls["sensor"] == "lost":
                found.append(f"accelerometer: {falls['sensor_detail']}")
            if self._desk is not None and self._desk.problem:
                found.append(f"accelerometer: {self._desk.problem}")
            for problem in (falls["problem"], falls["detector_problem"]):
                if problem:
                    found.append(f"falls: {problem}")
        if self._updates is not None:
            found += [f"models: {problem}" for problem in self._updates.problems()]
        if self._control is not None and self._control.problem():
            found.append(self._control.problem())
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

        def open_log(draft: Draft, check: bool) -> EventLog:
            # One that was cut off is checked page by page, and until then nothing of it is sent.
            # The descriptor stays open to the end of the process, as it has to.
            if not check and path.with_name(f"{EVENTS_NAME}-wal").exists():
                read_through(path)
            # Only an uplink pins events: without one nobody will ever receipt them.
            pinned = self.config.mqtt.enabled
            return EventLog(path, draft, max_bytes=max_bytes, pinned=pinned, check=check)

        recorder = self._recorder = Recorder(open_log, stamps)
        self._stack.callback(recorder.close, CLOSE_S)
        return recorder


def _make_uplink(place: Place, guard: CrashGuard) -> MqttPart | None:
    """Raises what keeps it from being made; after starts that failed it is left out instead: a
    certificate that is gone must end neither the watch nor the siren."""
    try:
        # paho and TLS cost memory and time that a device without a broker need not spend.
        from edge_rt.runtime.compose_mqtt import MqttPart

        return MqttPart(place)
    except Exception as error:  # a library that is broken as well; it is raised or told
        if guard.mode is Mode.FULL:
            raise
        guard.leave_out("mqtt", in_words(error))
        return None


def _finish_restore(state: Path, guard: CrashGuard) -> None:
    """Raises StorageError; after starts that failed the daemon watches with what is in place."""
    try:
        finish_restore(state)
    except StorageError as error:
        if guard.mode is Mode.FULL:
            raise
        guard.leave_out("restore", str(error))


def _group_of(folder: Path) -> int:
    """The service's group may use the control socket."""
    return os.stat(folder).st_gid
