"""A virtual machine with Debian's own kernel: devices, control groups, and a plug to pull (QEMU).

Emulated without KVM. The disks stay as they are; what is written there goes to overlays. It shares
a folder with this machine, /share in there, runs its program `start` and turns itself off.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from beds.rootfs import NoBed, beds_dir, debian, needs, only_one

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps", "python3", "python3-venv"),
    *("linux-image-amd64", "initramfs-tools", "lz4"),
)
TOOLS = ("qemu-system-x86_64", "qemu-img", "mke2fs", "chroot")
MAKE_S = 900.0  # beside other work
DISK_MB, OPT_MB = 2560, 1536
START = """#!/bin/sh
mkdir -p /share /opt
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /share
mount -o ro /dev/vdb /opt
sh /share/start >/share/output 2>&1
echo $? >/share/code
systemctl poweroff --force --force
"""
UNIT = """[Unit]
Description=what the shared folder says
After=basic.target
[Service]
ExecStart=/usr/local/sbin/bed-start
[Install]
WantedBy=multi-user.target
"""
# Loaded before the root file system is there: everything else udev finds.
EARLY = "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n9pnet_virtio\n9p\n"
IDLE = (
    *("systemd-timesyncd.service", "systemd-networkd-wait-online.service", "getty@tty1.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer"),
)


class Image(NamedTuple):
    """What a machine is started from; nobody writes to it."""

    kernel: Path
    initrd: Path
    disk: Path


def system() -> Image:
    """A Debian with its kernel. Raises NoBed."""
    needs(*TOOLS)
    root = debian("vm", PACKAGES)
    recipe = hashlib.sha256(repr((START, UNIT, EARLY, IDLE, DISK_MB)).encode()).hexdigest()[:6]
    folder = root.with_name(f"{root.name}-{recipe}.image")
    with only_one(root.with_suffix(".lock")):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            with _upon(root, new / "work") as tree:
                _prepare(tree)
                for name in ("vmlinuz", "initrd.img"):
                    (found,) = (tree / "boot").glob(f"{name}-*")
                    shutil.copy(found, new / name)
                _make_disk(new / "disk", tree, DISK_MB)
            shutil.rmtree(new / "work")
            new.rename(folder)
    return Image(folder / "vmlinuz", folder / "initrd.img", folder / "disk")


def opt_disk(wheel: Path, dependencies: Path, scripts: Path) -> Path:
    """A disk for /opt, with the environment that scripts/install makes of `wheel`; it stops there
    short of what needs a running systemd. Made here: emulated it would take many minutes."""
    root = debian("vm", PACKAGES)
    parts = (wheel.read_bytes(), (scripts / "install").read_bytes(), str(dependencies).encode())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:10]
    disk = beds_dir() / f"vm-opt-{name}.disk"
    with only_one(beds_dir() / "vm-opt.lock"):
        if not disk.exists():
            for old in beds_dir().glob("vm-opt-*.disk"):
                old.unlink()  # one for each state of the source would soon fill this disk
            scratch = tempfile.TemporaryDirectory(prefix="edge-rt-vm-", dir=beds_dir())
            with scratch as work, _upon(root, Path(work)) as tree:
                shutil.copytree(dependencies, tree / "mnt/wheels")
                shutil.copy(wheel, tree / "mnt")
                shutil.copy(scripts / "install", tree / "mnt/install")
                (tree / "run/systemd/system").mkdir(parents=True)  # where it looks for one
                options = ("--offline", "/mnt/wheels", "--wheel", f"/mnt/{wheel.name}")
                _in(tree, "/mnt/install", "--no-start", *options)
                _make_disk(disk, tree / "opt", OPT_MB)
    return disk


class Machine:
    """One that may run. What it writes to its disk stays from one start to the next.

    share    the folder that it shares
    """

    def __init__(self, image: Image, opt: Path, share: Path, scratch: Path) -> None:
        self.share = share
        self._image = image
        self._overlays = [scratch / "system", scratch / "opt"]
        self._console = scratch / "console"
        self._process: subprocess.Popen[bytes] | None = None
        for overlay, disk in zip(self._overlays, (image.disk, opt), strict=True):
            _run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "raw",
                 str(overlay))  # fmt: skip

    def start(self) -> None:
        """Switch it on."""
        for name in ("code", "output"):
            (self.share / name).unlink(missing_ok=True)
        command = [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi,tb-size=512"),
            *("-cpu", "max", "-smp", "2", "-m", "1536", "-nodefaults", "-no-reboot"),
            *("-display", "none", "-serial", f"file:{self._console}"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd), "-append"),
            "root=/dev/vda rw console=ttyS0 quiet mitigations=off systemd.show_status=0",
            # A write goes to this machine's kernel before the guest hears that it is done: what is
            # lost at a cut is what the guest had not asked to be written.
            *(part for overlay in self._overlays for part in ("-drive", _drive(overlay))),
            *("-virtfs", f"local,path={self.share},mount_tag=share,security_model=none"),
            *("-device", "virtio-rng-pci"),
        ]
        # It ends with us, however we end.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL
        )

    def wait(self, timeout_s: float) -> int:
        """Until it has turned itself off: the exit code of `start`. Raises AssertionError."""
        assert self._process is not None
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.cut()
            raise AssertionError(f"not done within {timeout_s:g} s\n{self.said()}") from None
        code = self.share / "code"
        assert code.exists(), f"it ended before its time\n{self.said()}"
        return int(code.read_text())

    def cut(self) -> None:
        """Pull the plug."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def running(self) -> bool:
        """Whether it is on."""
        return self._process is not None and self._process.poll() is None

    def until(self, path: Path, timeout_s: float) -> None:
        """Wait for a file of the shared folder. Raises AssertionError."""
        end_s = time.monotonic() + timeout_s
        while not path.exists():
            assert self.running(), f"it ended before {path.name}\n{self.said()}"
            assert time.monotonic() < end_s, f"waited in vain for {path.name}\n{self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        """The end of what it wrote."""
        texts = []
        for path in (self._console, self.share / "output"):
            texts.append(path.read_text(errors="replace")[-12000:] if path.exists() else "")
        return "\n".join(texts)


def _drive(overlay: Path) -> str:
    return f"file={overlay},format=qcow2,if=virtio"


def _prepare(tree: Path) -> None:
    for path, text in (
        ("etc/fstab", "/dev/vda / ext4 errors=remount-ro 0 1\n"),
        ("etc/hostname", "edge-rt-bed\n"),
        ("etc/initramfs-tools/conf.d/bed", "MODULES=list\nCOMPRESS=lz4\n"),
        ("etc/initramfs-tools/modules", EARLY),
        ("etc/systemd/system/bed.service", UNIT),
        ("usr/local/sbin/bed-start", START),
    ):
        (tree / path).write_text(text)
    (tree / "usr/local/sbin/bed-start").chmod(0o755)
    _in(tree, "systemctl", "enable", "bed.service")
    _in(tree, "systemctl", "mask", *IDLE)
    _in(tree, "update-initramfs", "-u")


@contextlib.contextmanager
def _upon(root: Path, work: Path) -> Iterator[Path]:
    """`root`, as it may be changed until the end of the block; `work` takes the changes."""
    for name in ("upper", "work", "tree"):
        (work / name).mkdir(parents=True)
    layers = f"lowerdir={root},upperdir={work}/upper,workdir={work}/work"
    tree = work / "tree"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, str(tree))
    try:
        yield tree
    finally:
        _run("umount", str(tree))


def _make_disk(path: Path, tree: Path, size_mb: int) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with new.open("wb") as file:
        file.truncate(size_mb << 20)
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(new))
    new.rename(path)


def _in(tree: Path, *command: str) -> None:
    _run("mount", "-t", "proc", "proc", str(tree / "proc"))
    try:
        _run("chroot", str(tree), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
             "LANG=C.UTF-8", "HOME=/root", *command)  # fmt: skip
    finally:
        _run("umount", str(tree / "proc"))


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MAKE_S,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise NoBed(f"{' '.join(command[:3])} ... failed: {said}")
