"""What a receiver keeps: events in SQLite and as JSON lines, in step, before anything is receipted.

The database is what a receipt stands for. The lines are written before its commit, which keeps
their length: what a killed receiver wrote beyond that is cut off at the next start, and what a
power cut took from the file is written again.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.held import Held
from edge_rt.core.uplink_wire import MAX_ALSO, Range, ReceiptMessage
from edge_rt.core.wire import Event, Lane, decode

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    arrival INTEGER PRIMARY KEY, source TEXT NOT NULL, logid TEXT NOT NULL,
    sequence INTEGER NOT NULL, id TEXT NOT NULL, type TEXT NOT NULL, time TEXT NOT NULL,
    received TEXT NOT NULL, body BLOB NOT NULL,
    UNIQUE (source, logid, sequence)
);
CREATE TABLE IF NOT EXISTS logs (
    source TEXT NOT NULL, logid TEXT NOT NULL, lanes TEXT NOT NULL,
    repeats INTEGER NOT NULL, conflicts INTEGER NOT NULL,
    PRIMARY KEY (source, logid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dropped (
    source TEXT NOT NULL, logid TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (source, logid, first, last)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS falls ON events (arrival)
    WHERE type >= 'edge_rt.fall.' AND type < 'edge_rt.fall/';
CREATE TABLE IF NOT EXISTS presence (
    source TEXT PRIMARY KEY, status TEXT NOT NULL, since TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('schema', 1), ('lines', 0), ('listened_ms', 0);
"""
_ISLANDS = """
SELECT min(n), max(n) FROM (
    SELECT sequence AS n, sequence - row_number() OVER (ORDER BY sequence) AS island
    FROM events WHERE source = ? AND logid = ?
) GROUP BY island ORDER BY 1
"""
# The index's own condition, so that a long history costs nothing.
_FALLS = """
SELECT body, received FROM events
WHERE type >= 'edge_rt.fall.' AND type < 'edge_rt.fall/' ORDER BY arrival
"""
# Of the log that something last came of; both inner queries read the index alone.
_NEWEST = """
SELECT e.body, e.received FROM events AS e JOIN (
    SELECT source, logid, max(sequence) AS sequence, max(arrival) AS arrival
    FROM events GROUP BY source, logid
) AS last USING (source, logid, sequence)
ORDER BY last.arrival
"""
_KNOWN = "SELECT source, logid FROM logs ORDER BY source, logid"
_AFTER = """
SELECT received FROM events WHERE source = ? AND logid = ? AND sequence > ?
ORDER BY sequence LIMIT 1
"""
# A log that is followed by another one of the same device began earlier.
_BY_DEVICE = """
SELECT e.source, e.body FROM events AS e JOIN (
    SELECT source, logid, min(arrival) AS born FROM events GROUP BY source, logid
) USING (source, logid)
ORDER BY e.source, born, e.sequence
"""
SCHEMA = 1
# A device that lost power, or got a backup back, may use a place a second time: what comes then is
# kept beside the first. It happens once an accident; more than these is no device of ours.
MAX_LIVES = 16


class Arrived(NamedTuple):
    """One event as it came. `received`: RFC 3339 of the receiver's clock."""

    event: Event
    body: bytes
    received: str


class LogState:
    """One device's log as far as it is held."""

    def __init__(self, held: Held, lanes: dict[Lane, int], repeats: int, conflicts: int) -> None:
        self.held = held
        self.lanes = lanes  # highest sequence of each lane
        self.repeats = repeats
        self.conflicts = conflicts  # another event under a place already taken; kept all the same
        self.arrived: dict[Lane, deque[int]] = {}  # since the last receipt

    def take(self, event: Event, sequence: int) -> None:
        """It is held now; of a type that only a newer edge_rt knows, the lane may be any."""
        try:
            lanes: tuple[Lane, ...] = (event.lane,)
        except ValueError:
            lanes = tuple(Lane)
        self.held.add(sequence)
        for lane in lanes:
            self.lanes[lane] = max(sequence, self.lanes.get(lane, 0))
            self.arrived.setdefault(lane, deque(maxlen=MAX_ALSO)).append(sequence)

    def receipt(self, logid: str) -> ReceiptMessage:
        """What the device may be told, once: the next one names only what comes after it."""
        given = {
            lane: self.held.receipt(upto, self.arrived.get(lane, ()))
            for lane, upto in self.lanes.items()
        }
        self.arrived.clear()
        return ReceiptMessage(logid, given)

    def gaps(self) -> list[Range]:
        """What is missing before the newest event."""
        return list(self.held.gaps(max(self.lanes.values(), default=0)))


