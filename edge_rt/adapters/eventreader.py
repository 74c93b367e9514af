"""Beside the event log's writer: positions, live following, consistent copies, checkpoints."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_rt.core.errors import StorageError
from edge_rt.core.log_schema import MIGRATIONS, UNRECEIPTED, Stored
from edge_rt.core.wire import Lane

# One answer stays within memory that a Zero 2 W has to spare, whatever the caller asks for.
MAX_READ = 1000


class EventReader:
    """Reads a log that another thread or process writes; holds no transaction between calls.

    Use from one thread. Follows when the log is replaced by a new one (`logid` changes).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    def read(self, after: int = 0, limit: int = 100, lane: Lane | None = None) -> list[Stored]:
        """Up to `limit` events with a sequence past `after`, in order. Raises StorageError."""
        where = "" if lane is None else " AND lane = :lane"
        with _storage_errors(self.path):
            rows = self._connect().execute(
                f"SELECT sequence, lane, body FROM events WHERE sequence > :after{where}"
                " ORDER BY sequence LIMIT :limit",
                {"after": after, "lane": lane, "limit": min(limit, MAX_READ)},
            )
            return [Stored(sequence, Lane(name), body) for sequence, name, body in rows.fetchall()]

    def next_unreceipted(self, lane: Lane, after: int = 0, limit: int = 20) -> list[Stored]:
        """The lane's oldest events past `after` that await a receipt. Raises StorageError."""
        with _storage_errors(self.path):
            db = self._connect()
            row = db.execute("SELECT upto FROM receipts WHERE lane = ?", (lane,)).fetchone()
            rows = db.execute(
                f"SELECT sequence, lane, body FROM events WHERE sequence > :after AND {UNRECEIPTED}"
                " ORDER BY sequence LIMIT :limit",
                {
                    "lane": lane,
                    "after": after,
                    "upto": row[0] if row else 0,
                    "limit": min(limit, MAX_READ),
                },
            )
            return [Stored(sequence, Lane(name), body) for sequence, name, body in rows.fetchall()]

    def logid(self) -> str:
        """Identity of the log being read. Raises StorageError."""
        with _storage_errors(self.path):
            row = self._connect().execute("SELECT value FROM meta WHERE key = 'logid'").fetchone()
            return str(row[0])

    def last_sequence(self) -> int:
        """Place of the newest event; 0 in an empty log. Raises StorageError."""
        with _storage_errors(self.path):
            row = self._connect().execute("SELECT max(sequence) FROM events").fetchone()
            return int(row[0] or 0)

    def before(self, count: int) -> int:
        """The place to read on from for the newest `count` events: between them are gaps, where
        events were dropped or a backup was restored. Raises StorageError."""
        with _storage_errors(self.path):
            row = (
                self._connect()
                .execute(
                    "SELECT sequence FROM events ORDER BY sequence DESC LIMIT 1 OFFSET ?", (count,)
                )
                .fetchone()
            )
            return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the database; safe to call twice."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _connect(self) -> sqlite3.Connection:
        inode = os.stat(self.path).st_ino
        if self._db is None or inode != self._inode:
            self.close()
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0)
            self._inode = inode
        return self._db


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a log, also while it is written (SQLite's backup API).

    Raises StorageError, also when the copy is not whole.
    """
    with (
        _storage_errors(source),
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as a,
        contextlib.closing(sqlite3.connect(target)) as b,
    ):
        a.backup(b)
        b.execute("PRAGMA journal_mode = DELETE")
    check_database(target)


def check_database(path: Path) -> None:
    """Raises StorageError unless the file is a whole event log that this edge_rt can read."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with (
        _storage_errors(path),
        contextlib.closing(sqlite3.connect(uri, uri=True)) as db,
    ):
        verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if verdict != "ok":
            raise StorageError(f"{path.name}: damaged ({verdict.splitlines()[-1]})")
        if not 1 <= version <= len(MIGRATIONS):
            raise StorageError(
                f"{path.name}: schema {version}; this edge_rt reads {len(MIGRATIONS)}"
            )


def mark_restored(path: Path, reached: int) -> None:
    """Have a restored log go on apart from all that was written since (see adapters.eventlog).

    reached  the last place of the log that it takes the place of; 0: not known
    Raises StorageError.
    """
    with (
        _storage_errors(path),
        contextlib.closing(sqlite3.connect(path)) as db,
        db,
    ):
        db.execute("INSERT OR REPLACE INTO meta VALUES ('restored', ?)", (str(reached),))


def checkpoint(path: Path) -> None:
    """Copy what the WAL holds into the database, beside the writer, whom it never keeps waiting.

    From any thread. Raises StorageError.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"  # a file that is being replaced is not made here
    with (
        _storage_errors(path),
        contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0)) as db,
    ):
        # The sync mode decides whether the copy is on the disk before the WAL is used anew.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise StorageError(f"{path}: no such event log; start the daemon once") from None
    except (sqlite3.Error, OSError) as error:
        if "no such table" in str(error):  # between the file's making and its first commit
            raise StorageError(f"{path}: no event log yet; start the daemon once") from None
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
            # A journal of a killed writer is to be rolled back first; that is the writer's.
            raise StorageError(f"{path}: was cut off; start the daemon once") from None
        raise StorageError(f"{path}: {error}; free or mend the disk") from error
