"""The recorder on real disks that are full, read-only, stalled or damaged."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_rt.adapters.eventlog import EventLog, Stored
from edge_rt.adapters.eventreader import EventReader
from edge_rt.core.errors import StorageError
from edge_rt.core.wire import Event
from edge_rt.runtime import recorder as module
from edge_rt.runtime.checkpointer import PAGES
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps, read_boot_id
from edge_rt.runtime.teller import ALARM_PATIENCE_S, Notice

STAMPS = Stamps("/edge-rt/home/hall", "b" * 32)
PATIENT = 20.0  # how long a test waits for what must happen; only a failure takes so long
DENIED = {"outcome": "denied", "liveness": "not_checked"}


class Listening:
    """A listener that keeps what it hears, and when."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[float, Notice]] = queue.Queue()

    def __call__(self, notice: Notice) -> None:
        self.heard.put((time.monotonic(), notice))

    def next(self) -> Notice:
        return self.heard.get(timeout=PATIENT)[1]

    def all(self) -> list[Notice]:
        return [self.heard.get_nowait()[1] for _ in range(self.heard.qsize())]


class GatedLog(EventLog):
    """A log whose disk hangs while the gate is shut."""

    def __init__(self, gate: threading.Event, *args: Any, **more: Any) -> None:
        self.gate = gate
        self.reached = threading.Event()
        super().__init__(*args, **more)

    def append(self, events: Sequence[Event], *, again: bool = False) -> list[Stored]:
        self.reached.set()
        assert self.gate.wait(PATIENT)
        return super().append(events, again=again)


def opener(path: Path, **more: Any) -> Callable[..., EventLog]:
    return lambda draft, check: EventLog(path, draft, check=check, **more)


@pytest.fixture
def made() -> Iterator[Callable[..., Recorder]]:
    recorders: list[Recorder] = []

    def make(open_log: Callable[..., EventLog], stamps: Stamps = STAMPS) -> Recorder:
        recorders.append(Recorder(open_log, stamps))
        return recorders[-1]

    yield make
    for recorder in recorders:
        recorder.close(2.0)


def whats(path: Path) -> list[str]:
    reader = EventReader(path)
    stored = reader.read(0, 1000)
    reader.close()
    assert [place.sequence for place in stored] == list(range(1, len(stored) + 1)), "gapless"
    return [place.event.what for place in stored]


def alarm(recorder: Recorder, n: int = 0, what: str = "alarm") -> Any:
    return recorder.announce("fall", what, {"incident": str(n), "fill": "x" * 400})


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENT
    while not true():
        assert time.monotonic() < end, "never happened"
        os.sched_yield()


# ---- the way it should be ----


