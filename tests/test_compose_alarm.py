"""The alarm without models: what a crash loop must not take from a wearer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.eventreader import EventReader
from edge_rt.core.config import AlarmConfig, Config, FallConfig, RuntimeConfig
from edge_rt.core.crash_loop import ALARM_DELAY_S, SPARE_AT
from edge_rt.core.errors import ConfigError
from edge_rt.core.fall import AlarmMachine, Event, FallRules
from edge_rt.core.hop import Hop
from edge_rt.core.pin_config import GpioButton, GpioSiren, InputConfig, ModelChip, OutputConfig
from edge_rt.runtime.compose import Place
from edge_rt.runtime.compose_alarm import Alarm, make_alarm
from edge_rt.runtime.crash_guard import CrashGuard
from edge_rt.runtime.daemon import Daemon
from edge_rt.runtime.early_calls import unheard
from edge_rt.runtime.fall_memory import FallMemory, open_stage
from edge_rt.runtime.places import EVENTS_NAME, FALL_NAME
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps

PATIENCE_S = 60.0
BOOT = "01234567-89ab-cdef-0123-456789abcdef"


class Room:
    """Siren and lock that keep what they were told."""

    name = "kept"

    def __init__(self) -> None:
        self.told: list[str] = []

    def sound(self, stage: str) -> None:
        self.told.append(stage)

    def silence(self) -> None:
        self.told.append("silent")

    def notice(self) -> None: ...

    def pulse(self) -> None: ...


class House:
    """A state folder and the room around it."""

    def __init__(self, folder: Path, alarm: AlarmConfig) -> None:
        self.folder, self.room = folder, Room()
        self.recorder = Recorder(
            lambda draft, check: EventLog(folder / EVENTS_NAME, draft, check=check),
            Stamps("edge-rt/home/one", BOOT),
        )
        config = Config(falls=FallConfig(enabled=False, bundle="gone", alarm=alarm))
        self.place = Place(config, folder, BOOT, self.recorder, self.room, self.room)
        self.alarm: Alarm | None = None

    def begin(self) -> Alarm:
        self.alarm = make_alarm(self.place, None)
        self.alarm.service.start()
        return self.alarm

    def close(self) -> None:
        if self.alarm is not None:
            self.alarm.service.close()
            self.alarm.memory.close()
        self.recorder.close(5.0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(**alarm: Any) -> House:
        made.append(House(tmp_path, AlarmConfig(**alarm)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def until(condition: Callable[[], Any], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain for {what}"
        time.sleep(0.01)


def fallen(folder: Path, in_window_s: float) -> None:
    """What a daemon leaves that was killed so long after a fall."""
    rules = FallRules(threshold=0.0, suspicion=-2.0, window_s=1.0, clear_s=1.5)
    machine = AlarmMachine(rules, lambda: "an id")
    machine.step(Hop(1.0, 3.0, 3.0, 4.0, 0.2, (0.0, 0.0, 1.0)))
    machine.tick(1.0 + in_window_s)
    assert machine.state == "prealarm"
    memory = FallMemory(folder, BOOT, time.monotonic)
    memory.save(machine.save())
    memory.close()


def test_a_window_that_was_open_runs_out_without_samples(
    tmp_path: Path, house: Callable[..., House]
) -> None:
    fallen(tmp_path, 4.0)
    home = house(cancel_window_s=5.0)
    service = home.begin().service
    assert home.room.told[0] == "prealarm"
    until(lambda: service.alarm_state() == ("alarm", "an id"), "the alarm")
    until(lambda: home.room.told[-1] == "alarm", "the siren")
    service.command(Event.RESOLVE, "test")
    until(lambda: home.room.told[-1] == "silent", "silence")


def test_what_it_decides_is_remembered(tmp_path: Path, house: Callable[..., House]) -> None:
    first = house()
    service = first.begin().service
    service.command(Event.HELP, "test")
    incident = service.alarm_state()[1]
    until(lambda: first.room.told[-1] == "alarm", "the siren")
    first.close()
    again = house()
    assert again.begin().service.alarm_state() == ("alarm", incident)
    assert again.room.told == ["alarm"]


def test_another_call_in_an_open_alarm_is_another_cause_to_sound(
    house: Callable[..., House],
) -> None:
    home = house()
    service = home.begin().service
    service.command(Event.HELP, "test")
    until(lambda: home.room.told[-1] == "alarm", "the siren")
    count = len(home.room.told)
    service.command(Event.HELP, "test")
    assert home.room.told[count:] == ["alarm"]


def test_an_open_incident_is_seen_before_anything_else_is_opened(tmp_path: Path) -> None:
    assert open_stage(tmp_path) == ""
    fallen(tmp_path, 4.0)
    assert open_stage(tmp_path) == "prealarm"
    (tmp_path / FALL_NAME).write_bytes(b"torn")
    assert open_stage(tmp_path) is None
    rules = FallRules(threshold=0.0, suspicion=-2.0, window_s=1.0, clear_s=1.5)
    machine = AlarmMachine(rules, lambda: "an id")
    memory = FallMemory(tmp_path, BOOT, time.monotonic)
    memory.save(machine.save())
    memory.close()
    assert open_stage(tmp_path) == ""


@pytest.mark.parametrize("watched", [True, False])
def test_an_open_incident_sounds_before_what_may_fail(tmp_path: Path, watched: bool) -> None:
    """In the wait after failed starts already; not where nobody would ever silence it."""
    pins = tmp_path / "pins"
    config = Config(
        falls=FallConfig(enabled=watched, bundle=str(tmp_path / "gone")),
        gpio=ModelChip(folder=str(pins)),
        outputs=OutputConfig(siren=GpioSiren(line=27)),
        runtime=RuntimeConfig(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path)),
    )
    (tmp_path / "state").mkdir(mode=0o700)
    fallen(tmp_path / "state", 4.0)
    for _ in range(SPARE_AT):
        CrashGuard(tmp_path / "state", config).begin()
    heard: list[bool] = []

    def listen(wait_s: float) -> None:
        end_s = time.monotonic() + (PATIENCE_S if watched else 1.0)
        loud = False
        while not loud and time.monotonic() < end_s:
            loud = (pins / "27").exists() and (pins / "27").read_text().strip() == "1"
            time.sleep(0.01)
        heard.append(loud)

    daemon = Daemon(config)
    try:
        daemon.begin()
        daemon.start(pause=listen)
    finally:
        daemon.close()
    assert heard == [watched]
    assert (pins / "27").read_text().strip() == "0"


class Starting:
    """A daemon that waits first, after starts that failed; somebody presses help meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.state, self.pins = folder / "state", folder / "pins"
        self.config = Config(
            gpio=ModelChip(folder=str(self.pins)),
            outputs=OutputConfig(siren=GpioSiren(line=27)),
            inputs=InputConfig(help=GpioButton(line=6)),
            runtime=RuntimeConfig(state_dir=str(self.state), run_dir=str(folder)),
        )
        self.state.mkdir(mode=0o700)
        for _ in range(3):
            CrashGuard(self.state, self.config).begin()

    def loud(self) -> bool:
        siren = self.pins / "27"
        return siren.exists() and siren.read_text().strip() == "1"

    def press(self, wait_s: float) -> None:
        until(lambda: (self.pins / "6").exists(), "the button to be watched")
        time.sleep(0.2)
        (self.pins / "6").write_text("1")
        time.sleep(0.3)  # a finger; the siren may sound already
        until(self.loud, "the siren")
        (self.pins / "6").write_text("0")

    def press_in_vain(self, wait_s: float) -> None:
        self.press(wait_s)
        raise ConfigError("nothing comes of this start")

    def is_an_alarm(self, daemon: Daemon) -> str:
        """Its incident."""
        until(lambda: daemon.status()["falls"]["state"] == "alarm", "the alarm's state")
        until(self.loud, "the siren")
        time.sleep(0.5)
        assert self.loud(), "silenced"
        return str(daemon.status()["falls"]["incident"])


