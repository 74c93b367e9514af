"""Runs inside the virtual machine of scripts/test-vm, as root, in the environment under /opt.

    vm_guest.py devices     the installed service on the kernel's devices
    vm_guest.py writing N   an event log and model slots, checked and then written until the plug is
                            pulled; N: the first number to write

Writes a line of JSON to /share/results for each thing that held. /share is the other machine's:
what it holds stays, whatever happens to this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from smbus2 import SMBus

from edge_rt.adapters.bundle_files import read_bundle, write_manifest
from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.eventreader import EventReader, check_database
from edge_rt.adapters.slots import Slots
from edge_rt.core import mpu6050 as chip
from edge_rt.core.errors import DaemonError, StorageError
from edge_rt.core.toml import write_toml
from edge_rt.core.wire import Lane, lane_of
from edge_rt.runtime.client import Client
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps

SHARE, STATE, CONFIG = Path("/share"), Path("/var/lib/edge-rt"), Path("/etc/edge-rt/config.toml")
UNIT, UNIT_FILE = "edge-rt.service", Path("/etc/systemd/system/edge-rt.service")
VIVID = Path("/sys/bus/platform/drivers/vivid")
PATIENCE_S = 240.0  # an emulated processor on a busy machine; waits end when their condition holds
ABSENT_S = 5.0  # longer than the daemon waits before it looks again
RATE_HZ = 50.0
LSB_PER_G = 2048  # at the range of 16 g, which both drivers are told to use

Event = dict[str, Any]


# ---- what the tests say ----


def held(what: str, **figures: Any) -> None:
    """To the other machine, at once."""
    line = json.dumps({"what": what, "uptime_s": round(time.monotonic(), 1), **figures})
    with open(SHARE / "results", "a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def run(*command: str, timeout_s: float = PATIENCE_S) -> str:
    """What a program said, which has to succeed."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` returns once that is true."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"waited in vain for {what}"
        time.sleep(0.1)
    return found


def journal() -> str:
    return run("journalctl", "-u", UNIT, "-n", "60", "--no-pager", "-o", "short-monotonic")


# ---- the chip ----


class Chip:
    """Moves the registers of an MPU-6050 as a wearer would: still, and a fall when told."""

    def __init__(self, fall: np.ndarray[Any, np.dtype[np.int16]]) -> None:
        self._fall = fall
        self._place = 0
        self._falling = False
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self.number = 0

    def appear(self) -> None:
        """The bus with the chip on it, as after power-on."""
        run("modprobe", "i2c-stub", f"chip_addr=0x{chip.ADDRESS:02x}")
        run("udevadm", "settle")
        (self.number,) = (
            int(path.parent.name.removeprefix("i2c-"))
            for path in Path("/sys/bus/i2c/devices").glob("i2c-*/name")
            if path.read_text().startswith("SMBus stub")
        )
        self._place, self._falling = 0, False
        self._stop = threading.Event()
        bus = SMBus(self.number, force=True)  # also beside a driver of the kernel
        bus.write_byte_data(chip.ADDRESS, chip.WHO_AM_I, chip.IDENTITY)
        bus.write_byte_data(chip.ADDRESS, chip.PWR_MGMT_1, chip.ASLEEP)
        self._thread = threading.Thread(target=self._move, args=(bus, self._stop))
        self._thread.start()

    def fall(self) -> None:
        """From the beginning of the recording."""
        self._place, self._falling = 0, True

    def mute(self) -> None:
        """Without power: no register holds anything."""
        self._end()
        with SMBus(self.number, force=True) as bus:
            for register in (chip.WHO_AM_I, chip.PWR_MGMT_1, chip.ACCEL_CONFIG, chip.CONFIG):
                bus.write_byte_data(chip.ADDRESS, register, 0)

    def vanish(self) -> None:
        """With its bus, as soon as nobody has that open."""
        self._end()
        command = ["rmmod", "i2c_stub"]
        quiet = subprocess.DEVNULL
        wait(lambda: subprocess.run(command, stderr=quiet).returncode == 0, "the bus to be free")

    def _end(self) -> None:
        if self._stop is not None and self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._stop = self._thread = None

    def _move(self, bus: SMBus, stop: threading.Event) -> None:
        """Half a second of the recording's beginning or end, over and over, is holding still."""
        still = round(0.5 * RATE_HZ)
        due_s = time.monotonic()
        with bus:
            while not stop.is_set():
                words = self._fall[self._place]
                bus.write_i2c_block_data(
                    chip.ADDRESS, chip.ACCEL_XOUT_H, list(words.astype(">i2").tobytes())
                )
                self._place += 1
                if not self._falling and self._place >= still:
                    self._place = 0
                elif self._place >= len(self._fall):
                    self._place -= still
                due_s = max(due_s + 1 / RATE_HZ, time.monotonic() - 1 / RATE_HZ)
                stop.wait(max(0.0, due_s - time.monotonic()))


