"""Limits and locks that a trial process puts on itself, by way of the Linux kernel.

`limit` bounds what the process may use; `lock` takes away files, network and other processes, and
cannot be undone. Between the two the process reads what it is going to need.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from math import ceil

# The parent ends us by its own clock; this is for when it is not there any more.
CPU_SLACK_S = 15
NICE = 10  # the fall watch goes first

# prctl(2), linux/prctl.h
_SECCOMP, _NO_NEW_PRIVS = 22, 38
_SECCOMP_FILTER = 2
# Landlock's three calls have these numbers on every architecture (landlock(7)).
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446

# What arithmetic in Python and C needs of the kernel once all is loaded: memory, time, one's own
# threads and signals, and writing to what is open. No open, socket, fork, exec, ptrace or prlimit.
# (number on x86-64, number on aarch64): asm/unistd_64.h and asm-generic/unistd.h.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "fstat": (5, 80),
    "close": (3, 57),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "membarrier": (324, 283),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "restart_syscall": (219, 128),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_TGKILL = (234, 131)  # abort() needs it; only towards ourselves
# machine -> (column above, AUDIT_ARCH_* of linux/audit.h). Elsewhere this layer is absent.
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def limit(memory_mb: int, timeout_s: float, file_bytes: int) -> None:
    """Bound memory, processor time, file size and processes, and step back behind everyone else.

    memory_mb   what may be added to what the process holds now
    file_bytes  the longest file it may write
    """
    # RLIMIT_DATA, not RLIMIT_AS: only what can be written counts, not the engine's mapped code.
    memory = 1024 * status_kb("VmData") + memory_mb * 1024 * 1024
    seconds = ceil(timeout_s) + CPU_SLACK_S
    for what, value in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _at_most(what, value)
    os.nice(NICE)
    # If the board does run out of memory, let it be this process. Raising the own score needs no
    # right; where /proc is read-only the limit above has to do.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def lock() -> tuple[str, ...]:
    """Cut the process off for good; the names of the layers that now hold.

    descriptors  no file, socket or pipe can be opened any more, at any number; none is open but
                 those the caller holds. Always.
    processes    no process or thread can be started (RLIMIT_NPROC; not binding for root)
    landlock     the kernel refuses files, TCP, and signals to others, as far as it knows how
    seccomp      every system call is refused but those that arithmetic needs

    Modules that are imported later cannot be found: whatever is needed must be loaded before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    layers = []
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        if _landlock(libc):
            layers.append("landlock")
        seccomp = _filter()
    else:
        seccomp = None
    _at_most(resource.RLIMIT_NPROC, 0)
    # 0, not "one more than is open": then even a closed number cannot be taken again.
    _at_most(resource.RLIMIT_NOFILE, 0)
    layers += ["descriptors"] + ["processes"] * (os.geteuid() != 0)
    if seccomp is not None and _install(libc, seccomp):
        layers.append("seccomp")
    return tuple(sorted(layers))


def status_kb(field: str) -> int:
    """A size from /proc/self/status (proc(5)), which gives kibibytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def _at_most(what: int, value: int) -> None:
    """A limit may be lower already; only root could raise it."""
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def _landlock(libc: ctypes.CDLL) -> bool:
    """A ruleset without a single rule: everything it knows of is refused."""
    version = libc.syscall(_LANDLOCK_CREATE, 0, 0, 1)  # LANDLOCK_CREATE_RULESET_VERSION
    if version < 1:
        return False
    # Rights by the ABI that brought them (linux/landlock.h): 13 at first, then refer, truncate,
    # ioctl on devices; bind and connect over TCP; signals and abstract sockets.
    files = 0x1FFF
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        files |= (version >= since) << bit
    network, scope = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    attributes = struct.pack("=QQQ", files, network, scope)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    held = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return bool(held)


def _filter() -> bytes | None:
    """A classic BPF program over struct seccomp_data (seccomp(2)); None on an unknown machine."""
    # Offsets there are of a little-endian machine, and names of a 64-bit Python.
    if platform.machine() not in _MACHINES or sys.byteorder != "little" or sys.maxsize < 2**32:
        return None
    column, architecture = _MACHINES[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    allow, refuse = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM
    numbers = sorted(entry[column] for entry in _ALLOWED.values())
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (answer, 0, 0, refuse),
        (load, 0, 0, 0),
    ]
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        program.append((equal, left + 3, 0, number))  # over the rest to the last step: allow
    program += [
        (equal, 0, 2, _TGKILL[column]),
        (load, 0, 0, 16),  # low half of the first argument
        (equal, 1, 0, os.getpid()),
        (answer, 0, 0, refuse),
        (answer, 0, 0, allow),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _install(libc: ctypes.CDLL, program: bytes) -> bool:
    steps = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: an unsigned short, padding, a pointer.
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
    return bool(libc.prctl(_SECCOMP, _SECCOMP_FILTER, fprog, 0, 0) == 0)