@pytest.fixture
def starting(tmp_path: Path, factory_bundle: Callable[[str], Path]) -> Starting:
    factory_bundle("fall-waist")
    return Starting(tmp_path)


@pytest.mark.parametrize("log", ["well", "failing"])
def test_help_that_is_called_for_in_a_start_that_fails_is_an_alarm_of_the_next(
    starting: Starting, log: str
) -> None:
    if log == "failing":
        (starting.state / EVENTS_NAME).mkdir()
    daemon = Daemon(starting.config)
    try:
        assert daemon.begin() is False  # not in the full mode any more
        with pytest.raises(ConfigError):
            daemon.start(pause=starting.press_in_vain)
    finally:
        daemon.close()
    daemon = Daemon(starting.config)
    waits: list[tuple[float, bool]] = []
    try:
        daemon.begin()
        daemon.start(pause=lambda wait_s: waits.append((wait_s, starting.loud())))
        assert [loud for _, loud in waits] == [True] and waits[0][0] <= ALARM_DELAY_S
        starting.is_an_alarm(daemon)
    finally:
        daemon.close()
    daemon = Daemon(starting.config)  # heard once, it is the saved state's affair
    try:
        daemon.begin()
        assert not unheard(starting.state.parent)
    finally:
        daemon.close()


def test_help_that_is_called_for_while_the_log_fails_is_an_alarm(starting: Starting) -> None:
    (starting.state / EVENTS_NAME).mkdir()
    daemon = Daemon(starting.config)
    try:
        daemon.begin()
        daemon.start(pause=starting.press)
        starting.is_an_alarm(daemon)
    finally:
        daemon.close()