_Key = tuple[str, str]
_lanes = msgspec.json.Decoder(dict[Lane, int])


class Store:
    """Use from one thread. Raises StorageError; what a call could not keep, it kept no part of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with _storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "events.sqlite", isolation_level=None, timeout=10.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            # What is receipted must outlast a power cut here: the device may forget it.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            if self._meta("schema") != SCHEMA:
                raise StorageError(f"{folder}: made by another edge_rt; choose another folder")
            self._length = self._meta("lines")
            self._lines = (folder / "events.jsonl").open("a+b", buffering=0)
            self._mend_lines()
        self.logs: dict[_Key, LogState] = {}

    def add(self, arrived: Sequence[Arrived]) -> tuple[list[Arrived], set[_Key]]:
        """Keep events, all or none; returns the new ones and the logs that a receipt is due to."""
        fresh: list[Arrived] = []
        touched: set[_Key] = set()
        with _storage_errors(self.folder):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for item in arrived:
                    touched.add((item.event.source, item.event.logid))
                    if self._insert(item):
                        fresh.append(item)
                lines = b"".join(item.body + b"\n" for item in fresh)
                self._write_lines(lines)
                for key in touched:
                    self._save(key)
                length = self._length + len(lines)
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'lines'", (length,))
                self._db.execute("COMMIT")
            except BaseException:  # whatever stopped us, no half transaction may stay open
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                with contextlib.suppress(OSError):  # else the next start cuts it off
                    self._lines.truncate(self._length)
                self.logs.clear()  # they are ahead of the database now
                raise
        self._length = length
        return fresh, touched

    def log(self, source: str, logid: str) -> LogState:
        """State of one log; an empty one if nothing of it has come yet."""
        key = (source, logid)
        if key not in self.logs:
            self.logs[key] = _load(self._db, key)
        return self.logs[key]

    def note_status(self, source: str, status: str, received: str) -> None:
        """What the broker says of a device; since when it says so is kept."""
        with _storage_errors(self.folder):
            self._db.execute(
                "INSERT INTO presence VALUES (?, ?, ?) ON CONFLICT (source) DO UPDATE"
                " SET status = excluded.status, since = excluded.since"
                " WHERE status <> excluded.status",
                (source, status, received),
            )

    def note_listening(self, unix_s: float) -> None:
        """Up to here nothing was missed that the broker had."""
        with _storage_errors(self.folder):
            self._db.execute(
                "UPDATE meta SET value = ? WHERE key = 'listened_ms'", (int(unix_s * 1000),)
            )

    def known(self) -> list[_Key]:
        """Every log that something has come of."""
        return list(self._db.execute(_KNOWN))

    def falls(self) -> Iterator[tuple[Event, str]]:
        """Every fall event with its `received`, as they arrived."""
        with _storage_errors(self.folder):
            for body, received in self._db.execute(_FALLS):
                yield decode(body), received

    def newest(self) -> Iterator[tuple[Event, str]]:
        """The event with the highest place in each device's last log, with its `received`."""
        with _storage_errors(self.folder):
            for body, received in self._db.execute(_NEWEST):
                yield decode(body), received

    def received_after(self, source: str, logid: str, sequence: int) -> str:
        """When the first event past `sequence` of a log was received; empty if there is none."""
        with _storage_errors(self.folder):
            row = self._db.execute(_AFTER, (source, logid, sequence)).fetchone()
        return str(row[0]) if row else ""

    def close(self) -> None:
        """Close both files; safe to call twice."""
        with contextlib.suppress(sqlite3.Error, OSError):
            self._db.close()
            self._lines.close()

    # ---- helpers ----

    def _insert(self, item: Arrived) -> bool:
        event = item.event
        sequence = int(event.sequence)
        state = self.log(event.source, event.logid)
        state.take(event, sequence)
        # What is taken is receipted, and its device never sends it again: it has to be kept.
        for life in range(MAX_LIVES):
            logid = f"{event.logid}~{life + 1}" if life else event.logid
            if self._keep(item, logid, sequence):
                break
            if self._is_same(event, logid, sequence):
                state.repeats += 1
                return False
        else:
            state.conflicts += 1
            log.error("%s: place %d is used too often; not kept", event.source, sequence)
            return False
        if life:
            state.conflicts += 1
            log.warning("%s: place %d is used again; both are kept", event.source, sequence)
        for first, last in _dropped_ranges(event, sequence):
            state.held.add(first, last)
            self._db.execute(
                "INSERT OR IGNORE INTO dropped VALUES (?, ?, ?, ?)",
                (event.source, event.logid, first, last),
            )
        return True

    def _keep(self, item: Arrived, logid: str, sequence: int) -> bool:
        event = item.event
        done = self._db.execute(
            "INSERT INTO events (source, logid, sequence, id, type, time, received, body)"
            # Not OR IGNORE, which would ignore every other fault as well.
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, logid, sequence) DO NOTHING",
            (
                event.source,
                logid,
                sequence,
                event.id,
                event.type,
                event.time,
                item.received,
                item.body,
            ),
        )
        return bool(done.rowcount)

    def _mend_lines(self) -> None:
        last = self._db.execute("SELECT body FROM events ORDER BY arrival DESC LIMIT 1").fetchone()
        end = last[0] + b"\n" if last else b""
        self._lines.seek(max(0, self._length - len(end)))
        if self._lines.read(len(end)) == end:
            self._lines.truncate(self._length)
            return
        self._lines.truncate(0)
        for (body,) in self._db.execute("SELECT body FROM events ORDER BY arrival"):
            self._write_lines(body + b"\n")

    def _write_lines(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:  # a nearly full disk takes a part
            rest = rest[self._lines.write(rest) :]

    def _is_same(self, event: Event, logid: str, sequence: int) -> bool:
        row = self._db.execute(
            "SELECT id FROM events WHERE source = ? AND logid = ? AND sequence = ?",
            (event.source, logid, sequence),
        ).fetchone()
        return bool(row[0] == event.id)

    def _save(self, key: _Key) -> None:
        state = self.logs[key]
        lanes = msgspec.json.encode(state.lanes).decode()
        self._db.execute(
            "INSERT OR REPLACE INTO logs VALUES (?, ?, ?, ?, ?)",
            (*key, lanes, state.repeats, state.conflicts),
        )

    def _meta(self, key: str) -> int:
        return int(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def arrivals(folder: Path) -> list[tuple[str, str, str]]:
    """Type, time and time of arrival of every event in a store, beside who writes it.

    Raises InputError when there is none, StorageError when it cannot be read.
    """
    with _reading(folder) as db:
        return list(db.execute("SELECT type, time, received FROM events ORDER BY arrival"))


def read_logs(folder: Path) -> dict[_Key, LogState]:
    """Every log of a store by (source, logid), beside who writes it. Raises as `arrivals` does."""
    with _reading(folder) as db:
        return {key: _load(db, key) for key in db.execute(_KNOWN).fetchall()}


class Kept(NamedTuple):
    """A store read beside who writes it.

    events      of each device (its source), as it logged them; a stream
    presence    by source: its status and since when, RFC 3339
    listened_s  Unix seconds up to which the receiver has listened; 0: not known
    """

    events: Iterator[tuple[str, Event]]
    presence: dict[str, tuple[str, str]]
    listened_s: float


@contextlib.contextmanager
def read_store(folder: Path) -> Iterator[Kept]:
    """Raises InputError when there is none, StorageError when it cannot be read."""
    with _reading(folder) as db:
        presence: dict[str, tuple[str, str]] = {}
        # One that nobody has listened into since presence is kept has no such table.
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'presence'").fetchone():
            rows = db.execute("SELECT source, status, since FROM presence")
            presence = {source: (status, since) for source, status, since in rows}
        row = db.execute("SELECT value FROM meta WHERE key = 'listened_ms'").fetchone()
        events = ((source, decode(body)) for source, body in db.execute(_BY_DEVICE))
        yield Kept(events, presence, row[0] / 1000.0 if row else 0.0)


def _dropped_ranges(event: Event, sequence: int) -> list[Range]:
    """What a device says it dropped is accounted for; only what lies before the saying event."""
    if event.kind != "device" or event.what != "dropped":
        return []
    try:
        ranges = msgspec.convert(event.data.get("ranges", []), list[Range])
    except msgspec.ValidationError:
        return []
    return [(first, last) for first, last in ranges if first <= last < sequence]


def _load(db: sqlite3.Connection, key: _Key) -> LogState:
    held = Held(db.execute(_ISLANDS, key))
    dropped = db.execute("SELECT first, last FROM dropped WHERE source = ? AND logid = ?", key)
    for first, last in dropped:
        held.add(first, last)
    row = db.execute(
        "SELECT lanes, repeats, conflicts FROM logs WHERE source = ? AND logid = ?", key
    ).fetchone() or ("{}", 0, 0)
    return LogState(held, _lanes.decode(row[0]), row[1], row[2])


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / "events.sqlite"
    if not path.is_file():
        raise InputError(f"{folder}: no store of events; name the folder given to fleet listen")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with (
        _storage_errors(folder),
        contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10.0)) as db,
    ):
        yield db


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{folder}: {error}; free or mend the disk") from error
