"""The event log's only writer: SQLite, WAL, append-only. Readers: adapters/eventreader.py.

Alarm stages commit with synchronous=FULL (power-safe), the rest with NORMAL (safe against a killed
process; the last moments may go with the power). https://sqlite.org/wal.html,
https://sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_rt.core import log_pages, receipts
from edge_rt.core import log_schema as sql
from edge_rt.core.dropping import Doomed, Row, choose
from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.log_schema import Stored
from edge_rt.core.wire import Event, Lane, encode

# About 120,000 events. All of it is read after a crash, in one go (adapters.readahead), by us only.
DEFAULT_MAX_BYTES = 64 * 1024 * 1024
# One transaction must stay short (an alarm waits behind it) and its memory small.
MAX_BATCH = 64
# SQLite would copy the WAL into the database within the very commit that fills it, under an alarm
# too. eventreader.checkpoint() does that; so many pages (16 MB) bound a WAL that nobody copies.
WAL_MAX_PAGES = 4096
# Rows looked at, and bytes that go, for one `dropped` event: an alarm waits behind it.
_MAX_DROP, _MAX_DROP_BYTES = 4096, 1024 * 1024
# How far a restored log skips: past what came after the backup and, at random, past what an earlier
# restore of it went on with. Places have twelve digits: room for two thousand restores.
_SKIP_LEAST, _SKIP_SPAN = 10**6, 10**9
# A dying card must not fill itself with damaged copies.
_MAX_ASIDE = 4

Draft = Callable[[str, str, Mapping[str, Any]], Event]


class _Damaged(Exception):
    """The file is there, readable, and no log of ours."""


class EventLog:
    """The only writer. Use from one thread; every method but close() raises StorageError.

    A damaged file, or one of a newer edge_rt that this one must not go on with (log_schema), is
    renamed and kept; a new log with a new `logid` starts in its place, and its first event,
    device.dropped, says so, as does `set_aside`.

    path    the database file; its folder must exist
    draft   makes an unsealed event of (kind, what, data), for what the log itself has to tell
    pinned  an uplink is configured: what has no receipt is kept longest, alarms always. Without an
            uplink nothing pins and the oldest goes first
    check   look through the whole file even if it was closed cleanly (after an I/O error)
    """

    def __init__(
        self,
        path: Path,
        draft: Draft,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        pinned: bool = True,
        check: bool = False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.pinned = pinned
        self._draft = draft
        self._random = random
        self._last = 0
        self.set_aside = ""  # the log that was there: its new name, and why
        self.wal_pages = 0  # what the WAL has grown by since this was last set to 0: log_pages
        self.trimming = False  # trim() has more to drop
        with _storage_errors(path):
            try:
                self._open(check=check)
            except (_Damaged, sqlite3.DatabaseError) as error:
                if not isinstance(error, _Damaged) and not _is_damage(error):
                    raise
                self.close()
                aside = _set_aside(path)
                detail = str(error)[:200]
                self._open({"reason": "log_damaged", "kept_as": aside, "detail": detail})
                self.set_aside = f"{aside} ({detail})"

    # ---- writing ----

    def append(self, events: Sequence[Event], *, again: bool = False) -> list[Stored]:
        """Commit up to MAX_BATCH unsealed events, all or none, in order; power-safe if any is an
        alarm stage.

        again  an earlier try failed, and may yet have reached the disk: events already in the log
               are not added a second time
        """
        if len(events) > MAX_BATCH:
            raise ValueError(f"{len(events)} events at once; at most {MAX_BATCH}")
        stored: list[Stored] = []
        full = any(event.lane is Lane.ALARM for event in events)
        with self._transaction(full=full):
            last = self._last
            for event in events:
                old = self._find(event.id) if again else None
                if old is None:
                    last += 1
                    old = Stored(last, event.lane, encode(event.sealed(last, self.logid)))
                    self._insert(old, event.id)
                stored.append(old)
        self._last = last
        self.wal_pages += log_pages.cost(len(events), sum(len(item.body) for item in stored))
        return stored

    def mark(self, reader: str, lane: Lane, sequence: int) -> None:
        """Remember how far a named reader has come."""
        with self._transaction():
            self._db.execute(sql.MARK, (reader, lane, sequence))

    def marks(self, reader: str) -> dict[Lane, int]:
        """How far a named reader has come, by lane; 0 where it never began."""
        with _storage_errors(self.path):
            rows = self._db.execute("SELECT lane, sequence FROM marks WHERE reader = ?", (reader,))
            return dict.fromkeys(Lane, 0) | {Lane(lane): sequence for lane, sequence in rows}

    def receipt(self, lane: Lane, upto: int, exceptions: Iterable[int] = ()) -> None:
        """The other side has every event of the lane up to `upto`, but for `exceptions`.

        What was receipted once stays so: an older receipt that comes late takes nothing back.
        Raises InputError for a receipt of events that were never sent, or with too many exceptions.
        """
        if upto > self._last:
            raise InputError(f"receipt up to {upto}, but the log ends at {self._last}")
        old = self._receipt(lane)
        new = receipts.merge(old, upto, exceptions)
        if new == old:
            return
        # Not power-safe: a receipt that goes with the power costs a repeat, and an alarm may be
        # waiting for the disk.
        with self._transaction():
            self._db.execute(sql.RECEIPT, (lane, new.upto))
            self._db.execute("DELETE FROM exceptions WHERE lane = ?", (lane,))
            self._db.executemany(sql.EXCEPTION, [(lane, n) for n in sorted(new.exceptions)])

    def next_unreceipted(self, lane: Lane, after: int = 0, limit: int = 20) -> list[Stored]:
        """The lane's oldest events past `after` that await a receipt, in order."""
        with _storage_errors(self.path):
            rows = self._db.execute(
                "SELECT sequence, lane, body FROM events"
                f" WHERE sequence > :after AND {sql.UNRECEIPTED}"
                " ORDER BY sequence LIMIT :limit",
                {"lane": lane, "after": after, "upto": self._receipt(lane).upto, "limit": limit},
            )
            return [Stored(sequence, Lane(name), body) for sequence, name, body in rows]

    def newest(self, lane: Lane, limit: int) -> list[Stored]:
        """The lane's last events, oldest first."""
        with _storage_errors(self.path):
            rows = self._db.execute(
                "SELECT sequence, lane, body FROM events WHERE lane = ?"
                " ORDER BY sequence DESC LIMIT ?",
                (lane, limit),
            ).fetchall()
            return [Stored(sequence, Lane(name), body) for sequence, name, body in reversed(rows)]

    def trim(self, wal_pages: int | None = None) -> list[Stored]:
        """Make room once the log has outgrown max_bytes; returns the device.dropped events.

        First telemetry, then what is receipted, then other events; an unreceipted alarm never.

        wal_pages  go no further once self.wal_pages is that many; `trimming` tells of a rest
        """
        told: list[Stored] = []
        with _storage_errors(self.path):
            self.trimming = self.trimming or self.used_bytes() > self.max_bytes
            while self.trimming and (wal_pages is None or self.wal_pages < wal_pages):
                # Going a tenth below the bound means trimming seldom.
                excess = self.used_bytes() - self.max_bytes * 9 // 10
                doomed = self._doomed(min(excess, _MAX_DROP_BYTES)) if excess > 0 else None
                self.trimming = doomed is not None
                if doomed is not None:
                    told.append(self._drop(doomed))
        return told

    # ---- state ----

    @property
    def last_sequence(self) -> int:
        return self._last

    def used_bytes(self) -> int:
        """Bytes of the database that hold something (free pages are used again)."""
        with _storage_errors(self.path):
            names = ("page_count", "freelist_count", "page_size")
            pages, free, size = (self._db.execute(f"PRAGMA {n}").fetchone()[0] for n in names)
            return int((pages - free) * size)

    def unreceipted(self, lane: Lane) -> int:
        """How many events of the lane await a receipt."""
        with _storage_errors(self.path):
            row = self._db.execute(
                f"SELECT count(*) FROM events WHERE {sql.UNRECEIPTED}",
                {"lane": lane, "upto": self._receipt(lane).upto},
            ).fetchone()
            return int(row[0])

    def close(self) -> None:
        """Close the database; safe to call twice."""
        # Closing writes a last checkpoint; the WAL keeps everything if the disk refuses that.
        with contextlib.suppress(sqlite3.Error, AttributeError):
            self._db.close()

    # ---- helpers ----

    def _open(self, notice: Mapping[str, Any] | None = None, *, check: bool = False) -> None:
        check = check or Path(f"{self.path}-wal").exists()  # a kill or power loss leaves a WAL
        # Private from the first moment. Only made, never opened: closing it drops the locks of this
        # process's readers, and who looks in takes the WAL (sqlite.org/howtocorrupt.html, 2.2).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if os.statvfs(self.path).f_flag & os.ST_RDONLY:  # of this SQLite says "unable to open"
            raise StorageError(f"{self.path}: Read-only file system; free or mend the disk")
        # autocommit: transactions are written out below; no waiting, we are the only writer.
        self._db = sqlite3.connect(
            self.path, isolation_level=None, timeout=1.0, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {WAL_MAX_PAGES}")
        self._db.execute("PRAGMA journal_size_limit = 4194304")
        self._synchronous = ""
        if check:
            verdict = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if verdict != "ok":
                raise _Damaged(verdict.splitlines()[-1])
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(sql.MIGRATIONS) and self._min_reader(version) > len(sql.MIGRATIONS):
            raise _Damaged(f"schema {version} is newer than {len(sql.MIGRATIONS)}")
        if version < len(sql.MIGRATIONS):
            self._migrate(version, notice)
        row = self._db.execute("SELECT value FROM meta WHERE key = 'logid'").fetchone()
        if row is None:
            raise _Damaged("no logid")
        self.logid: str = row[0]
        self._last = self._read_last()
        row = self._db.execute("SELECT value FROM meta WHERE key = 'restored'").fetchone()
        if row is not None:
            self._go_on_apart(int(row[0]))

    def _min_reader(self, version: int) -> int:
        row = self._db.execute(
            "SELECT value FROM meta WHERE key = ?", (sql.MIN_READER_NAME,)
        ).fetchone()
        return int(row[0]) if row is not None and row[0].isdecimal() else version

    def _go_on_apart(self, reached: int) -> None:
        """A backup was restored: go on at places that nobody has used, and say so.

        What was sent after it was made lies at the receiver under places that this log would use
        again; a new alarm would be taken for what is receipted already.
        """
        skip = _SKIP_LEAST + int.from_bytes(self._random(8), "big") % _SKIP_SPAN
        first, place = self._last + 1, max(self._last, reached) + skip
        data = {"reason": "restored", "count": 0, "ranges": [(first, place - 1)]}
        event = self._draft("device", "dropped", data)
        stored = Stored(place, event.lane, encode(event.sealed(place, self.logid)))
        with self._transaction(full=True):
            self._insert(stored, event.id)
            self._db.execute("DELETE FROM meta WHERE key = 'restored'")
        self._last = place

    def _migrate(self, version: int, notice: Mapping[str, Any] | None) -> None:
        tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version == 0 and tables:
            raise _Damaged("tables of another program")
        with self._transaction(full=True):
            for step in sql.MIGRATIONS[version:]:
                # executescript() would commit first; the steps must stand or fall together.
                for statement in filter(str.strip, step.split(";")):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(sql.MIGRATIONS)}")
            self._db.execute(sql.META, (sql.MIN_READER_NAME, str(sql.MIN_READER)))
            if version == 0:
                logid = self._random(16).hex()
                self._db.execute(sql.META, ("logid", logid))
                if notice is not None:
                    event = self._draft("device", "dropped", notice)
                    stored = Stored(1, event.lane, encode(event.sealed(1, logid)))
                    self._insert(stored, event.id)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # or a new file's name may go with the power
        finally:
            os.close(folder)

    def _read_last(self) -> int:
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def _insert(self, stored: Stored, event_id: str) -> None:
        self._db.execute(
            "INSERT INTO events (sequence, id, lane, body) VALUES (?, ?, ?, ?)",
            (stored.sequence, event_id, stored.lane, stored.body),
        )

    def _find(self, event_id: str) -> Stored | None:
        row = self._db.execute(
            "SELECT sequence, lane, body FROM events WHERE id = ?", (event_id,)
        ).fetchone()
        return Stored(row[0], Lane(row[1]), row[2]) if row else None

    def _receipt(self, lane: Lane) -> receipts.Receipt:
        with _storage_errors(self.path):
            row = self._db.execute("SELECT upto FROM receipts WHERE lane = ?", (lane,)).fetchone()
            rows = self._db.execute("SELECT sequence FROM exceptions WHERE lane = ?", (lane,))
            return receipts.Receipt(row[0] if row else 0, frozenset(n for (n,) in rows))

    def _doomed(self, excess: int) -> Doomed | None:
        """What to drop now: one class of events, oldest first, about `excess` bytes."""
        for condition in sql.DROP_PINNED if self.pinned else sql.DROP_UNPINNED:
            rows = self._db.execute(
                "SELECT sequence, length(body) + length(id), body FROM events AS e"
                f" WHERE {condition} ORDER BY sequence LIMIT {_MAX_DROP}"
            )
            doomed = choose(map(Row._make, rows), excess, absorb=condition != sql.RECEIPTED)
            if len(doomed.sequences) > 1:  # telling of one takes as much as it frees
                return doomed
        return None

    def _drop(self, doomed: Doomed) -> Stored:
        data = {"reason": "log_full", "count": doomed.number, "ranges": doomed.ranges}
        event = self._draft("device", "dropped", data)
        place = self._last + 1
        stored = Stored(place, event.lane, encode(event.sealed(place, self.logid)))
        gone = [(n,) for n in doomed.sequences]
        with self._transaction():
            self._db.executemany("DELETE FROM events WHERE sequence = ?", gone)
            self._insert(stored, event.id)
        self._last = place
        self.wal_pages += log_pages.cost(len(gone), doomed.size, len(doomed.ranges))
        return stored

    @contextlib.contextmanager
    def _transaction(self, *, full: bool = False) -> Iterator[None]:
        with _storage_errors(self.path):
            wanted = "FULL" if full else "NORMAL"
            if self._synchronous != wanted:
                self._db.execute(f"PRAGMA synchronous = {wanted}")
                self._synchronous = wanted
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
                self.wal_pages += log_pages.EACH
            except BaseException:  # whatever stopped us, no half transaction may stay open
                with contextlib.suppress(sqlite3.Error):
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                raise


def _is_damage(error: sqlite3.Error) -> bool:
    # Primary result codes; SQLITE_ERROR at opening is a schema that is not ours.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
    )


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise StorageError(f"{path}: {error} ({name}); free or mend the disk") from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; free or mend the disk") from error


def _set_aside(path: Path) -> str:
    """Rename the database and what belongs to it to `<name>.damaged-<n>`; the new name."""
    taken = sorted(
        int(old.suffix.removeprefix(".damaged-"))
        for old in path.parent.glob(f"{path.name}.damaged-*")
        if old.suffix.removeprefix(".damaged-").isdigit()
    )
    for number in taken[: max(0, len(taken) - _MAX_ASIDE + 1)]:
        for ending in ("", "-wal", "-shm"):
            path.with_name(f"{path.name}.damaged-{number}{ending}").unlink(missing_ok=True)
    name = f"{path.name}.damaged-{taken[-1] + 1 if taken else 1}"
    # The main file first: a kill in between leaves a WAL, which SQLite ignores without its file.
    for ending in ("", "-wal", "-shm"):
        old = Path(f"{path}{ending}")
        if old.exists():
            os.rename(old, path.with_name(name + ending))
    return name