def test_commit_comes_before_telling_and_in_order(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    path = tmp_path / "events.db"
    recorder, siren, uplink = made(opener(path)), Listening(), Listening()
    recorder.listen(uplink)
    recorder.listen(siren, urgent=True)
    in_log: list[bool] = []
    recorder.listen(lambda notice: in_log.append(notice.event.what in whats(path)), urgent=True)
    recorder.announce("device", "started", {})
    for what in ("suspected", "prealarm", "alarm"):
        alarm(recorder, 1, what)
    assert recorder.flush(PATIENT)
    expected = ["started", "suspected", "prealarm", "alarm"]
    assert whats(path) == expected
    assert [notice.event.what for notice in uplink.all()] == expected
    heard = siren.all()
    assert [notice.event.what for notice in heard] == expected
    assert [(n.committed, n.event.sequence != "") for n in heard] == [(True, True)] * 4
    assert in_log == [True] * 4
    status = recorder.status()
    assert (status.storage, status.pending, status.last_sequence) == ("ok", 0, 4)
    assert recorder.close(PATIENT)


def test_the_ticket_is_the_committed_event(tmp_path: Path, made: Callable[..., Recorder]) -> None:
    recorder = made(opener(tmp_path / "events.db"))
    event = alarm(recorder).result(PATIENT)
    assert (int(event.sequence), len(event.logid)) == (1, 32)
    assert event.source == "/edge-rt/home/hall"


def test_many_threads_announce_at_once(tmp_path: Path, made: Callable[..., Recorder]) -> None:
    path = tmp_path / "events.db"
    recorder = made(opener(path))
    tickets: list[list[Any]] = [[], [], [], []]

    def work(mine: list[Any]) -> None:
        mine.extend(alarm(recorder, n) for n in range(100))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in tickets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    places = [[int(ticket.result(PATIENT).sequence) for ticket in mine] for mine in tickets]
    assert all(mine == sorted(mine) for mine in places), "each thread's own order is kept"
    assert sorted(sum(places, [])) == list(range(1, 401))
    assert len(whats(path)) == 400


def test_an_alarm_is_never_refused_for_its_data(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    recorder = made(opener(tmp_path / "events.db"))
    ticket = recorder.announce("fall", "alarm", {"incident": "i7", "why": object()})
    data = ticket.result(PATIENT).data
    assert data["incident"] == "i7"
    assert "not JSON-ready" in data["fault"]
    with pytest.raises(ValueError, match="may not hold distance"):
        recorder.announce("face", "denied", DENIED | {"distance": 0.5})
    with pytest.raises(ValueError, match="no event"):
        recorder.announce("fall", "fell", {})


def test_a_listener_that_fails_does_not_silence_the_next(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    recorder, siren = made(opener(tmp_path / "events.db")), Listening()

    def broken(notice: Notice) -> None:
        raise RuntimeError("a listener's own bug")

    recorder.listen(broken, urgent=True)
    recorder.listen(siren, urgent=True)
    alarm(recorder)
    alarm(recorder)
    assert (siren.next().committed, siren.next().committed) == (True, True)


def test_a_listener_can_leave(tmp_path: Path, made: Callable[..., Recorder]) -> None:
    recorder, first, second = made(opener(tmp_path / "events.db")), Listening(), Listening()
    forget = recorder.listen(first)
    recorder.listen(second)
    alarm(recorder)
    assert recorder.flush(PATIENT)
    forget()
    forget()
    alarm(recorder)
    assert recorder.flush(PATIENT)
    assert (len(first.all()), len(second.all())) == (1, 2)


def test_ask_runs_with_the_log(tmp_path: Path, made: Callable[..., Recorder]) -> None:
    recorder = made(opener(tmp_path / "events.db"))
    alarm(recorder).result(PATIENT)
    assert recorder.ask(lambda log: log.last_sequence).result(PATIENT) == 1
    with pytest.raises(ZeroDivisionError):
        recorder.ask(lambda log: 1 // 0).result(PATIENT)
    assert alarm(recorder).result(PATIENT)


def test_after_close_nothing_is_taken(tmp_path: Path, made: Callable[..., Recorder]) -> None:
    recorder = made(opener(tmp_path / "events.db"))
    assert recorder.close(PATIENT)
    with pytest.raises(StorageError, match="closed"):
        alarm(recorder).result(PATIENT)


# ---- a disk that hangs ----


def test_a_hanging_disk_does_not_hold_up_the_siren(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    path, gate = tmp_path / "events.db", threading.Event()
    recorder = made(lambda draft, check: GatedLog(gate, path, draft))
    siren, uplink = Listening(), Listening()
    recorder.listen(siren, urgent=True)
    recorder.listen(uplink)
    before = time.monotonic()
    ticket = alarm(recorder)
    took_s = time.monotonic() - before
    assert took_s < ALARM_PATIENCE_S / 2, "announcing waits for nothing"
    heard_s, notice = siren.heard.get(timeout=PATIENT)
    assert not notice.committed
    assert heard_s - before >= ALARM_PATIENCE_S * 0.9
    assert heard_s - before < ALARM_PATIENCE_S + 0.8, "with room for a busy machine"
    assert not ticket.done()
    assert recorder.status().pending_alarms == 1
    gate.set()
    assert recorder.flush(PATIENT)
    assert whats(path) == ["alarm"]
    assert siren.all() == [], "the siren hears of each alarm once"
    assert [n.committed for n in uplink.all()] == [True]


def test_memory_is_bounded_and_alarms_have_room_of_their_own(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    path, gate, siren = tmp_path / "events.db", threading.Event(), Listening()
    recorder = made(lambda draft, check: GatedLog(gate, path, draft))
    recorder.listen(siren, urgent=True)
    others = [recorder.announce("face", "denied", DENIED) for _ in range(1100)]
    with pytest.raises(StorageError, match="no room in memory"):
        others[-1].result(0)
    alarms = [recorder.announce("fall", "alarm", {"incident": str(n)}) for n in range(4100)]
    status = recorder.status()
    assert status.pending == module.MAX_PENDING_ALARMS + module.MAX_PENDING_OTHERS
    assert status.dropped == 76 + 4
    assert [siren.next().event.data["incident"] for _ in alarms] == [str(n) for n in range(4100)]
    gate.set()
    assert recorder.flush(PATIENT)
    assert recorder.status().pending == 0
    reader = EventReader(path)
    told = [place.event for place in reader.read(0, 1000)]
    (dropped,) = [event for event in told if event.what == "dropped"]
    assert dropped.data == {"reason": "memory_full", "count": 80}
    reader.close()


def test_an_alarm_waits_for_one_mark_at_most(tmp_path: Path, made: Callable[..., Recorder]) -> None:
    recorder = made(opener(tmp_path / "events.db"))
    assert recorder.flush(PATIENT)
    begun, gate = threading.Event(), threading.Event()

    def slow(log: EventLog) -> int:
        begun.set()
        assert gate.wait(PATIENT)
        return log.last_sequence

    first, second = recorder.ask(slow), recorder.ask(lambda log: log.last_sequence)
    assert begun.wait(PATIENT)
    alarm(recorder)
    gate.set()
    assert (first.result(PATIENT), second.result(PATIENT)) == (0, 1)


# ---- real disks ----


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def test_a_full_disk(disk: Path, made: Callable[..., Recorder]) -> None:
    recorder, siren, uplink = made(opener(disk / "events.db")), Listening(), Listening()
    recorder.listen(siren, urgent=True)
    recorder.listen(uplink)
    recorder.announce("device", "started", {}).result(PATIENT)
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    tickets = []
    while recorder.status().storage != "failing":  # what the WAL has room for still goes in
        tickets.append(alarm(recorder, len(tickets)))
        siren.next()
        assert len(tickets) < 5000
    more = range(len(tickets), len(tickets) + 3)
    tickets += [alarm(recorder, n) for n in more]
    status = recorder.status()
    assert "disk is full" in status.error and "events.db" in status.error
    assert status.pending_alarms >= 3
    last = tickets[-1]
    heard: list[Notice] = []
    while not heard or heard[-1].event.data.get("incident") != str(len(tickets) - 1):
        heard.append(siren.next())
    assert not heard[-1].committed, "it sounds although it is not written"
    assert not last.done()
    ballast.unlink()
    assert last.result(PATIENT).sequence
    assert recorder.flush(PATIENT)
    assert recorder.status().storage == "ok"
    assert whats(disk / "events.db") == ["started"] + ["alarm"] * len(tickets)
    incidents = [n.event.data["incident"] for n in uplink.all() if n.event.what == "alarm"]
    assert incidents == [str(n) for n in range(len(tickets))], "in order, each once"


def test_a_read_only_disk(disk: Path, made: Callable[..., Recorder]) -> None:
    path = disk / "events.db"
    first = made(opener(path))
    first.announce("device", "started", {}).result(PATIENT)
    assert first.close(PATIENT)
    remount(disk, "ro")
    recorder, siren = made(opener(path)), Listening()
    recorder.listen(siren, urgent=True)
    ticket = alarm(recorder)
    assert not siren.next().committed
    wait_until(lambda: recorder.status().storage == "failing")
    assert "Read-only" in recorder.status().error
    with pytest.raises(StorageError, match="Read-only"):
        recorder.ask(lambda log: log.last_sequence).result(PATIENT)
    waits_s = []
    for n in range(5):
        before_s = time.monotonic()
        recorder.announce("fall", "cancelled", {"incident": str(n)})
        waits_s.append(siren.heard.get(timeout=PATIENT)[0] - before_s)
    assert min(waits_s) < ALARM_PATIENCE_S / 2, "nobody waits for a disk that is known to fail"
    remount(disk, "rw")
    assert int(ticket.result(PATIENT).sequence) == 2
    assert recorder.flush(PATIENT)
    assert whats(path) == ["started", "alarm"] + ["cancelled"] * 5
    assert recorder.status().storage == "ok"


def test_a_log_damaged_while_in_use(tmp_path: Path, made: Callable[..., Recorder]) -> None:
    path = tmp_path / "events.db"
    recorder = made(opener(path))
    for n in range(50):
        alarm(recorder, n)
    assert recorder.flush(PATIENT)
    first = recorder.status().logid
    # Checkpoint, so that the pages are read from the file again, then scribble over it.
    for forget in ("wal_checkpoint(TRUNCATE)", "shrink_memory"):
        recorder.ask(lambda log, text=forget: log._db.execute(f"PRAGMA {text}")).result(PATIENT)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(path.stat().st_size - 100))
    ticket = alarm(recorder, 50)
    assert ticket.result(PATIENT).logid != first
    assert whats(path) == ["dropped", "alarm"]
    assert path.with_name("events.db.damaged-1").exists()


def test_an_alarm_log_beyond_its_bound_says_so_once(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    recorder = made(opener(tmp_path / "events.db", max_bytes=60_000))
    for n in range(200):
        alarm(recorder, n)
    assert recorder.flush(PATIENT)
    for n in range(5):
        alarm(recorder, n).result(PATIENT)
    found = whats(tmp_path / "events.db")
    assert found.count("alarm") == 205
    assert found.count("storage_low") == 1


def test_a_full_log_is_trimmed_without_a_long_wal(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    """At most 2,000 pages, 8 MB: PAGES, one portion of deleting (about 500), and as much again for
    what is written meanwhile. In one go it would be more than SQLite's own 4,096."""
    path = tmp_path / "events.db"
    log = EventLog(path, STAMPS.draft)
    while log.used_bytes() < 10_000_000:
        mixed = ["not_worn" if n % 4 == 0 else "storage_low" for n in range(64)]
        log.append([STAMPS.draft("device", what, {"fill": "x" * 100}) for what in mixed])
    log.close()
    recorder, longest = made(opener(path, max_bytes=9_500_000)), 0
    while recorder.status().log_bytes == 0 or recorder.status().log_bytes > 9_500_000:
        recorder.announce("device", "started", {}).result(PATIENT)
        longest = max(longest, path.with_name("events.db-wal").stat().st_size // (4096 + 24))
        time.sleep(0.02)
    assert 0 < longest < 2 * PAGES
    assert recorder.flush(PATIENT)
    reader = EventReader(path)
    new = {place.event.what for place in reader.read(log.last_sequence, 10_000)}
    reader.close()
    assert new == {"dropped", "started"}, "not storage_low: room is being made"


def test_a_flood_with_alarms_takes_no_log_far_past_its_bound(
    tmp_path: Path, made: Callable[..., Recorder]
) -> None:
    """Alarms keep the copying away from the disk for a second each; the trimming must not wait."""
    recorder, most = made(opener(tmp_path / "events.db", max_bytes=1_000_000)), 0
    for n in range(60):
        tickets = [recorder.announce("device", "not_worn", {"n": n}) for _ in range(100)]
        alarm(recorder, n, "suspected").result(PATIENT)
        assert all(ticket.result(PATIENT) for ticket in tickets)
        most = max(most, recorder.status().log_bytes)
    assert 900_000 < most < (1 + module.FLOODED) * 1_000_000 + 100_000, "and a batch or two"
    wait_until(lambda: recorder.status().log_bytes <= 1_000_000)


def test_the_boot_has_an_id() -> None:
    assert len(bytes.fromhex(read_boot_id())) == 16