# ---- the daemon ----


def events() -> list[Event]:
    with Client(Path("/run/edge-rt")) as client:
        return list(client.stream("events", limit=10_000))


def status() -> dict[str, Any]:
    with Client(Path("/run/edge-rt")) as client:
        return client.call("status")


def call(command: str, **arguments: Any) -> None:
    with Client(Path("/run/edge-rt")) as client:
        client.call(command, **arguments)


def seen(after: int, kind: str, sensor: str = "") -> Event | None:
    """The first such event behind a sequence number."""
    for event in events():
        fits = int(event["sequence"]) > after and event["type"] == f"edge_rt.{kind}"
        if fits and sensor in ("", event["data"].get("sensor")):
            return event
    return None


def last() -> int:
    return max((int(event["sequence"]) for event in events()), default=0)


def sensor_is(state: str) -> bool:
    return bool(status()["falls"]["sensor"] == state)


def configure(source: dict[str, Any], faces: bool = False) -> None:
    CONFIG.parent.mkdir(exist_ok=True)
    camera = {"driver": "opencv", "device": "/dev/video0", "width": 320, "height": 180}
    config = {
        "falls": {
            "source": {**source, "rate_hz": RATE_HZ},
            "alarm": {"cancel_window_s": 5.0, "escalated_window_s": 5.0},
        },
        "faces": {
            # A slow processor is no hanging worker.
            **{"enabled": faces, "threads": 1, "hang_s": 30.0},
            "camera": {**camera, "rate_hz": 5.0, "format": "YUYV"},
        },
    }
    CONFIG.write_text(write_toml(config))


def resolved() -> bool:
    """Asks for it if need be. A translated processor may answer later than a command waits; what
    was asked for is done all the same."""
    if status()["falls"]["state"] == "alarm":
        with contextlib.suppress(DaemonError):
            call("resolve")
    return bool(status()["falls"]["state"] == "monitoring")


def falls(body: Chip, how: str) -> None:
    """A fall of the chip becomes an alarm."""
    wait(lambda: sensor_is("ok"), "the sensor")
    # The windows that the network looks at have to be full of what came before the fall.
    time.sleep(8.0)
    before = last()
    begun_s = time.monotonic()
    body.fall()
    alarm = wait(lambda: seen(before, "fall.alarm"), f"the alarm ({how})")
    took_s = time.monotonic() - begun_s
    prealarm = seen(before, "fall.prealarm")
    assert prealarm and alarm["data"]["incident"] == prealarm["data"]["incident"]
    instrument = status()["falls"]["instrument"]
    held(f"{how}: a fall is an alarm", from_its_start_s=round(took_s, 1), instrument=instrument)
    wait(resolved, "the end of the alarm")


# ---- one boot ----


def devices() -> None:
    for module in ("i2c-dev", "vivid"):
        run("modprobe", module)
    body = Chip(np.load(SHARE / "fall.npy"))
    body.appear()
    poll = {"driver": "mpu6050", "mode": "poll", "transfers": "smbus", "bus": str(body.number)}
    configure(poll)
    try:
        install()
        falls(body, "MPU-6050 polled on I2C")
        chip_comes_and_goes(body)
        sandbox(body.number)
        by_the_kernel(body)
        configure(poll, faces=True)
        run("systemctl", "start", UNIT)
        camera_comes_and_goes()
    finally:
        body._end()


def install() -> None:
    run("mount", "-o", "remount,rw", "/opt")
    (wheel,) = SHARE.glob("*.whl")
    begun_s = time.monotonic()
    run(str(SHARE / "install"), "--offline", str(SHARE), "--wheel", str(wheel), timeout_s=600.0)
    held("scripts/install: READY under the unit", took_s=round(time.monotonic() - begun_s, 1))


def camera_opened() -> bool:
    """By the daemon's own word in the journal, which names what it delivers."""
    return "camera: 320 x 180" in run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")


def camera_comes_and_goes() -> None:
    wait(lambda: sensor_is("ok"), "the sensor")
    wait(camera_opened, "the camera")
    before = last()
    (VIVID / "unbind").write_text("vivid.0")
    wait(lambda: seen(before, "device.sensor_lost", "camera"), "the loss of the camera")
    (VIVID / "bind").write_text("vivid.0")
    wait(lambda: seen(before, "device.sensor_back", "camera"), "the return of the camera")
    assert not seen(before, "device.sensor_lost", "accelerometer"), "falls were touched"
    held("V4L2 camera (vivid) unbound and bound: sensor_lost, sensor_back; falls ran on")


