"""The event log's tables, as SQL, and what its writer and its readers share."""

from __future__ import annotations

from typing import NamedTuple

from edge_rt.core.wire import Event, Lane, decode

_SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX events_by_lane ON events (lane, sequence);
CREATE TABLE marks (
    reader TEXT NOT NULL, lane TEXT NOT NULL, sequence INTEGER NOT NULL,
    PRIMARY KEY (reader, lane)
) WITHOUT ROWID;
CREATE TABLE receipts (lane TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE exceptions (
    lane TEXT NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (lane, sequence)
) WITHOUT ROWID;
"""
# Entry n takes a database from version n to n + 1; the first makes a new one.
MIGRATIONS: tuple[str, ...] = (_SCHEMA_1,)
# The oldest schema whose edge_rt may go on with a log of the newest: a table or a column with a
# default that is added leaves it as it is; what an older one would read or write wrongly raises it.
# It stands in `meta` under this name.
MIN_READER, MIN_READER_NAME = 1, "min_reader"

# Columns are named, for a newer schema may have more of them.
META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
MARK = (
    "INSERT INTO marks (reader, lane, sequence) VALUES (?, ?, ?)"
    " ON CONFLICT (reader, lane) DO UPDATE SET sequence = excluded.sequence"
)
RECEIPT = "INSERT OR REPLACE INTO receipts (lane, upto) VALUES (?, ?)"
EXCEPTION = "INSERT INTO exceptions (lane, sequence) VALUES (?, ?)"

# Parameters :lane, and :upto from the lane's receipt.
UNRECEIPTED = (
    "lane = :lane AND (sequence > :upto OR sequence IN"
    " (SELECT sequence FROM exceptions WHERE lane = :lane))"
)
RECEIPTED = (
    "sequence <= coalesce((SELECT upto FROM receipts AS r WHERE r.lane = e.lane), 0)"
    " AND NOT EXISTS (SELECT 1 FROM exceptions AS x"
    " WHERE x.lane = e.lane AND x.sequence = e.sequence)"
)
# What goes when the log is full, class by class; `e` is the events table.
DROP_PINNED = ("lane = 'telemetry'", RECEIPTED, "lane = 'event'")
DROP_UNPINNED = ("lane = 'telemetry'", "lane = 'event'", "lane = 'alarm'")


class Stored(NamedTuple):
    """A committed event: its place, its lane, its wire bytes."""

    sequence: int
    lane: Lane
    body: bytes

    @property
    def event(self) -> Event:
        return decode(self.body)
