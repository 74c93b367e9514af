"""The log's WAL is copied when no alarm needs the disk, and never by the writer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_rt.adapters.eventlog import EventLog
from edge_rt.runtime.checkpointer import MAX_PAGES, PAGES, Checkpointer
from edge_rt.runtime.stamps import Stamps

STAMPS = Stamps("/edge-rt/home/hall", "b" * 32)
PATIENT = 20.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    made = EventLog(tmp_path / "events.db", STAMPS.draft)
    for n in range(100):
        made.append([STAMPS.draft("fall", "alarm", {"incident": str(n), "fill": "x" * 4000})])
    yield made
    made.close()


@pytest.fixture
def checkpointer() -> Iterator[Checkpointer]:
    made = Checkpointer()
    yield made
    assert made.close(PATIENT)


def test_a_long_wal_is_copied(log: EventLog, checkpointer: Checkpointer) -> None:
    before = log.path.stat().st_size
    log.wal_pages = PAGES - 1
    checkpointer.committed(log, alarm=False)
    assert log.wal_pages == PAGES - 1
    log.wal_pages = PAGES
    checkpointer.committed(log, alarm=False)
    assert log.wal_pages == 0
    deadline, pause = time.monotonic() + PATIENT, threading.Event()
    while log.path.stat().st_size == before:
        assert time.monotonic() < deadline
        pause.wait(0.01)  # another thread's progress can only be watched


def test_after_an_alarm_the_disk_is_left_to_the_next_one(
    log: EventLog, checkpointer: Checkpointer
) -> None:
    log.wal_pages = PAGES
    checkpointer.committed(log, alarm=True)
    checkpointer.committed(log, alarm=False)
    assert log.wal_pages == PAGES
    log.wal_pages = MAX_PAGES
    checkpointer.committed(log, alarm=True)
    assert log.wal_pages == 0, "but not without bound"


def test_a_log_that_is_gone_ends_nothing(log: EventLog, checkpointer: Checkpointer) -> None:
    path, log.path = log.path, log.path.with_name("gone")
    log.wal_pages = PAGES
    checkpointer.committed(log, alarm=False)
    log.path = path
    before = path.stat().st_size
    log.wal_pages = PAGES
    checkpointer.committed(log, alarm=False)
    deadline, pause = time.monotonic() + PATIENT, threading.Event()
    while path.stat().st_size == before:
        assert time.monotonic() < deadline
        log.wal_pages = PAGES  # the first request may still have stood in its way
        checkpointer.committed(log, alarm=False)
        pause.wait(0.01)
