"""Examination of this device: engine, models, sensors, rights, disk, broker, updates, clock.

Each check looks at one thing and says what it found and what to do about it; none changes anything
but for a test file that it removes again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edge_rt.adapters.probe import probe
from edge_rt.adapters.statedir import held_by
from edge_rt.adapters.tflite import ENGINES, choose_engine, installed_engines
from edge_rt.adapters.vitals import supply
from edge_rt.bundle import factory_bundles, locate
from edge_rt.core.config import Config
from edge_rt.core.errors import DaemonError, DeniedError, EdgeRtError
from edge_rt.runtime.check import Check, State, failed, in_use, run_checks
from edge_rt.runtime.client import Client
from edge_rt.runtime.clock import FIRST_YEAR, clock_trusted
from edge_rt.runtime.doctor_faces import check_template_key, check_templates
from edge_rt.runtime.doctor_mqtt import check_broker, check_certificate
from edge_rt.runtime.doctor_room import check_pins
from edge_rt.runtime.doctor_sensors import (
    check_accelerometer,
    check_buses,
    check_calibration,
    device_paths,
)
from edge_rt.runtime.doctor_updates import check_room, check_root, check_slots

MB = 1024 * 1024
FULL_MB = 32  # below this SQLite's WAL and a backup no longer fit beside the log
SLOW_SYNC_S = 0.5  # an alarm is announced after at most 0.2 s even when the disk stalls
LITTLE_MB = 130  # the budget of all our processes together
HOT_C, LIMIT_C = 80.0, 85.0  # a Pi lowers its clock from 80 and harder from 85 degrees Celsius
SENSOR_WAIT_S = 2.0
USED = frozenset(("accelerometer", "camera", "pins", "broker"))  # by a daemon that runs


def examine(config: Config) -> Generator[Check, None, None]:
    """All checks, one after the other; a check that fails unexpectedly is itself a failed line."""
    denied, daemon = "", None
    try:
        daemon = _running(Path(config.runtime.run_dir))
    except DeniedError as error:
        denied = str(error)

    def buses() -> Iterator[Check]:
        return check_buses(config)

    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", check_python),
        ("engine", lambda: check_engine(config.runtime.engine)),
        ("models", lambda: check_models(config)),
        ("daemon", lambda: check_daemon(config, daemon, denied)),
        ("accelerometer", buses),
        ("accelerometer", lambda: check_accelerometer(config, daemon)),
        ("calibration", lambda: check_calibration(config)),
        ("camera", lambda: check_camera(config, daemon)),
        ("pins", lambda: check_pins(config, daemon)),
        ("permissions", lambda: check_permissions(config)),
        ("state", lambda: check_state(Path(config.runtime.state_dir))),
        ("disk", lambda: check_disk(config)),
        ("template key", lambda: check_template_key(config)),
        ("templates", lambda: check_templates(config, daemon)),
        ("certificate", lambda: check_certificate(config)),
        ("broker", lambda: check_broker(config, daemon)),
        ("update root", lambda: check_root(config)),
        ("slots", lambda: check_slots(config)),
        ("update room", lambda: check_room(config)),
        ("clock", lambda: check_clock(datetime.now(UTC), clock_trusted())),
        ("memory", check_memory),
        ("temperature", check_temperature),
    ]
    if denied:
        checks = [
            (name, functools.partial(_leave_alone, name) if name in USED else check)
            for name, check in checks
            if check is not buses
        ]
    yield from run_checks(checks)


def _leave_alone(name: str) -> Iterator[Check]:
    found = "not looked at: the daemon that may not be asked may be using it"
    yield Check(name, "warning", found, "sudo edge-rt doctor, with the same --config")


# ---- software ----


def check_python() -> Iterator[Check]:
    """The interpreter is one that edge_rt is tested with."""
    found = f"{platform.python_version()} on {platform.machine()}, numpy {version('numpy')}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Check("python", "ok", found)
    else:
        yield Check("python", "warning", found, "use Python 3.11, 3.12 or 3.13")


def check_engine(name: str, numpy_version: str = np.__version__) -> Iterator[Check]:
    """The chosen engine can be used with this numpy."""
    try:
        chosen = choose_engine(name, numpy_version)
    except EdgeRtError as error:
        yield failed("engine", str(error), "install or choose another engine")
        return
    others = [
        f"{e} {_version(e)}"
        for e in installed_engines()
        if e != chosen and _usable(e, numpy_version)
    ]
    found = f"{chosen} {_version(chosen)}" + (
        f" (also here: {', '.join(others)})" if others else ""
    )
    if chosen == "tflite-runtime" and platform.machine() in ("x86_64", "aarch64"):
        remedy = "for several times the speed: pip install ai-edge-litert"
        yield Check("engine", "warning", found, remedy)
    else:
        yield Check("engine", "ok", found)


def _usable(engine: str, numpy_version: str) -> bool:
    try:
        return choose_engine(engine, numpy_version) == engine
    except EdgeRtError:
        return False


def _version(engine: str) -> str:
    try:
        return version(ENGINES[engine][1])
    except PackageNotFoundError:
        return "of unknown version"


def check_models(config: Config) -> Iterator[Check]:
    """Every factory and every configured bundle loads, agrees with itself and is fast enough."""
    folders = dict(factory_bundles())
    if not folders:
        yield Check("models", "failed", "no factory bundles in the package", "reinstall edge-rt")
    for name in configured_models(config):
        try:
            folders.setdefault(name, locate(name))
        except EdgeRtError as error:
            yield failed(f"model {name}", str(error), "correct the configuration")
    for name, folder in folders.items():
        yield check_model(name, folder, config.runtime.engine)


def configured_models(config: Config) -> list[str]:
    """Names or folders of the bundles that the daemon loads."""
    wanted = [config.falls.bundle] if config.falls.enabled else []
    return wanted + ([config.faces.detect, config.faces.embed] if config.faces.enabled else [])


def check_model(name: str, folder: Path, engine: str, *, background: bool = False) -> Check:
    """One bundle, tried in a child process; see `probe` for background."""
    try:
        report = probe(folder, engine, background=background)
    except EdgeRtError as error:
        return failed(f"model {name}", str(error), "reinstall or replace this bundle")
    assert report.golden is not None and report.latency is not None  # the child ran the model
    took = f"p95 {report.latency.p95_ms:.3g} of {report.latency.budget_ms:g} ms"
    return Check(f"model {name}", "ok", f"{report.golden.cases} golden vectors agree, {took}")


# ---- daemon and sensors ----


def _running(run_dir: Path) -> dict[str, Any] | None:
    """Status of the daemon that serves this configuration, if one answers. Raises DeniedError."""
    try:
        with Client(run_dir, timeout_s=5.0) as client:
            return client.call("status")
    except DeniedError:
        raise
    except DaemonError:
        return None


def check_daemon(
    config: Config, status: dict[str, Any] | None, denied: str = ""
) -> Iterator[Check]:
    """A running daemon names its own problems. denied: why it may not be asked."""
    if denied:
        yield failed("daemon", denied, "use sudo")
        return
    if status is None and (pid := held_by(Path(config.runtime.state_dir))) is not None:
        found = f"process {pid} runs, but nobody answers in {config.runtime.run_dir}"
        yield failed("daemon", found, "see the service's log: journalctl -u edge-rt")
        return
    if status is None:
        yield Check("daemon", "ok", "not running")
        return
    for problem in status["problems"]:
        yield failed("daemon", problem, "see edge-rt status and the service's log")
    if not status["problems"]:
        yield Check("daemon", "ok", f"running for {status['uptime_s']:.0f} s, no problems")


def check_camera(config: Config, status: dict[str, Any] | None) -> Iterator[Check]:
    """The camera delivers a picture."""
    if not config.faces.enabled:
        yield Check("camera", "ok", "face unlock is off")
    elif status is not None and status["faces"] is not None:
        faces = status["faces"]
        good = faces["frames"] > 0
        found = f"the daemon says {faces['camera']}, {faces['frames']} frames"
        yield Check("camera", "ok" if good else "warning", found, "arm faces and look again")
    elif (owner := held_by(Path(config.runtime.state_dir))) is not None:
        yield in_use("camera", owner)
    else:
        yield _deliver_picture(config)


def _deliver_picture(config: Config) -> Check:
    from edge_rt.runtime.cameras import make_camera

    camera = make_camera(config.faces.camera)
    camera.open()
    try:
        end, frame = time.monotonic() + SENSOR_WAIT_S, None
        while frame is None and (left := end - time.monotonic()) > 0:
            frame = camera.read(left)
    except EOFError:
        frame = None
    finally:
        camera.close()
    if frame is None:
        remedy = "check its cable, and that nothing else uses it"
        return Check("camera", "failed", f"no picture in {SENSOR_WAIT_S:g} s", remedy)
    height, width = frame.image.shape[:2]
    return Check("camera", "ok", f"delivers {width} x {height} pixels")


# ---- rights, disk ----


def check_permissions(config: Config) -> Iterator[Check]:
    """This user may use the devices that the configuration names."""
    paths = device_paths(config)
    if config.faces.enabled and (device := getattr(config.faces.camera, "device", "")):
        paths.append(Path(f"/dev/video{device}" if device.isdigit() else device))
    denied = [p for p in paths if p.exists() and not os.access(p, os.R_OK | os.W_OK)]
    for path in denied:
        remedy = f"add the user to the group of {path} (ls -l {path}), then log in anew"
        yield Check("permissions", "failed", f"{path} may not be opened", remedy)
    if not denied:
        yield Check("permissions", "ok", f"user {os.getuid()} may use what is configured")


def check_state(folder: Path) -> Iterator[Check]:
    """The state folder is private and can be written, durably and quickly."""
    if not folder.exists():
        parent = next(p for p in folder.parents if p.exists())
        if os.access(parent, os.W_OK):
            yield Check("state", "ok", f"{folder} will be made at the first start")
        else:
            remedy = f"sudo install -d -m 0700 -o $USER {folder}"
            yield Check("state", "failed", f"{folder} is missing and cannot be made", remedy)
        return
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        found = f"{folder} has mode {mode:04o}: others can read events and templates"
        yield Check("state", "failed", found, f"chmod 700 {folder}")
        return
    took_s = _write_test(folder)
    found = f"{folder}: 4 kB durable in {took_s * 1e3:.1f} ms"
    if took_s > SLOW_SYNC_S:
        yield Check("state", "warning", found, "the card is slow or worn; use another one")
    else:
        yield Check("state", "ok", found)


def _write_test(folder: Path) -> float:
    """Seconds that one write and fsync take. Raises OSError that names the folder."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".doctor-") as file:
            start = time.perf_counter()
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            return time.perf_counter() - start
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def check_disk(config: Config) -> Iterator[Check]:
    """There is room for the event log to grow to its bound."""
    folder = Path(config.runtime.state_dir)
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free_mb = shutil.disk_usage(place).free // MB
    need_mb = config.runtime.event_log_max_mb + FULL_MB
    found = f"{free_mb} MB free at {place}"
    remedy = f"free {need_mb} MB, or lower runtime.event_log_max_mb"
    state: State = "ok" if free_mb >= need_mb else "warning" if free_mb >= FULL_MB else "failed"
    yield Check("disk", state, found, "" if state == "ok" else remedy)