def chip_comes_and_goes(body: Chip) -> None:
    before = last()
    begun_s = time.monotonic()
    body.mute()
    lost = wait(lambda: seen(before, "device.sensor_lost", "accelerometer"), "the loss of the chip")
    took_s = time.monotonic() - begun_s
    body.vanish()
    number = body.number
    assert not Path(f"/dev/i2c-{number}").exists()
    time.sleep(ABSENT_S)
    assert sensor_is("lost")
    body.appear()
    assert body.number == number, "another number for the same bus"
    wait(lambda: seen(before, "device.sensor_back", "accelerometer"), "the return of the chip")
    held(
        "I2C chip without power, then its bus removed and back: sensor_lost, sensor_back",
        lost_after_s=round(took_s, 1), detail=lost["data"]["detail"],
    )  # fmt: skip


def by_the_kernel(body: Chip) -> None:
    run("systemctl", "stop", UNIT)
    configure({"driver": "iio", "mode": "poll"})
    run("modprobe", "inv-mpu6050-i2c")
    bus = Path(f"/sys/bus/i2c/devices/i2c-{body.number}")
    (bus / "new_device").write_text(f"mpu6050 0x{chip.ADDRESS:02x}")
    wait(lambda: list(Path("/sys/bus/iio/devices").glob("iio:device*")), "the kernel's device")
    run("systemctl", "start", UNIT)
    falls(body, "the kernel's inv-mpu6050 (IIO, sysfs)")
    before = last()
    (bus / "delete_device").write_text(f"0x{chip.ADDRESS:02x}")
    wait(lambda: seen(before, "device.sensor_lost", "accelerometer"), "the loss of the device")
    (bus / "new_device").write_text(f"mpu6050 0x{chip.ADDRESS:02x}")
    wait(lambda: seen(before, "device.sensor_back", "accelerometer"), "the return of the device")
    held("IIO device removed and back, set up by udev: sensor_lost, sensor_back")
    run("systemctl", "stop", UNIT)
    (bus / "delete_device").write_text(f"0x{chip.ADDRESS:02x}")


# ---- the unit's walls ----

PROBE = """
import errno, json, os, sys

def attempt(path):
    try:
        os.close(os.open(path, os.O_RDWR))
        return "open"
    except OSError as error:
        return errno.errorcode[error.errno]

found = {path: attempt(path) for path in sys.argv[1:]}
hog = os.fork()
if not hog:
    # The face worker does the same.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    held = bytearray()
    while len(held) < 1 << 30:
        held += b"x" * (8 << 20)
    os._exit(0)
found["hog"] = os.waitstatus_to_exitcode(os.waitpid(hog, 0)[1])
print(json.dumps(found))
"""
# Of the unit; the others say what to start and when it counts as started, or would take its place.
NOT_OF_THE_PROBE = re.compile(
    "Type|NotifyAccess|Exec.*|Restart.*|WatchdogSec|Timeout.*|RuntimeDirectory.*|LoadCredential|Sys.*Id.*"
)


def sandbox(number: int) -> None:
    """A process within the unit's own walls, beside the daemon."""
    lines = []
    for line in UNIT_FILE.read_text().partition("[Install]")[0].splitlines():
        if not NOT_OF_THE_PROBE.fullmatch(line.partition("=")[0]):
            lines.append(line)
    probe = Path("/usr/local/lib/probe.py")
    probe.write_text(PROBE)
    allowed, other = [f"/dev/i2c-{number}", "/dev/video0"], ["/dev/vda", "/dev/hwrng", "/dev/tty1"]
    for path in other:
        os.chmod(path, 0o666)  # so that nothing but the device policy can be in the way
    python = f"/opt/edge-rt/current/bin/python {probe}"
    lines += ["Type=oneshot", f"ExecStart={python} {' '.join(allowed + other)}"]
    lines += ["StandardOutput=file:/share/probe"]
    Path("/etc/systemd/system/probe.service").write_text("\n".join(lines) + "\n")
    run("systemctl", "daemon-reload")
    pid = run("systemctl", "show", UNIT, "-pMainPID")
    run("systemctl", "start", "probe.service")
    found = json.loads((SHARE / "probe").read_text())
    assert [found[path] for path in allowed] == ["open"] * len(allowed), found
    assert [found[path] for path in other] == ["EPERM"] * len(other), found
    for path in other:  # the same user without the walls
        run("setpriv", "--reuid=edge-rt", "--clear-groups", "test", "-w", path)
    held("DeviceAllow: I2C and camera open, any other device does not, whatever its mode", **found)
    assert found["hog"] == -9, found
    assert "probe.service" in run("journalctl", "-k", "--no-pager", "-g", "oom-kill|Memory cgroup")
    assert run("systemctl", "show", UNIT, "-pMainPID") == pid, "the daemon was hit"
    held("MemoryMax: one that grows is killed, the process beside it and the daemon are not")


# ---- until the plug is pulled ----

