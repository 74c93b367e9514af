"""Outputs and buttons on the chip made of files: patterns, pulses, faults, hangs and the guard."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_rt.adapters.pins_model import ModelChip
from edge_rt.core.config import Config, parse_config
from edge_rt.core.errors import ConfigError, DaemonError, HardwareError
from edge_rt.core.pin_config import GpioButton, GpioLock
from edge_rt.core.pins import SIREN, STUCK_S, OutputLine
from edge_rt.core.turning import late
from edge_rt.runtime.acts import LATE_S, Line, PatternAct, PulseAct
from edge_rt.runtime.buttons import ButtonReader
from edge_rt.runtime.output import HANG_S, Output, Wish
from edge_rt.runtime.presence import Presence
from edge_rt.runtime.room import Room

PATIENCE_S = 30.0
PINS = """
[outputs]
siren = {driver = "gpio", line = 27}
lock = {driver = "gpio", line = 17, pulse_s = 0.2}
led = {driver = "gpio", line = 22}
[inputs]
cancel = {driver = "gpio", line = 5, hold_s = 0.5}
help = {driver = "gpio", line = 6}
"""


def wait(condition: Callable[[], Any]) -> Any:
    end_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.005)
    return found


class House:
    """A room, its files, and what its buttons brought about."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder / "pins"
        gpio = f'[gpio]\ndriver = "model"\nfolder = "{self.folder}"\n'
        self.problem = False
        self.config: Config = parse_config(gpio + text, "test")
        self.room = Room(self.config, lambda: self.problem)
        self.acted: list[str] = []
        self.refusing = False
        self.presence = Presence()
        self.told: list[tuple[str, dict[str, Any]]] = []

    def start(self) -> None:
        self.room.start()
        acts = {name: self._act(name) for name in ("cancel", "resolve", "help_now")}
        self.room.watch(acts, self.presence, self._announce)

    def _act(self, name: str) -> Callable[[], None]:
        def act() -> None:
            self.acted.append(name)
            if self.refusing:
                raise DaemonError("nothing to cancel")

        return act

    def _announce(self, kind: str, what: str, data: Mapping[str, Any]) -> None:
        assert kind == "device"
        self.told.append((what, dict(data)))

    def level(self, line: int) -> str:
        path = self.folder / str(line)
        return path.read_text().strip() if path.exists() else "absent"

    def seen(self, line: int, *levels: str) -> None:
        """Wait until the line has shown these levels, one after the other."""
        for level in levels:
            wait(lambda level=level: self.level(line) == level)

    def press(self, line: int, down: bool = True) -> None:
        new = self.folder / f".{line}.hand"
        new.write_text("1" if down else "0")
        os.replace(new, self.folder / str(line))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes a house and starts it; all of them end with the test."""
    begun: list[House] = []

    def make(text: str = PINS, start: bool = True) -> House:
        made = House(tmp_path, text)
        begun.append(made)
        if start:
            made.start()
        return made

    yield make
    for made in begun:
        made.room.close()


def test_all_is_at_rest_from_the_start_and_after_the_end(house: Callable[..., House]) -> None:
    made = house(start=False)
    made.folder.mkdir()
    for line in (17, 27, 22):
        (made.folder / str(line)).write_text("1")  # as a killed daemon left them
    made.start()
    made.seen(17, "0")
    made.seen(27, "0")
    made.room.sound("alarm")
    made.seen(27, "1")
    made.room.close()
    assert [made.level(line) for line in (17, 27, 22)] == ["0", "0", "0"]


def test_the_siren_follows_the_stages(house: Callable[..., House]) -> None:
    made = house()
    made.room.sound("prealarm")
    made.seen(27, "1", "0", "1")
    made.room.sound("alarm")
    made.room.sound("alarm")  # told twice: goes on, does not begin anew
    made.seen(27, "1", "0", "1")
    made.room.silence()
    made.seen(27, "0")
    assert made.room.status()["outputs"]["siren"] == {"state": "silent", "problem": ""}


def test_a_notice_is_one_short_sound_and_no_end_to_an_alarm(house: Callable[..., House]) -> None:
    made = house()
    made.room.notice()
    made.seen(27, "1", "0")
    made.room.sound("alarm")
    made.room.notice()
    assert made.room.status()["outputs"]["siren"]["state"] == "alarm"


def test_an_alarm_may_be_given_a_limit(house: Callable[..., House]) -> None:
    made = house(PINS.replace("line = 27", "line = 27, limit_s = 0.1"))
    made.room.sound("alarm")
    made.seen(27, "1", "0")
    time.sleep(1.2)  # longer than the pattern: it would have sounded again
    assert made.level(27) == "0"


def test_another_cause_sounds_an_alarm_again_that_was_over_its_limit(
    house: Callable[..., House],
) -> None:
    made = house(PINS.replace("line = 27", "line = 27, limit_s = 0.3"))
    made.room.sound("alarm")
    made.seen(27, "1", "0")
    time.sleep(0.4)
    made.room.sound("alarm")  # nobody has heard it, a second fall, another press
    made.seen(27, "1", "0")
    began_s = time.monotonic()
    while time.monotonic() < began_s + 1.0:  # and each one lets it sound for longer
        made.room.sound("alarm")
        time.sleep(0.02)
    made.seen(27, "1")


def test_the_led_shows_the_worst(house: Callable[..., House]) -> None:
    made = house()
    led = lambda: made.room.status()["outputs"]["led"]["state"]  # noqa: E731
    wait(lambda: led() == "ok")
    made.problem = True
    wait(lambda: led() == "problem")
    made.room.sound("prealarm")
    assert led() == "prealarm"
    made.room.silence()
    assert led() == "problem"


def test_a_lock_opens_for_its_pulse_only(house: Callable[..., House]) -> None:
    made = house()
    made.seen(17, "0")
    made.room.lock.pulse()
    made.seen(17, "1", "0")
    made.room.lock.pulse()
    made.seen(17, "1", "0")


def test_a_line_that_fails_is_told_and_works_again(house: Callable[..., House]) -> None:
    made = house()
    wait(lambda: made.level(27) == "0")
    os.rename(made.folder, made.folder.with_name("gone"))
    made.folder.write_text("in the way")
    made.room.sound("alarm")
    wait(lambda: [p for p in made.room.problems() if p.startswith("siren: ") and "gpio.f" in p])
    wait(lambda: len(made.told) == 2)  # both buttons
    assert {what for what, _ in made.told} == {"sensor_lost"}
    made.folder.unlink()
    made.seen(27, "1", "0", "1")
    wait(lambda: not made.room.problems())
    wait(lambda: len(made.told) == 4)
    assert {data["sensor"] for _, data in made.told} == {"button_cancel", "button_help"}


def test_a_lock_that_could_not_open_does_not_open_later(house: Callable[..., House]) -> None:
    made = house(PINS.replace("0.2", "10.0"))
    wait(lambda: made.level(17) == "0")
    os.rename(made.folder, made.folder.with_name("gone"))
    made.folder.write_text("in the way")
    made.room.lock.pulse()
    wait(lambda: made.room.status()["outputs"]["lock"]["problem"])
    made.folder.unlink()
    wait(lambda: not made.room.status()["outputs"]["lock"]["problem"])
    assert made.level(17) == "0"


# ---- hangs ----


class Stuck:
    """A line that switches and then hangs in the driver, until it is let go."""

    def __init__(self) -> None:
        self.on = False
        self.go = threading.Event()

    def output(self, line: int, active_low: bool, user: str) -> OutputLine:
        return self

    def input(self, settings: object, user: str) -> Any:
        raise AssertionError("has no inputs")

    def set(self, on: bool) -> None:
        self.on = on
        if on:
            self.go.wait(10 * PATIENCE_S)

    def close(self) -> None:
        self.on = False


def test_the_guard_closes_a_lock_whose_thread_hangs() -> None:
    chip = Stuck()
    act = PulseAct(Line(lambda: chip, 17, False, "lock"), GpioLock(line=17, pulse_s=0.1), _now)
    lock = Output("lock", act, "closed", _now)
    lock.start()
    began_s = time.monotonic()
    lock.wish("open", again=True)
    assert time.monotonic() - began_s < 1.0  # who wishes does not wait
    wait(lambda: chip.on)
    lock.guard()
    assert chip.on  # its time is not over
    wait(lambda: lock.guard() or not chip.on)
    assert time.monotonic() - began_s >= 0.1
    chip.go.set()
    lock.close()
    assert not chip.on


def test_a_wish_told_twice_does_not_begin_anew() -> None:
    chip = Stuck()
    siren = Output(
        "siren", PatternAct(Line(lambda: chip, 27, False, "siren"), SIREN), "silent", _now
    )
    assert [siren.wish(stage) for stage in ("silent", "alarm", "alarm", "silent")] == [0, 1, 1, 2]
    assert siren.wish("silent", again=True) == 3


def test_a_pulse_that_comes_too_late_is_not_given() -> None:
    chip, now_s = Stuck(), [0.0]
    chip.go.set()
    act = PulseAct(
        Line(lambda: chip, 17, False, "lock"), GpioLock(line=17, pulse_s=5.0), lambda: now_s[0]
    )
    changed = threading.Event()
    assert act.step(Wish("open", 0.0, 1), LATE_S + 0.1, changed) == math.inf
    assert not chip.on
    assert act.step(Wish("open", 2.0, 2), 2.0 + LATE_S, changed) > 0.0
    assert chip.on


def test_a_hanging_siren_keeps_nobody_waiting() -> None:
    chip, now_s = Stuck(), [0.0]
    siren = Output(
        "siren",
        PatternAct(Line(lambda: chip, 27, False, "siren"), SIREN),
        "silent",
        lambda: now_s[0],
    )
    siren.start()
    siren.wish("alarm")
    wait(lambda: chip.on)
    began_s = time.monotonic()
    for k in range(10_000):
        siren.wish(("prealarm", "alarm")[k % 2])
    siren.wish("silent")
    assert time.monotonic() - began_s < 5.0
    assert siren.wait(10_002, 0.0) == "siren: does not react"
    assert siren.problem() == ""  # not yet
    now_s[0] += HANG_S + 1.0
    assert siren.problem() == "siren: hangs for 6 s"
    chip.go.set()
    assert siren.wait(10_002, PATIENCE_S) == "" and siren.problem() == ""
    wait(lambda: not chip.on)  # the newest wish, not the ten thousand before
    siren.close()


def test_how_long_an_output_hangs_is_told_once_it_has_worked() -> None:
    chip, now_s = Stuck(), [0.0]
    act = PatternAct(Line(lambda: chip, 27, False, "siren"), SIREN)
    siren = Output("siren", act, "silent", lambda: now_s[0], step_s=60.0)
    siren.start()
    assert siren.wait(0, PATIENCE_S) == ""
    now_s[0] += 1000.0
    assert siren.stuck_s() == 0.0  # it rests
    siren.wish("alarm")
    wait(lambda: chip.on)
    now_s[0] += 60.0
    assert siren.stuck_s() == 0.0  # a program may take so long
    now_s[0] += 7.0
    assert siren.stuck_s() == 7.0
    chip.go.set()
    assert siren.wait(1, PATIENCE_S) == ""
    wait(lambda: siren.stuck_s() == 0.0)
    siren.close()

    # What hangs from the start would hang in the next process, too: no reason to end this one.
    hopeless = Output("siren", act, "alarm", lambda: now_s[0])
    chip.go.clear()
    chip.on = False
    hopeless.start()
    wait(lambda: chip.on)
    now_s[0] += 1000.0
    assert hopeless.stuck_s() == 0.0 and hopeless.problem() == "siren: hangs for 1000 s"
    chip.go.set()
    hopeless.close()


class StuckButton:
    """A button whose line can be read `reads` times, and then hangs in the driver."""

    def __init__(self, reads: int) -> None:
        self.left = reads
        self.hangs, self.go = threading.Event(), threading.Event()

    def output(self, line: int, active_low: bool, user: str) -> OutputLine:
        raise AssertionError("has no outputs")

    def input(self, settings: object, user: str) -> Any:
        return self

    def level(self) -> bool:
        self.left -= 1
        if self.left < 0:
            self.hangs.set()
            self.go.wait(10 * PATIENCE_S)
        return False

    def edges(self, timeout_s: float) -> list[Any]:
        return []

    def close(self) -> None: ...


@pytest.mark.parametrize(("reads", "stuck_s"), [(10, 50.0), (0, 0.0)])
def test_how_long_a_button_hangs_is_told_once_it_has_worked(reads: int, stuck_s: float) -> None:
    chip, now_s = StuckButton(reads), [0.0]
    config = GpioButton(line=5)
    button = ButtonReader(
        *("cancel", config, lambda: chip, {}, Presence(), lambda kind, what, data: None),
        monotonic=lambda: now_s[0],
    )
    button.start()
    assert chip.hangs.wait(PATIENCE_S)
    now_s[0] += 50.0
    assert button.stuck_s() == stuck_s
    chip.go.set()
    button.close()


def test_each_thread_of_the_room_has_its_patience_but_the_light(
    house: Callable[..., House],
) -> None:
    stuck = house().room.stuck_s()
    assert set(stuck) == {"siren", "lock", "cancel button", "help button", "outputs"}
    assert late(stuck) == []
    assert house("", start=False).room.stuck_s() == {}


def _now() -> float:
    return time.monotonic()


# ---- programs ----


def test_a_siren_of_programs(house: Callable[..., House], tmp_path: Path) -> None:
    def says(word: str) -> str:
        return f'["/bin/sh", "-c", "echo {word} >>{tmp_path}/said; sleep 600"]'

    made = house(
        f"""
        [outputs.siren]
        driver = "command"
        prealarm = {says("ask")}
        alarm = {says("call")}
        silence = ["/bin/sh", "-c", "echo hush >>{tmp_path}/said"]
        """
    )

    def said() -> list[str]:
        path = tmp_path / "said"
        return path.read_text().split() if path.exists() else []

    wait(lambda: said() == ["hush"])  # known from the start
    made.room.sound("prealarm")
    wait(lambda: said()[-1] == "ask")
    made.room.sound("alarm")  # does not wait for the ten minutes
    wait(lambda: said()[-1] == "call")
    made.room.silence()
    wait(lambda: said() == ["hush", "ask", "call", "hush"])


@pytest.mark.parametrize("what", ["notice", "test"])
def test_a_siren_of_programs_is_hushed_after_a_short_sound(
    house: Callable[..., House], tmp_path: Path, what: str
) -> None:
    loud = f'["/bin/sh", "-c", "echo ask >>{tmp_path}/said"]'
    quiet = f'["/bin/sh", "-c", "echo hush >>{tmp_path}/said"]'
    made = house(
        f'[outputs]\nsiren = {{driver = "command", prealarm = {loud}, alarm = {loud},'
        f" silence = {quiet}}}"
    )
    said = lambda: (tmp_path / "said").read_text().split()  # noqa: E731
    wait(lambda: (tmp_path / "said").exists() and said() == ["hush"])
    if what == "test":
        made.room.exercise("siren")
    else:
        made.room.notice()
    wait(lambda: said() == ["hush", "ask", "hush"])


def test_a_second_cause_starts_no_second_program(
    house: Callable[..., House], tmp_path: Path
) -> None:
    call = f'["/bin/sh", "-c", "echo x >>{tmp_path}/runs; sleep 600"]'
    made = house(f'[outputs]\nsiren = {{driver = "command", prealarm = {call}, alarm = {call}}}')
    made.room.sound("alarm")
    wait(lambda: (tmp_path / "runs").exists())
    for _ in range(5):
        made.room.sound("alarm")
        time.sleep(0.1)
    assert (tmp_path / "runs").read_text() == "x\n"


def test_an_alarm_starts_its_program_again(house: Callable[..., House], tmp_path: Path) -> None:
    count = f'["/bin/sh", "-c", "echo x >>{tmp_path}/runs"]'
    made = house(f'[outputs]\nsiren = {{driver = "command", prealarm = {count}, alarm = {count}}}')
    made.room.sound("alarm")
    wait(lambda: (tmp_path / "runs").exists() and len((tmp_path / "runs").read_text()) >= 4)


def test_a_program_that_fails_is_a_problem(house: Callable[..., House]) -> None:
    bad = '["/bin/false"]'
    made = house(f'[outputs]\nsiren = {{driver = "command", prealarm = {bad}, alarm = {bad}}}')
    made.room.sound("alarm")
    wait(lambda: made.room.problems() == ["siren: /bin/false ended with code 1; try it by hand"])


def test_a_lock_program_runs_once_a_pulse(house: Callable[..., House], tmp_path: Path) -> None:
    count = f'["/bin/sh", "-c", "echo x >>{tmp_path}/runs; sleep 0.3"]'
    made = house(f'[outputs]\nlock = {{driver = "command", pulse = {count}}}')
    made.room.lock.pulse()
    wait(lambda: (tmp_path / "runs").exists())
    for _ in range(20):  # while it runs
        made.room.lock.pulse()
        time.sleep(0.005)
    time.sleep(1.0)
    assert (tmp_path / "runs").read_text() == "x\n"  # a door does not open once more, later
    made.room.lock.pulse()
    wait(lambda: (tmp_path / "runs").read_text() == "x\nx\n")


def test_a_lock_program_ends_with_the_daemon(house: Callable[..., House], tmp_path: Path) -> None:
    opens = f'["/bin/sh", "-c", "echo $$ >{tmp_path}/pid; exec sleep 600"]'
    made = house(f'[outputs]\nlock = {{driver = "command", pulse = {opens}, limit_s = 60}}')
    made.room.lock.pulse()
    pid = int(wait(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    began_s = time.monotonic()
    made.room.close()
    assert time.monotonic() - began_s < 5.0
    wait(lambda: not Path(f"/proc/{pid}").exists())
    assert made.room.left_on() == []


# ---- buttons ----


def test_one_press_one_command(house: Callable[..., House]) -> None:
    made = house()
    wait(lambda: made.room.status()["buttons"]["help"]["hand"] == "away")
    there: list[bool] = []
    waiting = threading.Thread(target=lambda: there.append(made.presence.wait(PATIENCE_S)))
    waiting.start()
    made.press(6)
    wait(lambda: made.acted == ["help_now"])
    waiting.join(PATIENCE_S)
    assert there == [True]
    made.press(6, False)
    wait(lambda: made.room.status()["buttons"]["help"]["hand"] == "away")
    assert made.acted == ["help_now"]
    assert made.room.status()["buttons"]["help"]["presses"] == 1


def test_help_that_was_pressed_while_nobody_watched_is_heard(house: Callable[..., House]) -> None:
    made = house(start=False)
    made.folder.mkdir()
    made.press(5)
    made.press(6)  # during a restart, and held
    made.start()
    hands = lambda: {n: b["hand"] for n, b in made.room.status()["buttons"].items()}  # noqa: E731
    wait(lambda: hands() == {"cancel": "found", "help": "found"})
    assert made.acted == []
    made.press(5, False)
    made.press(6, False)
    wait(lambda: hands() == {"cancel": "away", "help": "away"})
    wait(lambda: made.acted == ["help_now"])  # what the other would cancel nobody can know


def test_cancel_is_a_press_and_resolve_a_hold(house: Callable[..., House]) -> None:
    made = house()
    made.refusing = True  # there is nothing to cancel: a press is never an offence
    wait(lambda: made.room.status()["buttons"]["cancel"]["hand"] == "away")
    made.press(5)
    wait(lambda: made.acted == ["cancel", "resolve"])
    made.press(5, False)
    wait(lambda: made.room.status()["buttons"]["cancel"]["hand"] == "away")
    assert made.room.problems() == []


def test_a_jammed_button_is_an_event(tmp_path: Path) -> None:
    made = House(tmp_path, PINS)
    clock = [0.0]
    chip = ModelChip(made.folder, lambda: clock[0])
    button = made.config.inputs.help
    reader = ButtonReader(
        "help", button, lambda: chip, {}, made.presence, made._announce, lambda: clock[0]
    )
    made.folder.mkdir()
    made.press(6)
    reader.start()
    wait(lambda: reader.status()["hand"] in ("unknown", "found"))
    for _ in range(200):  # its own time, in steps: it reads the level every half second of ours
        clock[0] += STUCK_S
        if made.told:
            break
        time.sleep(0.05)
    assert made.told[0][0] == "sensor_lost" and "pinched" in made.told[0][1]["detail"]
    assert "button help" in reader.problem()
    made.press(6, False)
    for _ in range(200):
        clock[0] += 1.0
        if len(made.told) == 2:
            break
        time.sleep(0.05)
    assert made.told[1] == ("sensor_back", {"sensor": "button_help"})
    reader.close()


class Unread:
    """A chip whose inputs open, and fail when they are read until that is mended."""

    def __init__(self) -> None:
        self.opened, self.works = 0, False

    def output(self, line: int, active_low: bool, user: str) -> OutputLine:
        raise AssertionError("has no outputs")

    def input(self, settings: object, user: str) -> Any:
        self.opened += 1
        return self

    def level(self) -> bool:
        if not self.works:
            raise HardwareError("line 6: Input/output error; see gpioinfo")
        return False

    def edges(self, timeout_s: float) -> list[Any]:
        time.sleep(0.05)
        return []

    def close(self) -> None: ...


def test_a_line_that_opens_but_cannot_be_read_is_told_once() -> None:
    chip = Unread()
    told: list[str] = []
    button = ButtonReader(
        *("help", GpioButton(line=6), lambda: chip, {}, Presence()),
        lambda kind, what, data: told.append(what),
    )
    button.start()
    time.sleep(4.0)
    assert told == ["sensor_lost"] and chip.opened <= 6  # ever more seldom
    chip.works = True
    wait(lambda: told == ["sensor_lost", "sensor_back"])
    assert button.problem() == ""
    button.close()


def test_a_contact_that_chatters_is_an_event(house: Callable[..., House]) -> None:
    # A test that is held up must not look like a contact that comes to rest.
    made = house(PINS.replace("line = 6", "line = 6, debounce_ms = 200"))
    wait(lambda: made.room.status()["buttons"]["help"]["hand"] == "away")
    end_s = time.monotonic() + PATIENCE_S
    down = False
    while not made.told and time.monotonic() < end_s:
        down = not down
        made.press(6, down)
        time.sleep(0.012)
    assert made.told[0][0] == "sensor_lost" and "never comes to rest" in made.told[0][1]["detail"]
    assert "button help" in made.room.problems()[0]
    made.press(6, False)
    wait(lambda: [what for what, _ in made.told] == ["sensor_lost", "sensor_back"])


def test_a_press_that_fails_is_an_error_in_the_log(
    house: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    made = house()
    made.refusing = True
    wait(lambda: made.room.status()["buttons"]["help"]["hand"] == "away")
    made.press(6)
    wait(lambda: any("help_now failed" in r.message for r in caplog.records))
    assert {r.levelname for r in caplog.records if "help_now" in r.message} == {"ERROR"}


# ---- trying it out ----


def test_outputs_are_tried(house: Callable[..., House]) -> None:
    made = house()
    assert made.room.items() == ["siren", "lock", "led", "cancel", "help"]
    assert made.room.exercise("siren") == {"tried": "siren"}
    made.seen(27, "1", "0")
    assert made.room.exercise("lock") == {"tried": "lock"}
    made.seen(17, "1", "0")
    assert made.room.exercise("led") == {"tried": "led"}
    made.seen(22, "1", "0")
    with pytest.raises(ConfigError, match="to be tried: siren, lock, led, cancel, help"):
        made.room.exercise("horn")


def test_an_alarm_is_not_disturbed_by_a_try(house: Callable[..., House]) -> None:
    made = house()
    made.room.sound("prealarm")
    with pytest.raises(DaemonError, match="the prealarm comes first"):
        made.room.exercise("siren")
    assert made.room.status()["outputs"]["siren"]["state"] == "prealarm"


def test_a_press_that_is_asked_for_does_nothing_else(house: Callable[..., House]) -> None:
    made = house()
    wait(lambda: made.room.status()["buttons"]["help"]["hand"] == "away")
    answer: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answer.append(made.room.exercise("help")))
    asking.start()
    wait(lambda: made.room._buttons[1]._trial is not None)
    made.press(6)
    asking.join(PATIENCE_S)
    assert answer == [{"pressed": "help"}] and made.acted == []
    made.press(6, False)
    wait(lambda: made.room.status()["buttons"]["help"]["hand"] == "away")
    made.press(6)
    wait(lambda: made.acted == ["help_now"])  # and the next one counts


def test_in_an_alarm_a_press_counts_even_if_it_was_asked_for(house: Callable[..., House]) -> None:
    made = house()
    wait(lambda: made.room.status()["buttons"]["cancel"]["hand"] == "away")
    answer: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answer.append(made.room.exercise("cancel")))
    asking.start()
    wait(lambda: made.room._buttons[0]._trial is not None)
    made.room.sound("prealarm")  # a fall while somebody tries the buttons
    made.press(5)
    asking.join(PATIENCE_S)
    assert answer == [{"pressed": "cancel"}]
    wait(lambda: made.acted[:1] == ["cancel"])


def test_an_output_that_does_not_work_is_said_so(house: Callable[..., House]) -> None:
    made = house()
    wait(lambda: made.level(27) == "0")
    os.rename(made.folder, made.folder.with_name("gone"))
    made.folder.write_text("in the way")
    with pytest.raises(HardwareError, match=r"gpio\.folder"):
        made.room.exercise("siren")


def test_a_help_button_that_would_call_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"test: inputs\.help calls nobody .*set that to true"):
        parse_config(PINS + "[falls]\nenabled = false\n", "test")
    parse_config(PINS.replace("help", "#help") + "[falls]\nenabled = false\n", "test")


def test_two_uses_of_one_line_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"outputs\.siren and inputs\.help share line 27"):
        parse_config(PINS.replace("line = 6", "line = 27"), "test")
