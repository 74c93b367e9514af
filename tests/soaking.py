"""What a long run of a daemon is looked at with: readings of /proc, slopes, and a day to replay."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_rt.adapters.trials import Trial, write_trials
from edge_rt.falls.simulate import ACTIVITIES, FALLS, simulate
from edge_rt.runtime.footprint import family, memory

RATE_HZ = 50.0
WARM_UP = 0.25  # share of a run: caches fill, the pages of a new process are touched


class Look(NamedTuple):
    """One reading of a daemon and all below it. log_mb: the database; journal_mb: WAL and index."""

    t_s: float
    pss_mb: float
    files: int
    threads: int
    log_mb: float
    journal_mb: float


def look(root: int, state: Path) -> Look:
    """Read now; `root` is the daemon's process id, `state` its state folder."""
    files = threads = 0
    for pid in family(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
    log_mb, journal_mb = (
        sum(path.stat().st_size for path in state.glob(pattern)) / 1e6
        for pattern in ("events.db", "events.db-*")
    )
    return Look(time.monotonic(), memory(root)["total"], files, threads, log_mb, journal_mb)


def growth(looks: Sequence[Look], column: str) -> float:
    """What a column gains over the whole run by its slope after the warm-up, in its own unit.

    The slope is the median of the slopes of all pairs (Theil 1950, Sen 1968): a garbage collection
    or a neighbour on the machine does not move it, a leak does. ValueError for fewer than 8 looks.
    """
    settled = looks[round(len(looks) * WARM_UP) :]
    if len(settled) < 8:
        raise ValueError(f"{len(settled)} looks after the warm-up are no slope; look more often")
    t_s = np.array([one.t_s for one in settled])
    values = np.array([getattr(one, column) for one in settled], float)
    first, second = np.triu_indices(len(settled), 1)
    slope = np.median((values[second] - values[first]) / (t_s[second] - t_s[first]))
    return float(slope * (looks[-1].t_s - looks[0].t_s))


def written_bytes(root: int) -> int:
    """Bytes that the processes sent towards a disk so far (proc(5), io: write_bytes).

    Children that have ended count in their parent's.
    """
    total = 0
    for pid in family(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                if line.startswith("write_bytes:"):
                    total += int(line.split()[1])
    return total


def record_day(path: Path, minutes: float) -> float:
    """Write a recording to be repeated: activities of many seeds, then one fall; its seconds."""
    parts, count, seed = [], 0, 0
    scripts = list(ACTIVITIES.values())
    fall = simulate(FALLS["walking"], 3, rate_hz=RATE_HZ).block.acc_g
    while count < minutes * 60.0 * RATE_HZ - len(fall):
        part = simulate(scripts[seed % len(scripts)], seed, rate_hz=RATE_HZ).block.acc_g
        parts.append(part)
        count, seed = count + len(part), seed + 1
    acc_g = np.concatenate([*parts, fall])
    write_trials(path, [Trial("simulated", "day", "mixed", True, "waist", RATE_HZ, acc_g)])
    return len(acc_g) / RATE_HZ