def test_help_that_is_called_for_over_an_alarm_that_has_ended_is_another(
    starting: Starting,
) -> None:
    """The power went between the log's "resolved" and the saved state."""
    home = House(starting.state, AlarmConfig())
    service = home.begin().service
    service.command(Event.HELP, by="test")
    ended = service.alarm_state()[1]
    home.close()
    again = House(starting.state, AlarmConfig())
    again.recorder.announce("fall", "resolved", {"incident": ended}).result(PATIENCE_S)
    again.close()
    assert open_stage(starting.state) == "alarm"
    daemon = Daemon(starting.config)
    try:
        daemon.begin()
        daemon.start(pause=starting.press)
        assert starting.is_an_alarm(daemon) != ended
    finally:
        daemon.close()


def test_help_that_is_called_for_during_a_start_is_an_alarm(starting: Starting) -> None:
    """Also in the wait after failed starts."""
    daemon = Daemon(starting.config)
    try:
        daemon.begin()
        daemon.start(pause=starting.press)
        starting.is_an_alarm(daemon)
    finally:
        daemon.close()
    reader = EventReader(starting.state / EVENTS_NAME)
    told = [s.event for s in reader.read(0, 100) if s.event.kind == "fall"]
    reader.close()
    assert [event.what for event in told] == ["alarm"]
    assert told[0].data["why"]["fault"] == "edge-rt is starting"


def test_what_the_log_corrects_is_kept(tmp_path: Path, house: Callable[..., House]) -> None:
    """The next start may find the log slow, or gone."""
    first = house()
    incident = uuid.uuid4().hex
    first.recorder.announce("fall", "alarm", {"incident": incident}).result(PATIENCE_S)
    assert first.begin().service.alarm_state() == ("alarm", incident)
    first.close()
    for log in tmp_path.glob(f"{EVENTS_NAME}*"):
        log.unlink()
    again = house()
    assert again.begin().service.alarm_state() == ("alarm", incident)


def test_no_sensor_is_missed_and_no_bundle_looked_for(house: Callable[..., House]) -> None:
    home = house()
    service = home.begin().service
    until(service.watches, "a turn")
    status = service.status()
    assert (status["state"], status["sensor"], status["problem"]) == ("monitoring", "off", "")
    assert service.totals().signal["gaps"] == 0 and service.restart()["state"] == "monitoring"


def test_a_wrong_pair_of_windows_does_not_end_this_start_too(house: Callable[..., House]) -> None:
    assert house(cancel_window_s=5.0, escalated_window_s=60.0).begin().service.status()
