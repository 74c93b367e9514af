"""What was said to whom is there after a restart, and nothing stays for ever."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_rt.core.errors import StorageError
from edge_rt.fleet.escalation import Kind, Matter, Told
from edge_rt.fleet.notices import FILE, Notices, Place

MATTER = Matter("alarm /edge-rt/home/dev1 i1", Kind.ALARM, "dev1", 1.5, "fall alarm")
PLACE = Place(MATTER.key, "Ada", "0123")
TOLD = Told(2, True, False, 3, 99.5, "no answer")


def test_everything_is_read_back_as_it_was(tmp_path: Path) -> None:
    first = Notices(tmp_path)
    first.change([MATTER])
    first.say(PLACE, "json://a", TOLD._replace(round=1))
    first.say(PLACE, "json://a", TOLD)
    first.close()
    again = Notices(tmp_path)
    assert again.matters == {MATTER.key: MATTER}
    assert again.told == {PLACE: TOLD}
    (row,) = again.rows()
    assert row == (MATTER, "Ada", "json://a", TOLD)
    again.close()


def test_what_is_forgotten_takes_its_notices_along(tmp_path: Path) -> None:
    notices = Notices(tmp_path)
    other = MATTER._replace(key="other")
    for matter in (MATTER, other):
        notices.change([matter])
        notices.say(PLACE._replace(key=matter.key), "json://a", TOLD)
    notices.change([], [MATTER.key])
    assert list(notices.matters) == [place.key for place in notices.told] == ["other"]
    notices.close()
    again = Notices(tmp_path)
    assert [row.matter.key for row in again.rows()] == ["other"]
    again.close()


def test_a_file_of_another_version_or_none_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FILE).write_bytes(b"no database " * 100)
    with pytest.raises(StorageError, match=FILE):
        Notices(tmp_path / "a")
    Notices(tmp_path / "b").close()
    with sqlite3.connect(tmp_path / "b" / FILE) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(StorageError, match="another edge_rt"):
        Notices(tmp_path / "b")
