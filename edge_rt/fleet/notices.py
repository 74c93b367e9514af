"""What is open and what was said to whom, in SQLite beside the events: survives any restart."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_rt.core.errors import StorageError
from edge_rt.fleet.escalation import Kind, Matter, Told

_SCHEMA = """
CREATE TABLE IF NOT EXISTS matters (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, device TEXT NOT NULL, since_s REAL NOT NULL,
    what TEXT NOT NULL, end TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    key TEXT NOT NULL, person TEXT NOT NULL, service TEXT NOT NULL, label TEXT NOT NULL,
    round INTEGER NOT NULL, closing INTEGER NOT NULL, done INTEGER NOT NULL,
    tries INTEGER NOT NULL, due_s REAL NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (key, person, service)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_PUT = "INSERT OR REPLACE INTO matters VALUES (?, ?, ?, ?, ?, ?)"
_SCHEMA_VERSION = 1
FILE = "notices.sqlite"


class Place(NamedTuple):
    """Which notice: of which matter, to whom, by which service (a digest of its URL)."""

    key: str
    person: str
    service: str


class Row(NamedTuple):
    """A notice for a person to read; label: the service's URL without secrets."""

    matter: Matter
    person: str
    label: str
    told: Told


class Notices:
    """Use from one thread. Raises StorageError; each call is one transaction, power-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with _storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / FILE, isolation_level=None, timeout=10.0)
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, _SCHEMA_VERSION):
                raise StorageError(f"{folder}/{FILE}: made by another edge_rt; move it away")
            self._db.execute("PRAGMA journal_mode = WAL")
            # What was written before a send must outlast a power cut, else it is never tried again.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        self.matters: dict[str, Matter] = {}
        self.told: dict[Place, Told] = {}
        with _storage_errors(folder):
            for key, kind, *rest in self._db.execute("SELECT * FROM matters"):
                self.matters[key] = Matter(key, Kind(kind), *rest)
            for key, person, service, _, *told in self._db.execute("SELECT * FROM told"):
                self.told[Place(key, person, service)] = _told(told)

    def change(self, put: Sequence[Matter], forget: Sequence[str] = ()) -> None:
        """Matters that opened or ended, after those (by key) of which nothing more will be said."""
        if not put and not forget:
            return
        with _storage_errors(self._folder):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for table in ("matters", "told"):
                    self._db.executemany(
                        f"DELETE FROM {table} WHERE key = ?", [(key,) for key in forget]
                    )
                self._db.executemany(
                    "INSERT OR REPLACE INTO matters VALUES (?, ?, ?, ?, ?, ?)", put
                )
                self._db.execute("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        gone = set(forget)
        for key in gone:
            self.matters.pop(key, None)
        for place in [place for place in self.told if place.key in gone]:
            del self.told[place]
        self.matters |= {matter.key: matter for matter in put}

    def say(self, place: Place, label: str, told: Told) -> None:
        """Written before a send, and again when its outcome is known."""
        with _storage_errors(self._folder):
            self._db.execute(
                "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, label, *told),
            )
        self.told[place] = told

    def rows(self) -> list[Row]:
        """Everything said about what is known, oldest matter first."""
        with _storage_errors(self._folder):
            found = self._db.execute(
                "SELECT m.*, t.* FROM told AS t JOIN matters AS m USING (key)"
                " ORDER BY m.since_s, m.key, t.person, t.service"
            ).fetchall()
        return [
            Row(Matter(r[0], Kind(r[1]), *r[2:6]), r[7], r[9], _told(list(r[10:]))) for r in found
        ]

    def close(self) -> None:
        """Safe to call twice."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _told(values: list[object]) -> Told:
    told = Told(*values)  # type: ignore[arg-type]  # as the schema has them
    return told._replace(closing=bool(told.closing), done=bool(told.done))


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{folder}/{FILE}: {error}; free or mend the disk") from error
