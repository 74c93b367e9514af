"""The service as scripts/install leaves it, under Debian's own systemd (in a container).

Needs root, mmdebstrap and systemd-nspawn; the first run makes a root file system (beds.rootfs).
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beds import rootfs, wheels
from beds.container import Container, booted
from beds.rootfs import NoBed

from edge_rt.core.crash_loop import SPARE_AT
from edge_rt.core.toml import write_toml

MAX_EXPOSURE = 2.0  # of 10, as systemd-analyze counts it
INSTALL_S = 300.0
STATE = "/var/lib/edge-rt"
DROP_IN = "/etc/systemd/system/edge-rt.service.d/test.conf"
CONFIG = "/etc/edge-rt/config.toml"
UNIT = "edge-rt.service"

# Run inside the unit's sandbox, as its user; prints what each attempt came to.
PROBE = """
import ctypes, errno, json, mmap, os, socket, sys, time

def attempt(act):
    try:
        return act() or "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)

def unshare():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")

def suid():
    path = os.path.join(sys.argv[1], "suid")
    open(path, "w").close()
    try:
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)

def clock(modes):
    libc = ctypes.CDLL(None, use_errno=True)
    timex = (ctypes.c_uint * 64)(modes)
    if libc.adjtimex(timex) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")

found = {
    "uid": os.getuid(),
    "groups": sorted(os.getgroups()),
    "write /usr": attempt(lambda: write("/usr/x")),
    "write /etc": attempt(lambda: write("/etc/edge-rt/x")),
    "write /opt": attempt(lambda: write("/opt/edge-rt/x")),
    "write state": attempt(lambda: write(sys.argv[1] + "/x")),
    "list /home": attempt(lambda: os.listdir("/home") and None),
    "list /root": attempt(lambda: os.listdir("/root") and None),
    "open device": attempt(lambda: os.close(os.open("/dev/bed", os.O_RDONLY))),
    "open null": attempt(lambda: os.close(os.open("/dev/null", os.O_RDONLY))),
    "see init": attempt(lambda: os.stat("/proc/1/cmdline") and None),
    "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
    "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
    "internet": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()),
    "unshare": attempt(unshare),
    "suid": attempt(suid),
    "code": attempt(lambda: mmap.mmap(-1, 4096, prot=7).close()),
    "tunables": attempt(lambda: write("/proc/sys/kernel/core_pattern")),
    "read clock": attempt(lambda: clock(0)),
    "steer clock": attempt(lambda: clock(0x4000)),  # ADJ_TICK
    "set clock": attempt(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
    "credentials": sorted(os.listdir(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"))),
}
with open(sys.argv[1] + "/probe.json", "w") as file:
    json.dump(found, file)
"""


class Service:
    """edge_rt installed in a container."""

    def __init__(self, container: Container, said: str) -> None:
        self.container = container
        self.said = said  # by the installer
        self.wheel = container.shell("echo /mnt/edge_rt/*.whl").strip()

    def install(self, *options: str) -> tuple[int, str]:
        # Whoever calls it may be used to keep files private.
        private = ("sh", "-c", 'umask 077; exec "$@"', "sh")
        command = (*private, "/mnt/scripts/install", "--offline", "/mnt/wheels", *options)
        return self.container.try_run(*command, timeout_s=INSTALL_S)

    def edge_rt(self, *arguments: str) -> str:
        return self.container.run("/usr/local/bin/edge-rt", *arguments)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.edge_rt("status", "--json"))
        return status

    def events(self) -> list[dict[str, Any]]:
        lines = self.edge_rt("events", "--json", "--limit", "10000").splitlines()
        return [json.loads(line) for line in lines]

    def pid(self) -> int:
        return int(self.container.show(UNIT, "MainPID")["MainPID"])

    def kill(self, number: int, pid: int) -> None:
        self.container.run("kill", f"-{number}", str(pid))

    def is_ready(self) -> bool:
        return self.container.show(UNIT, "ActiveState")["ActiveState"] == "active"

    def again(self, before: int) -> dict[str, Any]:
        """Wait until another process than `before` is ready; its status."""
        self.container.wait(lambda: self.pid() not in (0, before) and self.is_ready(), "a restart")
        return self.status()

    def configure(self, config: dict[str, Any], drop_in: str = "") -> None:
        """Start anew with another configuration and a drop-in for the unit."""
        self.container.write(CONFIG, write_toml(config))
        self.container.write(DROP_IN, drop_in)
        self.container.run("systemctl", "daemon-reload")
        self.container.run("systemctl", "restart", UNIT, timeout_s=120.0)


@pytest.fixture(scope="module")
def machine(
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    factory_bundle: Callable[[str], Path],
) -> Iterator[Container]:
    """A Debian without edge_rt; wheels and scripts lie in /mnt."""
    factory_bundle("fall-waist")
    folder = tmp_path_factory.mktemp("edge_rt")
    try:
        root = rootfs.debian("service")
        wheel = wheels.build(repository, folder)
        binds = {
            wheels.dependencies(wheel, repository / "setup.cfg"): "/mnt/wheels",
            folder: "/mnt/edge_rt",
            repository / "scripts": "/mnt/scripts",
        }
        with booted(root, binds) as container:
            yield container
    except NoBed as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def service(machine: Container) -> Service:
    one = Service(machine, "")
    code, said = one.install("--wheel", one.wheel, "--dry-run")
    assert code == 0, said
    assert "would run: systemctl restart edge-rt.service" in said
    assert machine.try_run("ls", "/opt/edge-rt", "/etc/edge-rt", DROP_IN)[0] != 0, (
        "it did something"
    )
    code, one.said = one.install("--wheel", one.wheel)
    assert code == 0, one.said
    return one


DEFAULT: dict[str, Any] = {
    "falls": {"source": {"driver": "simulated", "scene": "walking"}},
}


def test_it_is_installed_ready_and_says_so(service: Service) -> None:
    assert re.search(r"version \S+ runs: falls watching \(simulated\); faces off", service.said)
    shown = service.container.show(UNIT, "ActiveState", "NRestarts", "UnitFileState", "User")
    assert shown == {
        "ActiveState": "active",
        "NRestarts": "0",
        "UnitFileState": "enabled",
        "User": "edge-rt",
    }
    assert service.status()["falls"]["state"] == "monitoring"
    assert service.container.run("systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}") == ""


def test_a_second_call_changes_nothing(service: Service) -> None:
    pid = service.pid()
    # Nor can just anybody keep it from running.
    held = "setpriv --reuid=65534 --clear-groups flock /run/lock/edge-rt-install sleep 60"
    service.container.shell(f"{held} >/dev/null 2>&1 & sleep 0.5")
    code, said = service.install("--wheel", service.wheel)
    assert code == 0 and "nothing to do" in said, said
    assert service.pid() == pid


def test_exposure(service: Service) -> None:
    table = service.container.run("systemd-analyze", "security", UNIT, "--no-pager")
    (found,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", table)
    assert float(found) <= MAX_EXPOSURE


def test_the_journal_has_fields(service: Service) -> None:
    entry = json.loads(
        service.container.run(
            "journalctl", "-o", "json", "-n", "1", "EDGE_RT_EVENT=device.started", "--no-pager"
        )
    )
    assert entry["MESSAGE"].endswith("device.started") and entry["_SYSTEMD_UNIT"] == UNIT
    assert entry["CODE_FILE"].endswith("event_lines.py") and entry["PRIORITY"] == "6"


def test_killed_it_runs_again_with_its_events(service: Service) -> None:
    service.edge_rt("help-now")
    before, pid = service.events(), service.pid()
    service.kill(signal.SIGKILL, pid)
    status = service.again(pid)
    after = service.events()
    assert after[: len(before)] == before
    assert [int(event["sequence"]) for event in after] == list(range(1, len(after) + 1))
    assert after[len(before)]["type"] == "edge_rt.device.started"
    assert status["falls"]["state"] == "alarm"  # until somebody has looked after it
    service.edge_rt("resolve")


def test_one_that_stands_still_is_found_by_the_watchdog(service: Service) -> None:
    service.configure(DEFAULT, "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n")
    pid = service.pid()
    service.kill(signal.SIGSTOP, pid)
    service.again(pid)
    said = service.container.run("journalctl", "-u", UNIT, "--no-pager", "-o", "cat")
    assert "Watchdog timeout (limit 2s)!" in said


def test_one_that_must_be_killed_at_a_stop_leaves_no_siren_on(service: Service) -> None:
    machine = service.container
    off = f"{STATE}/off"
    siren = {"driver": "command", "prealarm": ["/bin/true"], "alarm": ["/bin/true"]}
    outputs = {"siren": {**siren, "silence": ["/usr/bin/touch", off]}}
    # It bounds the stop, and then the clean-up, which starts a Python.
    service.configure({**DEFAULT, "outputs": outputs}, "[Service]\nTimeoutStopSec=8s\n")
    machine.wait(lambda: machine.try_run("test", "-e", off)[0] == 0, "outputs at rest")
    machine.run("rm", off)
    service.kill(signal.SIGSTOP, service.pid())
    machine.run("systemctl", "stop", UNIT)
    assert machine.try_run("test", "-e", off)[0] == 0
    assert not service.is_ready()


@pytest.mark.parametrize("end", ["killed", "stands still"])
def test_however_it_ends_outputs_are_brought_to_rest_also_with_no_next_start(
    service: Service, end: str
) -> None:
    machine = service.container
    off = f"{STATE}/off"
    siren = {"driver": "command", "prealarm": ["/bin/true"], "alarm": ["/bin/true"]}
    outputs = {"siren": {**siren, "silence": ["/usr/bin/touch", off]}}
    # Nothing there passes for a module of Python's.
    machine.write(f"{STATE}/msgspec.py", "raise SystemExit(1)")
    alone = "[Service]\nRestart=no\nWatchdogSec=2s\nTimeoutAbortSec=1s\n"
    service.configure({**DEFAULT, "outputs": outputs}, alone)
    machine.wait(lambda: machine.try_run("test", "-e", off)[0] == 0, "outputs at rest")
    machine.run("rm", off)
    service.kill(signal.SIGKILL if end == "killed" else signal.SIGSTOP, service.pid())
    ended = {"killed": "signal", "stands still": "watchdog"}[end]
    machine.wait(lambda: machine.show(UNIT, "Result")["Result"] == ended, "its end")
    machine.wait(lambda: machine.show(UNIT, "ActiveState")["ActiveState"] == "failed", "clean-up")
    machine.run("rm", f"{STATE}/msgspec.py")
    assert machine.try_run("test", "-e", off)[0] == 0


def test_a_python_that_is_gone_is_named_and_tried_ever_more_slowly(service: Service) -> None:
    machine = service.container
    service.configure(DEFAULT)
    machine.shell("rm -f /run/edge-rt/ends")
    python = "/opt/edge-rt/current/bin/python3.11"
    # Not /usr/bin/python3: that is another one after an upgrade of the system.
    assert machine.run("readlink", python).strip() == "/usr/bin/python3.11"
    begun = machine.run("date", "+%s.%N").strip()
    machine.shell(f"ln -sfn /usr/bin/python3.10 {python}")
    service.kill(signal.SIGKILL, service.pid())

    def ends() -> int:
        return int(machine.shell("cut -d ' ' -f 1 /run/edge-rt/ends || echo 0").split()[-1])

    machine.wait(lambda: ends() >= 5, "five ends")
    said = machine.run("journalctl", "-t", "edge-rt", "-o", "cat", f"--since=@{begun}", "-p", "err")
    assert "has no Python that runs it" in said and "run scripts/install again" in said
    machine.shell(f"ln -sfn /usr/bin/python3.11 {python}")
    machine.wait(service.is_ready, "the daemon")
    assert ends() <= 8, "tried without a pause"
    service.configure(DEFAULT)


def test_a_sensor_that_the_kernel_drives_is_set_up_before_each_start(service: Service) -> None:
    machine = service.container
    setup = "edge-rt-sensor-setup.service"

    def said(config: str) -> str:
        machine.write(CONFIG, config)
        machine.run("systemctl", "restart", UNIT)
        grep = (
            "journalctl",
            "_SYSTEMD_INVOCATION_ID=" + machine.show(setup, "InvocationID")["InvocationID"],
        )
        return machine.run(*grep, "-o", "cat", "--no-pager")

    assert "IIO" in said("[falls.source]\ndriver = 'iio'\n")
    assert machine.show(setup, "Result")["Result"] == "exit-code"  # there is none in here
    assert service.is_ready() and service.status()["falls"]["sensor"] != "ok"
    said('# driver = "iio"\n[falls.source]\ndriver = "simulated"\n')
    assert machine.show(setup, "Result")["Result"] == "exec-condition"
    # One that hangs holds up the start for so long and no longer.
    machine.write(
        f"/run/systemd/system/{setup}.d/hangs.conf",
        "[Service]\nExecStart=\nExecStart=/bin/sh -c 'trap \"\" TERM; sleep 60'\n"
        "TimeoutStartSec=1s\n",
    )
    machine.run("systemctl", "daemon-reload")
    said("[falls.source]\ndriver = 'iio'\n")
    assert machine.show(setup, "Result")["Result"] == "timeout" and service.is_ready()
    machine.run("rm", "-r", f"/run/systemd/system/{setup}.d")
    service.configure(DEFAULT)
    rules = machine.try_run("udevadm", "test", "/sys/class/mem/null")[1]
    assert "/etc/udev/rules.d/70-edge-rt.rules" in rules
    assert not [line for line in rules.splitlines() if "70-edge-rt.rules:" in line], rules


def test_root_leaves_no_files_of_its_own_in_the_state(service: Service) -> None:
    machine = service.container
    machine.run("systemctl", "stop", UNIT)
    code, said = machine.try_run("edge-rt", "factory-reset", "--yes", "--state-dir", STATE)
    assert code == 5 and "sudo -u edge-rt edge-rt" in said, said
    assert machine.run("find", STATE, "-user", "root") == ""
    service.configure(DEFAULT)


@pytest.fixture
def camera(factory_bundle: Callable[[str], Path]) -> dict[str, Any]:
    """Both pipelines; a demo clip stands for the camera, a credential is the template key."""
    factory_bundle("face-detect")
    factory_bundle("face-embed")
    faces = {"enabled": True, "hang_s": 2.0, "template_key": "template-key"}
    return {**DEFAULT, "faces": {**faces, "camera": {"driver": "demo"}}}


def test_a_face_worker_that_hangs_is_replaced_while_falls_run_on(
    service: Service, camera: dict[str, Any]
) -> None:
    machine = service.container
    machine.shell(
        "umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' "
        "> /etc/credstore/edge-rt.template-key"
    )
    # A fall model that somebody brought is first tried in a process that locks itself up.
    bundles = "/opt/edge-rt/current/lib/python3*/site-packages/edge_rt/models"
    machine.shell(f"rm -rf /opt/mine; cp -r {bundles}/fall-waist /opt/mine")
    falls = {**DEFAULT["falls"], "bundle": "/opt/mine"}
    service.configure({**camera, "falls": falls})

    def looking() -> Any:
        faces = service.status()["faces"]
        return faces["worker"] == "running" and faces["frames"] > 0 and faces

    first = machine.wait(looking, "a face worker that sees")
    pid = service.pid()
    hops = service.status()["falls"]["hops"]
    before = service.events()[-1]["sequence"]
    service.kill(signal.SIGSTOP, first["pid"])
    machine.wait(lambda: (f := looking()) and f["pid"] != first["pid"] and f, "another worker")
    status = service.status()
    assert service.pid() == pid
    assert status["faces"]["restarts"] == 1
    assert status["falls"]["hops"] > hops and status["falls"]["sensor"] == "ok"
    lost = [
        event["data"]
        for event in service.events()
        if event["type"] == "edge_rt.device.sensor_lost" and event["sequence"] > before
    ]
    assert not [data for data in lost if data["sensor"] == "accelerometer"], lost


def open_a_device(machine: Container, uid: str) -> None:
    """/dev/bed: free for all by its mode, of no kind that edge_rt needs, and of a kind that the
    kernel has: outside of the sandbox, any user can open it."""
    for kind in ("c 10 200", "c 10 229", "c 10 237", "b 7 0"):  # tun, fuse, loop-control, loop
        machine.shell(f"rm -f /dev/bed; mknod -m 666 /dev/bed {kind}")
        opened = ("setpriv", f"--reuid={uid}", "--clear-groups", "sh", "-c", "exec 3</dev/bed")
        if machine.try_run(*opened)[0] == 0:
            return
    raise AssertionError("no device can be opened in the container at all")


def test_what_the_sandbox_lets_through(service: Service) -> None:
    machine = service.container
    machine.write("/opt/probe.py", PROBE)
    machine.write("/etc/credstore/edge-rt.mqtt-password", "secret")
    machine.shell("chmod 600 /etc/credstore/*")
    uid = machine.run("id", "-u", "edge-rt").strip()
    open_a_device(machine, uid)
    machine.run("setpriv", f"--reuid={uid}", "--clear-groups", "ls", "/home")
    service.configure(DEFAULT, f"[Service]\nExecStartPre=/usr/bin/python3 /opt/probe.py {STATE}\n")
    found = json.loads(machine.run("cat", f"{STATE}/probe.json"))
    groups = {
        int(machine.run("getent", "group", name).split(":")[2]) for name in ("i2c", "gpio", "video")
    }
    assert found.pop("uid") == int(uid)
    assert groups <= set(found.pop("groups"))
    assert {"mqtt-password"} <= set(found.pop("credentials")) <= {"mqtt-password", "template-key"}
    assert found == {
        "write /usr": "EROFS",
        "write /etc": "EROFS",
        "write /opt": "EROFS",
        "write state": "done",
        "list /home": "EACCES",
        "list /root": "EACCES",
        "open device": "EPERM",
        "open null": "done",
        "see init": "ENOENT",
        "netlink": "EAFNOSUPPORT",
        "packet": "EAFNOSUPPORT",
        "internet": "done",
        "unshare": "EPERM",
        "suid": "EPERM",
        "code": "EPERM",
        "tunables": "EROFS",
        "read clock": "done",
        "steer clock": "EPERM",
        "set clock": "EPERM",
    }


# ---- release size: each of these installs once more, or waits for systemd's slow retries ----


def renumbered(source: Path, version: str) -> None:
    wheels.replace(
        source / "edge_rt/__init__.py", "^__version__ = .*$", f'__version__ = "{version}"'
    )


def broken(source: Path) -> None:
    """Starts, and ends before it says that it is ready."""
    renumbered(source, "0.9.2")
    wheels.replace(
        source / "edge_rt/runtime/process.py",
        r"self\._notifier\.ready\(self\._words\(\)\)",
        'time.sleep(2.0); raise EdgeRtError("broken on purpose; take another version")',
    )


def blind(source: Path) -> None:
    """Is ready, and does not see the sensor."""
    renumbered(source, "0.9.3")
    wheels.replace(
        source / "edge_rt/adapters/accel_replay.py",
        r"^    def open\(self\) -> None:$",
        "    def open(self) -> None:\n"
        "        from edge_rt.core.errors import SensorError\n"
        "        raise SensorError('blind on purpose; take another version')\n"
        "    def opened(self) -> None:",
    )


# An upgrade by somebody whose terminal goes away while the new version starts.
GONE = """
before=$(readlink /opt/edge-rt/current)
mkfifo /run/terminal
cat /run/terminal >/dev/null & terminal=$!
/mnt/scripts/install --offline /mnt/wheels --wheel {wheel} >/run/terminal 2>&1 & install=$!
until [ "$(readlink /opt/edge-rt/current)" != "$before" ]; do sleep 0.05; done
kill $terminal
for signal in HUP INT TERM PIPE; do kill -$signal $install; done
wait $install || echo $?
rm /run/terminal
"""


@pytest.fixture(scope="module")
def later(repository: Path, machine: Container, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Puts a wheel of another version into the container: its path there."""

    def make(edit: Callable[[Path], None]) -> str:
        wheel = wheels.build(repository, tmp_path_factory.mktemp("later"), edit)
        machine.push(wheel, f"/opt/{wheel.name}")
        return f"/opt/{wheel.name}"

    return make


@pytest.mark.release
def test_an_upgrade_keeps_state_and_goes_back_if_the_new_version_fails(
    service: Service, later: Callable[[Callable[[Path], None]], str]
) -> None:
    machine = service.container
    service.configure(DEFAULT)
    service.edge_rt("help-now")
    first = machine.run("readlink", "/opt/edge-rt/current").strip()

    code, said = service.install("--wheel", later(lambda source: renumbered(source, "0.9.1")))
    assert code == 0 and "version 0.9.1 runs" in said, said
    second = machine.run("readlink", "/opt/edge-rt/current").strip()
    status, events = service.status(), service.events()
    assert status["version"] == "0.9.1" and second != first
    assert status["falls"]["state"] == "alarm"  # what was raised under the old version
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert machine.try_run("test", "-d", first)[0] == 0, "nothing to go back to"

    # A version that reached READY once and was damaged since is made anew.
    machine.shell(f": >{first}/lib/python3.11/site-packages/edge_rt/core/config.py")
    code, said = service.install("--wheel", service.wheel, "--no-start")
    assert code == 0 and f"making {first}" in said, said

    assert machine.shell(GONE.format(wheel=later(broken)), timeout_s=INSTALL_S).strip() == "1"
    said = machine.run("journalctl", "-t", "edge-rt-install", "-o", "cat", "--no-pager")
    assert "version 0.9.2 did not become ready" in said and "broken on purpose" in said
    assert "went back to 0.9.1" in said
    status = service.status()
    assert status["version"] == "0.9.1" and status["problems"] == []
    assert machine.run("readlink", "/opt/edge-rt/current").strip() == second
    assert service.events()[: len(events)] == events
    assert "0.9.2" not in machine.run("ls", "/opt/edge-rt")

    code, said = service.install("--wheel", later(blind))
    assert code == 1 and "version 0.9.3 sees no sensor" in said, said
    assert "blind on purpose" in said and "went back to 0.9.1" in said, said
    assert service.status()["falls"]["sensor"] == "ok"
    assert machine.shell("ls -d /tmp/tmp.* /etc/systemd/system/*.new 2>/dev/null || true") == ""
    service.edge_rt("resolve")


@pytest.mark.release
def test_a_wrong_configuration_is_said_in_one_line_and_tried_again_slowly(service: Service) -> None:
    machine = service.container
    service.configure(DEFAULT)
    machine.write(CONFIG, "[falls]\nenable = true\n")
    begun = machine.run("date", "+%s.%N").strip()
    assert machine.try_run("systemctl", "restart", UNIT)[0] != 0
    assert "unknown key 'enable'" in machine.show(UNIT, "StatusText")["StatusText"]

    def lines() -> list[str]:
        grep = ("journalctl", "-t", "edge-rt", "-o", "cat", f"--since=@{begun}", "-p", "err")
        return machine.run(*grep, "--no-pager").splitlines()

    machine.wait(lambda: len(lines()) >= 2, "a second try")
    assert set(lines()) == {
        f"edge-rt: {CONFIG}: unknown key 'enable' in [falls]; did you mean 'enabled'?"
    }
    restarts = int(machine.show(UNIT, "NRestarts")["NRestarts"])
    elapsed = float(machine.run("date", "+%s.%N")) - float(begun)
    assert restarts <= elapsed / 10.0 + 1
    machine.write(CONFIG, write_toml(DEFAULT))
    machine.wait(service.is_ready, "the mended configuration")


@pytest.mark.release
def test_a_crash_loop_ends_in_a_degraded_daemon(service: Service, camera: dict[str, Any]) -> None:
    service.configure(camera)
    for _ in range(SPARE_AT):
        pid = service.pid()
        service.kill(signal.SIGKILL, pid)
        status = service.again(pid)
    assert status["faces"] is None and status["falls"]["state"] == "monitoring"
    assert status["problems"][0].startswith("degraded after 3 failed starts, faces off")
    assert "degraded" in service.container.show(UNIT, "StatusText")["StatusText"]
    assert "edge_rt.device.degraded" in [event["type"] for event in service.events()]


@pytest.mark.release
def test_uninstall_leaves_the_state_and_purge_nothing(
    service: Service, later: Callable[[Callable[[Path], None]], str]
) -> None:
    machine = service.container
    places = ("/opt/edge-rt", f"/etc/systemd/system/{UNIT}", "/usr/local/bin/edge-rt")
    kept = (CONFIG, f"{STATE}/events.db", f"{STATE}/templates.bin", "/etc/credstore")
    machine.shell(f"test -e {STATE}/templates.bin || echo sealed > {STATE}/templates.bin")
    machine.run("/mnt/scripts/uninstall", "--dry-run")
    assert service.is_ready()
    machine.run("/mnt/scripts/uninstall")
    assert machine.try_run("test", "-e", DROP_IN)[0] == 0, "what an administrator wrote is gone"
    assert [path for path in places if machine.try_run("test", "-e", path)[0] == 0] == []
    assert [path for path in kept if machine.try_run("test", "-e", path)[0] != 0] == []
    assert machine.try_run("systemctl", "is-active", UNIT)[1].strip() == "inactive"
    # What was kept is taken up again.
    before = machine.run("sha256sum", CONFIG)
    code, said = service.install("--wheel", service.wheel)
    assert code == 0, said
    assert machine.run("sha256sum", CONFIG) == before
    assert len(service.events()) > 2
    machine.run("/mnt/scripts/uninstall", "--purge")
    left = machine.try_run("find", "/etc", "/opt", "/var/lib", "/usr/local", "-name", "*edge?rt*")[
        1
    ]
    assert [path for path in left.split() if path.startswith("/opt/edge_rt-") is False] == []
    assert machine.try_run("id", "edge-rt")[0] != 0

    # A first installation that fails is off, and says so.
    code, said = service.install("--wheel", later(broken))
    assert code == 1 and "broken on purpose" in said, said
    assert "this was the first installation" in said and "nothing is watched" in said
    shown = machine.show(UNIT, "ActiveState", "UnitFileState")
    assert (shown["UnitFileState"], service.is_ready()) == ("disabled", False)
