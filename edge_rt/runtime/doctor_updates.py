"""The doctor's look at model updates: where trust begins, what lies in the slots, room to fetch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from edge_rt.core.catalog import MAX_BUNDLE_BYTES
from edge_rt.core.config import Config
from edge_rt.core.errors import EdgeRtError
from edge_rt.core.update_record import SLOTS, State
from edge_rt.runtime.check import Check, failed
from edge_rt.runtime.places import MODELS_NAME, UPDATES_NAME

MB = 1024 * 1024
# As it is fetched, and once more unpacked.
LARGEST_MB = 2 * MAX_BUNDLE_BYTES // MB


def check_root(config: Config, now: datetime | None = None) -> Iterator[Check]:
    """The fleet's root metadata can be read and has not expired."""
    name, root = "update root", config.updates.fetch.root
    if not config.updates.enabled:
        yield Check(name, "ok", "model updates are off")
        return
    from edge_rt.core.update_task import Look
    from edge_rt.runtime.update_child import run_child

    trusted = Path(config.runtime.state_dir) / UPDATES_NAME / "trusted"
    answer = run_child(Look(root, str(trusted)), lambda: False)
    if answer.error:
        yield failed(name, answer.error, "see edge-rt status")
        return
    end = datetime.fromtimestamp(answer.expires_s, UTC)
    found = f"{root}: version {answer.root_version}"
    if (now or datetime.now(UTC)) >= end:
        remedy = "no model is taken until a newer root comes: the publisher signs one"
        yield Check(name, "failed", f"{found} ended on {end:%Y-%m-%d}", remedy)
    else:
        yield Check(name, "ok", f"{found} is trusted until {end:%Y-%m-%d}")


def check_slots(config: Config) -> Iterator[Check]:
    """The journal of each task can be read, and what it calls live or previous lies in its slot.

    Also without updates: a confirmed model runs on.
    """
    state = Path(config.runtime.state_dir)
    tasks = ["fall"] if config.falls.enabled else []
    tasks += ["face-detect", "face-embed"] if config.faces.enabled else []
    for task in tasks:
        if (state / MODELS_NAME / task).is_dir():
            yield _check_task(state, task)


def _check_task(state: Path, task: str) -> Check:
    from edge_rt.runtime.update_journal import Journal

    name, journal = f"slots {task}", Journal(state, task)
    try:
        record = journal.peek()
        for slot in SLOTS:
            if slot in (record.live, record.previous):
                journal.check(slot, record.contents.get(slot))
    except EdgeRtError as error:
        return failed(name, str(error), "the daemon runs the previous model, or the factory one")
    running = record.running
    live = f"{running.name} {running.version} in slot {record.live}" if running else "factory model"
    found = f"live: {live}, previous: {record.previous}"
    if record.state is not State.IDLE and record.candidate is not None:
        found += f"; {record.candidate.name} {record.candidate.version} is {record.state}"
    return Check(name, "ok", found)


def check_room(config: Config) -> Iterator[Check]:
    """The largest model that is accepted can be fetched and unpacked."""
    if not config.updates.enabled:
        return
    folder, reserve_mb = Path(config.runtime.state_dir), config.updates.fetch.reserve_mb
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free_mb = shutil.disk_usage(place).free // MB
    found = f"{free_mb} MB free at {place}, of which {reserve_mb} stay free"
    remedy = f"free {reserve_mb + LARGEST_MB} MB, or lower updates.fetch.reserve_mb"
    if free_mb <= reserve_mb:
        yield Check("update room", "failed", f"{found}: nothing can be fetched", remedy)
    elif free_mb < reserve_mb + LARGEST_MB:
        yield Check("update room", "warning", f"{found}: too little for a large model", remedy)
    else:
        yield Check("update room", "ok", found)