KINDS = (("fall", "alarm"), ("device", "not_worn"), ("fall", "alarm"), ("fall", "resolved"))
LOG, MODELS = STATE / "events.db", STATE / "models/fall"


def tell(line: str) -> None:
    """On the other machine before this returns: the folder is shared without a cache."""
    handle = os.open(SHARE / "told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode() + b"\n")
    os.close(handle)


def writing(first: int) -> None:
    check()
    installer = threading.Thread(target=install_models, args=(first,), daemon=True)
    installer.start()
    recorder = Recorder(
        lambda draft, check: EventLog(LOG, draft, check=check), Stamps("/edge-rt/home/vm", "b" * 32)
    )
    n = first
    while installer.is_alive():
        kind, what = KINDS[n % len(KINDS)]
        recorder.announce(kind, what, {"n": n, "fill": "x" * (n * 37 % 900)}).result(60)
        tell(f"{lane_of(kind, what).value} {n}")
        n += 1
    raise AssertionError("models are no longer installed")


def install_models(number: int) -> None:
    """One bundle after the other into the slots in turn."""
    (source,) = Path("/opt/edge-rt").glob("*-????????/lib/python3*/site-packages/edge_rt/models")
    slots = Slots(MODELS)
    slots.prepare()
    while True:
        slot = "ab"[number % 2]
        staged = STATE / "models/staged"
        shutil.rmtree(staged, ignore_errors=True)
        make_bundle(source / "fall-waist", staged, number)
        tell(f"installing {slot} {number}")
        slots.install(staged, slot)  # type: ignore[arg-type]
        tell(f"installed {slot} {number}")
        number += 1


def make_bundle(source: Path, folder: Path, number: int) -> None:
    """The factory's bundle as version 1.<number>.0, each file of it another than before."""
    folder.mkdir()
    manifest = tomllib.loads((source / "model.toml").read_text())
    manifest.pop("files")
    manifest["version"] = f"1.{number}.0"
    model = (source / manifest["model"]).read_bytes()
    (folder / manifest["model"]).write_bytes(model + number.to_bytes(8, "little"))
    (folder / "CARD.md").write_text(f"version {number}\n")
    shutil.copy(source / "golden.npz", folder)
    write_manifest(folder, manifest)


def check() -> None:
    """What the last plug left: against what was told before. Nothing told, nothing to check."""
    told = SHARE / "told"
    if not told.exists():
        STATE.mkdir(parents=True, exist_ok=True)
        return
    alarms: set[int] = set()
    others: set[int] = set()
    slots: dict[str, list[tuple[str, int]]] = {"a": [], "b": []}
    for line in told.read_text().splitlines():
        word, *rest = line.split()
        if word in ("installing", "installed"):
            slots[rest[0]].append((word, int(rest[1])))
        else:
            (alarms if word == Lane.ALARM.value else others).add(int(rest[0]))
    found = logged()
    assert alarms <= found, f"alarms announced, and gone: {sorted(alarms - found)}"
    # Of what is no alarm the last moments may go; an alarm takes all before it along to the disk.
    gone = others - found
    assert not gone or min(gone) > max(alarms), (
        f"announced before an alarm, and gone: {sorted(gone)}"
    )
    versions = {slot: slot_version(slot, steps) for slot, steps in slots.items()}
    held(
        "power cut: no announced alarm is missing, no model slot is torn",
        alarms=len(alarms), alarms_gone=len(alarms - found), others=len(others),
        others_gone=len(gone), slots=versions,
        left_over=sorted(path.name for path in MODELS.iterdir()),
    )  # fmt: skip


def logged() -> set[int]:
    """Numbers in the log, which is whole."""
    reader = EventReader(LOG)
    reader.read()
    check_database(LOG)
    numbers, place = set(), 0
    while stored := reader.read(place, 1000):
        assert [s.sequence for s in stored] == list(range(place + 1, place + 1 + len(stored)))
        place = stored[-1].sequence
        numbers |= {s.event.data["n"] for s in stored if "n" in s.event.data}
    reader.close()
    return numbers


def slot_version(slot: str, steps: list[tuple[str, int]]) -> int | None:
    """The version that a slot holds, whole; None for an empty one that may be."""
    done = [number for word, number in steps if word == "installed"]
    allowed: list[int | None] = [done[-1] if done else None]
    if steps and steps[-1][0] == "installing":
        allowed += [steps[-1][1], None]  # old, new, or none
    folder = MODELS / slot
    version = None
    if folder.exists():
        version = int(read_bundle(folder).manifest.version.split(".")[1])  # checks every file
    assert version in allowed, f"slot {slot} holds {version}, of {allowed}"
    return version


def main(phase: str, *arguments: str) -> None:
    try:
        if phase == "devices":
            devices()
        else:
            writing(int(arguments[0]))
    except (AssertionError, OSError, DaemonError, StorageError):
        traceback.print_exc()
        print(journal(), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