# ---- board ----


def check_clock(now: datetime, synchronised: bool) -> Iterator[Check]:
    """The wall clock can be believed; events say whether it could."""
    found = f"{now:%Y-%m-%d %H:%M} UTC"
    if now.year < FIRST_YEAR:
        remedy = "connect to a network with NTP, or fit a real-time clock"
        yield Check("clock", "failed", f"{found} is in the past", remedy)
    elif not synchronised:
        remedy = "enable NTP: timedatectl set-ntp true"
        yield Check("clock", "warning", f"{found}, not synchronised", remedy)
    else:
        yield Check("clock", "ok", f"{found}, synchronised")


def check_memory(
    meminfo: Path = Path("/proc/meminfo"),
    controllers: Path = Path("/sys/fs/cgroup/cgroup.controllers"),
) -> Iterator[Check]:
    """Both pipelines fit into what is available (proc(5)), and the service's bound holds."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    total, left = (int(fields[k].split()[0]) // 1024 for k in ("MemTotal", "MemAvailable"))
    found = f"{left} of {total} MB available"
    if left < LITTLE_MB:
        remedy = "end other programs; a screenless system needs less"
        yield Check("memory", "warning", found, remedy)
    else:
        yield Check("memory", "ok", found)
    # cgroup v2: what the kernel offers (Documentation/admin-guide/cgroup-v2.rst). A Pi's firmware
    # may boot it with cgroup_disable=memory.
    if controllers.exists() and "memory" not in controllers.read_text().split():
        found = "the kernel has no memory controller: MemoryMax of the service has no effect"
        remedy = "add cgroup_enable=memory to /boot/firmware/cmdline.txt, then reboot"
        yield Check("memory limit", "warning", found, remedy)


def check_temperature(sys_root: Path = Path("/sys")) -> Iterator[Check]:
    """The processor is neither hot nor throttled, as far as the kernel tells."""
    zones = []
    for path in sorted(sys_root.glob("class/thermal/thermal_zone*/temp")):
        # A zone without a working sensor refuses to be read.
        with contextlib.suppress(OSError, ValueError):
            zones.append(int(path.read_text()) / 1000)
    now, seen = supply(sys_root)
    if not zones and now is None:
        yield Check("temperature", "ok", "the kernel does not tell")
        return
    if zones:
        hottest = max(zones)
        state: State = "ok" if hottest < HOT_C else "warning" if hottest < LIMIT_C else "failed"
        yield Check("temperature", state, f"{hottest:.0f} C", "cool it" if state != "ok" else "")
    if now or seen:
        found = f"firmware reports {_reasons(now or 0, seen or 0)}"
        remedy = "use a stronger power supply or better cooling"
        yield Check("power", "failed" if now else "warning", found, remedy)
    elif now == 0:
        yield Check("power", "ok", "not low now" if seen is None else "never low since boot")


# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_BITS = {0: "under-voltage", 1: "a capped clock", 2: "throttling", 3: "the soft temperature limit"}


def _reasons(now: int, seen: int) -> str:
    present = [text for bit, text in _BITS.items() if now >> bit & 1]
    past = [f"{text} since boot" for bit, text in _BITS.items() if seen >> bit & 1]
    return ", ".join(present or past)
