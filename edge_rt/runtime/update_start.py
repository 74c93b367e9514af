"""Which model a start runs: the confirmed slot, the slot on trial (counted), else the factory's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_rt.core.errors import StorageError
from edge_rt.core.update import Event, start, step
from edge_rt.core.update_record import State
from edge_rt.runtime.update_journal import Journal

log = logging.getLogger(__name__)
T = TypeVar("T")


def begin(journal: Journal, open_live: Callable[[Path | None], T], *, watched: bool) -> T:
    """Open the model to start with, and leave the journal at what runs.

    open_live  opens a slot's folder, or the factory bundle (None)
    watched    a model on trial would be watched; without that it does not run

    The start is counted on disk, with its boot, before a model of a slot is opened. What is wrong
    with a slot never keeps the device from watching: raises only what opening the factory bundle
    raises.
    """
    record = journal.load()
    if record.state is State.IDLE and record.live == "factory":
        return open_live(None)
    if record.state is not State.IDLE and not watched:
        event = Event.BROKEN if record.state is State.TRIAL else Event.WITHDRAWN
        record = step(record, event, reason="updates are off: nothing judges the model")
    record = start(record, journal.boot_id)
    try:
        journal.write(record)
    except StorageError as error:
        if record.state is State.TRIAL:
            # Without the count a model that crashes at start would do so for ever.
            record = step(record, Event.BROKEN, reason=f"its start cannot be counted: {error}")
        journal.keep(record)
    while journal.record.live != "factory":
        try:
            return open_live(journal.folder_of(journal.record.live))
        except Exception as error:  # whatever is wrong with a slot, another model has to watch
            running = journal.record.running
            name = f"{running.name} {running.version}" if running else "an unknown model"
            log.error("%s: cannot start on %s: %s", journal.task, name, error)
            journal.keep(step(journal.record, Event.BROKEN, reason=str(error)))
    return open_live(None)
