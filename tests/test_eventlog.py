"""The event log on real files: order, durability, bounds, damage, receipts, readers."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from edge_rt.adapters import eventlog
from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.eventreader import (
    EventReader,
    check_database,
    checkpoint,
    copy_database,
    mark_restored,
)
from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.wire import Event, Lane, make_event

_numbers = count(1)


def draft(kind: str, what: str, data: Mapping[str, Any]) -> Event:
    return make_event(
        kind,
        what,
        data,
        source="/edge-rt/home/hall",
        unix_s=1.7e9,
        random=next(_numbers).to_bytes(10, "big"),
        boot_id="b",
        monotonic_s=1.0,
        clock_trusted=True,
    )


def alarm(n: int = 0) -> Event:
    return draft("fall", "alarm", {"incident": str(n), "fill": "x" * 500})


def denied() -> Event:
    return draft("face", "denied", {"outcome": "denied", "liveness": "not_checked"})


def telemetry() -> Event:
    return draft("device", "not_worn", {"fill": "x" * 500})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    made = EventLog(path, draft)
    yield made
    made.close()


@pytest.fixture
def reader(path: Path) -> Iterator[EventReader]:
    made = EventReader(path)
    yield made
    made.close()


def everything(path: Path) -> list[tuple[int, Event]]:
    reader = EventReader(path)
    stored = reader.read(0, eventlog.MAX_BATCH * 100)
    reader.close()
    return [(place.sequence, place.event) for place in stored]


# ---- order and places ----


def test_events_have_gapless_places_over_restarts(path: Path, log: EventLog) -> None:
    log.append([alarm(1), denied()])
    log.close()
    again = EventLog(path, draft)
    stored = again.append([alarm(2)])
    assert [place for place, _ in everything(path)] == [1, 2, 3]
    event = stored[0].event
    assert (event.sequence, event.logid) == ("000000000003", again.logid)
    assert again.logid == log.logid
    again.close()


def test_a_place_is_never_given_twice_even_if_the_newest_event_goes(path: Path) -> None:
    log = EventLog(path, draft, max_bytes=1, pinned=False)
    log.append([denied(), denied()])
    (told,) = log.trim()
    assert told.event.data["ranges"] == [[1, 2]]
    log.close()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM events")
    db.close()
    again = EventLog(path, draft)
    assert again.append([denied()])[0].sequence == 4
    again.close()


def test_a_batch_is_all_or_none(log: EventLog, path: Path) -> None:
    twin = alarm()
    with pytest.raises(StorageError, match="UNIQUE"):
        log.append([denied(), twin, twin])
    assert everything(path) == []
    assert log.append([alarm()])[0].sequence == 1


def test_a_second_try_adds_nothing_twice(log: EventLog, path: Path) -> None:
    first, second = alarm(1), alarm(2)
    log.append([first])
    stored = log.append([first, second], again=True)
    assert [place.sequence for place in stored] == [1, 2]
    assert [event.id for _, event in everything(path)] == [first.id, second.id]


def test_a_batch_is_bounded(log: EventLog) -> None:
    with pytest.raises(ValueError, match="at most 64"):
        log.append([alarm() for _ in range(65)])


@pytest.mark.parametrize(
    ("event", "level"), [(alarm, 2), (denied, 1), (telemetry, 1)], ids=["alarm", "event", "other"]
)
def test_alarms_are_power_safe(log: EventLog, event: Any, level: int) -> None:
    log.append([alarm()] if level == 1 else [denied()])
    log.append([denied(), event()])
    # The level that the commit ran at; SQLite tells it per connection only.
    assert log._db.execute("PRAGMA synchronous").fetchone() == (level,)


def test_no_commit_copies_the_wal_and_checkpoint_does_beside_the_writer(
    path: Path, log: EventLog
) -> None:
    for n in range(300):  # SQLite by itself would have begun after 1,000 pages
        log.append([alarm(n)])
    assert log.wal_pages > 1000
    before = path.stat().st_size
    assert before < 16 * 4096
    with log._transaction():  # whatever the writer is at
        checkpoint(path)
    assert path.stat().st_size > before
    log.append([alarm()])
    assert len(everything(path)) == 301
    with pytest.raises(StorageError):
        checkpoint(path.with_name("absent"))


def test_the_files_are_private(log: EventLog, path: Path) -> None:
    log.append([alarm()])
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {0o600}


# ---- readers ----


def test_readers_see_commits_and_keep_their_own_place(log: EventLog, reader: EventReader) -> None:
    assert reader.read() == []
    log.append([alarm(), denied(), alarm()])
    assert [place.sequence for place in reader.read(1)] == [2, 3]
    assert [place.sequence for place in reader.read(0, lane=Lane.ALARM)] == [1, 3]
    assert [place.sequence for place in reader.read(0, limit=1)] == [1]
    assert (reader.last_sequence(), reader.logid()) == (3, log.logid)


def test_the_newest_events_are_found_behind_gaps(log: EventLog, reader: EventReader) -> None:
    log.append([alarm(), denied(), alarm(), denied()])
    with sqlite3.connect(log.path) as db:
        db.execute("DELETE FROM events WHERE sequence = 3")
    assert [place.sequence for place in reader.read(reader.before(2))] == [2, 4]
    assert (reader.before(3), reader.before(100), reader.before(0)) == (0, 0, 4)


def test_a_reader_writes_nothing(log: EventLog, reader: EventReader) -> None:
    log.append([alarm()])
    reader.read()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM events")  # type: ignore[union-attr]


def test_a_reader_follows_into_a_new_log(path: Path, log: EventLog, reader: EventReader) -> None:
    log.append([alarm(), alarm()])
    assert len(reader.read()) == 2
    log.close()
    for ending in ("-wal", "-shm"):  # the WAL alone would mend the file
        Path(f"{path}{ending}").unlink()
    path.write_bytes(b"no database at all" * 100)
    again = EventLog(path, draft)
    assert [place.event.what for place in reader.read()] == ["dropped"]
    assert reader.logid() == again.logid != log.logid
    again.close()


def test_no_log_yet(reader: EventReader) -> None:
    with pytest.raises(StorageError, match="no such event log"):
        reader.read()


def test_a_log_that_was_killed_at_birth(path: Path, reader: EventReader) -> None:
    path.touch()
    with pytest.raises(StorageError, match="no event log yet"):
        reader.read()
    log = EventLog(path, draft)
    assert log.append([alarm()])[0].sequence == 1
    assert len(reader.read()) == 1
    log.close()


def test_marks(path: Path, log: EventLog) -> None:
    log.mark("uplink", Lane.ALARM, 3)
    log.mark("uplink", Lane.ALARM, 5)
    log.close()
    again = EventLog(path, draft)
    assert again.marks("uplink") == {Lane.ALARM: 5, Lane.EVENT: 0, Lane.TELEMETRY: 0}
    again.close()


# ---- receipts ----


def test_what_has_no_receipt_is_next(path: Path, log: EventLog) -> None:
    log.append([alarm(), denied(), alarm(), alarm()])
    log.receipt(Lane.ALARM, 3, [1])
    log.close()
    again = EventLog(path, draft)
    assert [place.sequence for place in again.next_unreceipted(Lane.ALARM)] == [1, 4]
    assert [place.sequence for place in again.next_unreceipted(Lane.ALARM, after=1)] == [4]
    assert again.unreceipted(Lane.ALARM) == 2
    assert [place.sequence for place in again.next_unreceipted(Lane.EVENT)] == [2]
    again.receipt(Lane.ALARM, 1)  # comes late, but tells that 1 is there after all
    assert [place.sequence for place in again.next_unreceipted(Lane.ALARM)] == [4]
    again.close()


def test_a_receipt_of_what_was_never_sent_is_refused(log: EventLog) -> None:
    log.append([alarm()])
    with pytest.raises(InputError, match="log ends at 1"):
        log.receipt(Lane.ALARM, 2)


# ---- bounds ----


def fill(log: EventLog) -> None:
    for n in range(20):
        log.append([alarm(n), *(denied() for _ in range(10)), *(telemetry() for _ in range(20))])


def lanes(path: Path) -> dict[str, int]:
    found = [event.lane for _, event in everything(path)]
    return {lane: found.count(lane) for lane in Lane}


def test_telemetry_goes_first_and_what_went_is_told(path: Path) -> None:
    log = EventLog(path, draft, max_bytes=450_000)
    fill(log)
    before = {place for place, _ in everything(path)}
    told = log.trim()
    assert log.used_bytes() <= 450_000
    after = {place for place, _ in everything(path)}
    ranges = [span for place in told for span in place.event.data["ranges"]]
    gone = {n for first, last in ranges for n in range(first, last + 1)}
    assert gone == before - after
    assert len(gone) == sum(place.event.data["count"] for place in told)
    counts = lanes(path)
    assert counts["telemetry"] < 400
    assert (counts["alarm"], counts["event"]) == (20, 200 + len(told))
    assert not log.trim(), "trimming below the bound again is idle"
    log.close()


def test_receipted_events_go_next_then_others_and_an_unreceipted_alarm_never(path: Path) -> None:
    log = EventLog(path, draft, max_bytes=170_000)
    fill(log)
    half = log.last_sequence // 2
    for lane in Lane:
        log.receipt(lane, half)
    log.trim()
    counts = lanes(path)
    assert counts["telemetry"] == 0
    assert counts["alarm"] + counts["event"] < 220
    left = everything(path)
    assert sum(event.lane is Lane.ALARM for place, event in left if place > half) == 10
    log.max_bytes = 1
    log.trim()
    assert lanes(path) == {"alarm": 10, "event": 1, "telemetry": 0}
    assert everything(path)[-1][1].what == "dropped"
    assert not log.trim(), "what cannot shrink any more is left alone"
    log.close()


def test_without_an_uplink_nothing_pins(path: Path) -> None:
    log = EventLog(path, draft, max_bytes=100_000, pinned=False)
    for _ in range(10):
        log.append([alarm(n) for n in range(64)])
        log.trim()
    assert log.used_bytes() < 160_000
    kept = [place for place, event in everything(path) if event.lane is Lane.ALARM]
    assert kept == sorted(kept) and kept[-1] >= 640, "the newest stay"
    log.close()


def wal_pages(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size // (4096 + 24)  # sqlite.org/fileformat2.html, 4.1


def overfull(path: Path, every: int, size: int) -> EventLog:
    """3 MB in a log for 2 MB, each `every`th event of it telemetry; nobody copies its WAL."""
    log = EventLog(path, draft, max_bytes=2_000_000)
    while log.used_bytes() < 3_000_000:
        made = ["not_worn" if n % every == 0 else "storage_low" for n in range(64)]
        log.append([draft("device", what, {"fill": "x" * size}) for what in made])
    log._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log._db.execute("PRAGMA wal_autocheckpoint = 0")
    log.wal_pages = 0
    return log


@pytest.mark.parametrize("size", [100, 500, 3000, 6000])
@pytest.mark.parametrize("every", [1, 4, 32])
def test_what_deleting_writes_is_counted(path: Path, every: int, size: int) -> None:
    """From 1 to 4 times what the file really grows by."""
    log = overfull(path, every, size)
    assert log.trim()
    assert wal_pages(path) <= log.wal_pages <= 4 * wal_pages(path)
    log.close()


@pytest.mark.parametrize("size", [100, 500, 3000, 6000])
@pytest.mark.parametrize("batch", [1, 64])
def test_what_appending_and_receipts_write_is_counted(path: Path, batch: int, size: int) -> None:
    log = overfull(path, 4, size)
    for _ in range(10):
        log.append([draft("device", "not_worn", {"fill": "x" * size}) for _ in range(batch)])
    assert wal_pages(path) <= log.wal_pages <= 4 * wal_pages(path)
    before = wal_pages(path), log.wal_pages
    end = log.last_sequence
    log.receipt(Lane.EVENT, end, range(end - 200, end, 2))
    log.mark("siren", Lane.EVENT, end)
    assert 0 < wal_pages(path) - before[0] <= log.wal_pages - before[1]
    log.close()


def test_trimming_stops_where_the_wal_is_long_and_goes_on_later(path: Path) -> None:
    log = overfull(path, 4, 100)
    log.trim(wal_pages=300)
    assert log.trimming
    assert 300 <= log.wal_pages < 600
    assert not log.trim(wal_pages=300)
    log.wal_pages = 0
    log.trim()
    assert not log.trimming
    assert log.used_bytes() <= 2_000_000
    log.close()


# ---- damage ----


def aside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob("*.damaged-*") if file.suffix != ".x")


@pytest.mark.parametrize("harm", ["garbage", "truncated", "page", "foreign", "newer", "not ours"])
def test_a_damaged_log_is_kept_and_a_new_one_says_so(path: Path, harm: str) -> None:
    log = EventLog(path, draft)
    for n in range(40):
        log.append([alarm(n)])
    log.close()
    whole = path.read_bytes()
    if harm == "garbage":
        path.write_bytes(os.urandom(10_000))
    elif harm == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif harm == "page":
        path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    else:
        with sqlite3.connect(path) as db:
            if harm == "newer":
                db.execute("PRAGMA user_version = 99")
                db.execute("UPDATE meta SET value = '99' WHERE key = 'min_reader'")
            elif harm == "foreign":
                db.execute("DROP TABLE meta")
            else:
                db.execute("PRAGMA user_version = 0")
        db.close()
    again = EventLog(path, draft, check=True)
    ((place, event),) = everything(path)
    assert (place, event.kind, event.what) == (1, "device", "dropped")
    assert event.data["reason"] == "log_damaged"
    assert event.data["kept_as"] == "events.db.damaged-1"
    assert path.with_name("events.db.damaged-1").stat().st_size > 0
    assert again.logid != log.logid
    assert again.append([alarm()])[0].sequence == 2
    again.close()
    EventLog(path, draft, check=True).close()
    assert len([name for name in aside(path) if name.endswith("-1")]) == 1, "once is enough"


@pytest.mark.parametrize(("least", "kept"), [("1", True), ("2", False), ("", False)])
def test_a_newer_log_is_gone_on_with_where_it_says_so(path: Path, least: str, kept: bool) -> None:
    log = EventLog(path, draft)
    log.append([alarm(1)])
    log.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
        db.execute("UPDATE meta SET value = ? WHERE key = 'min_reader'", (least,))
        for table in ("marks", "receipts", "exceptions", "events", "meta"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN later TEXT")
    db.close()
    again = EventLog(path, draft)
    assert (again.logid == log.logid, again.set_aside == "") == (kept, kept)
    assert again.append([alarm(2)])[0].sequence == 2
    again.mark("one", Lane.ALARM, 1)
    again.receipt(Lane.ALARM, 1)
    again.close()
    with sqlite3.connect(path) as db:  # the newer one finds its own again
        assert db.execute("PRAGMA user_version").fetchone()[0] == (2 if kept else 1)
    db.close()


def test_damage_after_a_kill_is_found_without_asking(path: Path) -> None:
    log = EventLog(path, draft)
    for n in range(40):
        log.append([alarm(n)])
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    Path(f"{path}-wal").write_bytes(b"")
    again = EventLog(path, draft)
    assert everything(path)[0][1].data["reason"] == "log_damaged"
    again.close()


def test_damaged_copies_are_bounded(path: Path) -> None:
    for _ in range(7):
        path.write_bytes(b"x" * 5000)
        EventLog(path, draft).close()
    kept = [name for name in aside(path) if not name.endswith(("-wal", "-shm"))]
    assert kept == [f"events.db.damaged-{n}" for n in (4, 5, 6, 7)]


# ---- a disk that refuses ----


def test_a_missing_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        EventLog(tmp_path / "gone" / "events.db", draft)


def test_a_write_error_loses_nothing_and_passes(path: Path) -> None:
    # A real refusal by the kernel, in a process of its own: files may not grow past the limit.
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from test_eventlog import alarm, everything
import test_eventlog
from edge_rt.adapters.eventlog import EventLog
from edge_rt.core.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path({str(path)!r})
log = EventLog(path, test_eventlog.draft)
log.append([alarm(1)])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (32768, hard))
done = 1
try:
    for n in range(2, 200):
        log.append([alarm(n)])
        done = n
except StorageError as error:
    assert "events.db" in str(error), error
else:
    raise SystemExit("the limit did not bite")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.append([alarm(done + 1)], again=True)
places = [place for place, _ in everything(path)]
assert places == list(range(1, done + 2)), places
log.close()
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert run.returncode == 0, run.stderr


# ---- copies ----


def test_a_copy_is_whole_while_the_log_is_written(log: EventLog, tmp_path: Path) -> None:
    log.append([alarm(1), alarm(2)])
    copy = tmp_path / "copy.db"
    copy_database(log.path, copy)
    log.append([alarm(3)])
    assert len(everything(copy)) == 2


@pytest.mark.parametrize("body", [b"x" * 5000, b""])
def test_a_copy_that_is_no_log_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "copy.db"
    path.write_bytes(body)
    with pytest.raises(StorageError, match=r"copy\.db"):
        check_database(path)


def test_a_restored_log_uses_no_place_again(path: Path, log: EventLog, tmp_path: Path) -> None:
    """The receiver holds what came after the backup; a new alarm in such a place would be
    receipted before it was sent."""
    log.append([alarm(1)])
    copy = tmp_path / "copy.db"
    copy_database(path, copy)
    (late,) = log.append([alarm(2)])
    places = set()
    for life in range(2):
        restored = tmp_path / f"life-{life}.db"
        restored.write_bytes(copy.read_bytes())
        mark_restored(restored, reached=late.sequence)
        again = EventLog(restored, draft)
        assert again.logid == log.logid
        (told,) = again.next_unreceipted(Lane.EVENT)
        assert told.event.data["reason"] == "restored"
        assert told.event.data["ranges"] == [[2, told.sequence - 1]]
        (new,) = again.append([alarm(3)])
        assert new.sequence == told.sequence + 1 > late.sequence + 10**6
        again.receipt(Lane.ALARM, late.sequence)  # from before the restore
        assert again.unreceipted(Lane.ALARM) == 1
        again.close()
        again = EventLog(restored, draft)
        assert again.last_sequence == new.sequence, "once"
        again.close()
        places.add(new.sequence)
    assert len(places) == 2, "the same backup, restored twice"


def test_who_looks_into_the_log_takes_nothing_away_after_it_was_opened_again(path: Path) -> None:
    """Another program that closes the last connection it knows of removes the WAL."""
    reader = EventReader(path)
    first = EventLog(path, draft)
    first.append([alarm(1)])
    assert len(reader.read()) == 1
    first.close()  # as the recorder does when the disk failed, while readers go on
    again = EventLog(path, draft, check=True)
    assert _counted_elsewhere(path) == "1"
    again.append([alarm(2)])
    assert _counted_elsewhere(path) == "2"  # what a start after a power cut would find
    reader.close()
    again.close()


def _counted_elsewhere(path: Path) -> str:
    code = (
        f"import sqlite3; db = sqlite3.connect({str(path)!r});"
        "print(db.execute('SELECT count(*) FROM events').fetchone()[0]); db.close()"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=True, timeout=30.0, capture_output=True, text=True
    ).stdout.strip()
