"""What a receiver keeps: database and lines in step, repeats, gaps."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.wire import Event, Lane, encode, make_event
from edge_rt.fleet.store import MAX_LIVES, Arrived, Store, arrivals

SOURCE = "/edge-rt/home/dev1"


def arrived(
    sequence: int,
    kind: str = "device",
    what: str = "started",
    logid: str = "log",
    random: int | None = None,
    **data: Any,
) -> Arrived:
    event = make_event(
        kind,
        what,
        data,
        source=SOURCE,
        unix_s=1.7e9,
        random=(sequence if random is None else random).to_bytes(10, "big"),
        boot_id="b",
        monotonic_s=1.0,
        clock_trusted=True,
    ).sealed(sequence, logid)
    return Arrived(event, encode(event), "2026-01-01T00:00:00.000Z")


def lines(folder: Path) -> list[bytes]:
    return (folder / "events.jsonl").read_bytes().splitlines()


def rows(folder: Path) -> list[bytes]:
    with sqlite3.connect(folder / "events.sqlite") as db:
        return [row[0] for row in db.execute("SELECT body FROM events ORDER BY arrival")]


def test_new_events_are_kept_repeats_are_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = arrived(1), arrived(2)
    fresh, touched = store.add([first, second, first])
    assert fresh == [first, second]
    assert touched == {(SOURCE, "log")}
    assert store.add([second]) == ([], {(SOURCE, "log")})
    state = store.log(SOURCE, "log")
    assert (state.repeats, state.conflicts, state.gaps()) == (2, 0, [])
    store.close()
    assert lines(tmp_path) == rows(tmp_path) == [first.body, second.body]


def test_another_event_in_a_place_already_taken_is_kept_too(tmp_path: Path) -> None:
    """A device that lost power, or got a backup back, counts some places twice. What the receiver
    holds is receipted: an alarm in such a place would be silenced for good."""
    store = Store(tmp_path)
    one = arrived(1)
    again = arrived(1, "fall", "alarm", incident="i", random=2)
    third = arrived(1, random=3)
    store.add([one])
    assert store.add([again])[0] == [again]
    assert store.add([again, one]) == ([], {(SOURCE, "log")})
    assert store.add([third])[0] == [third]
    state = store.log(SOURCE, "log")
    assert (state.conflicts, state.repeats) == (2, 2)
    assert [event.what for event, _ in store.falls()] == ["alarm"]
    assert store.known() == [(SOURCE, "log")]
    assert rows(tmp_path) == lines(tmp_path) == [one.body, again.body, third.body]
    store.close()


def test_a_place_is_used_so_often_and_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    several = [arrived(1, random=n) for n in range(MAX_LIVES + 1)]
    assert store.add(several)[0] == several[:-1]
    store.close()


def as_dict(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_gaps_are_seen_and_close_or_are_accounted_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([arrived(1), arrived(9, "fall", "alarm", incident="i")])
    state = store.log(SOURCE, "log")
    assert state.gaps() == [(2, 8)]
    receipt = state.receipt("log").lanes
    assert (receipt[Lane.ALARM].upto, receipt[Lane.ALARM].missing) == (9, ((2, 8),))
    assert (receipt[Lane.EVENT].upto, receipt[Lane.EVENT].missing) == (1, ())
    # It may drop what lies before the telling, and no more.
    store.add([arrived(10, what="dropped", ranges=[[2, 4], [11, 99], [7, 6]])])
    assert state.gaps() == [(5, 8)]
    store.add([arrived(n) for n in (5, 6, 7, 8)])
    assert state.gaps() == []


def test_a_restart_remembers_everything(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([arrived(1), arrived(2), arrived(5), arrived(6, what="dropped", ranges=[[4, 4]])])
    store.add([arrived(1)])
    before = store.log(SOURCE, "log")
    store.close()
    after = Store(tmp_path).log(SOURCE, "log")
    assert after.held.ranges == before.held.ranges == [(1, 2), (4, 6)]
    assert (after.lanes, after.repeats) == (before.lanes, 1)


def test_an_event_of_a_type_from_the_future_is_kept_and_receipted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = arrived(1)
    new = Arrived(Event(**{**as_dict(old.event), "type": "edge_rt.new.thing"}), b"{}", "")
    store.add([new])
    given = store.log(SOURCE, "log").receipt("log").lanes
    assert {lane: receipt.upto for lane, receipt in given.items()} == dict.fromkeys(Lane, 1)


def test_lines_written_without_a_commit_are_cut_off(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([arrived(1)])
    store.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"half a li')  # a receiver killed before its commit
    store = Store(tmp_path)
    store.add([arrived(2)])
    store.close()
    assert lines(tmp_path) == [arrived(1).body, arrived(2).body]


def test_a_failed_transaction_leaves_nothing_and_the_next_try_works(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([arrived(1)])
    broken = arrived(3)._replace(body=None)  # type: ignore[arg-type]
    with pytest.raises(StorageError):
        store.add([arrived(2), broken])
    assert store.log(SOURCE, "log").held.ranges == [(1, 1)]
    store.add([arrived(2)])
    store.close()
    Store(tmp_path).close()
    assert lines(tmp_path) == rows(tmp_path) == [arrived(1).body, arrived(2).body]


@pytest.mark.parametrize("left", [b"", b"{}\n", b"\0" * 2000])
def test_lines_that_a_power_cut_took_are_written_again(tmp_path: Path, left: bytes) -> None:
    store = Store(tmp_path)
    store.add([arrived(1), arrived(2)])
    store.close()
    (tmp_path / "events.jsonl").write_bytes(left)
    store = Store(tmp_path)
    store.add([arrived(3)])
    store.close()
    assert lines(tmp_path) == rows(tmp_path) == [arrived(n).body for n in (1, 2, 3)]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        Store(tmp_path / "file")


def test_what_arrived_is_read_beside_the_writer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no store of events"):
        arrivals(tmp_path)
    store = Store(tmp_path)
    first, second = arrived(2), arrived(1)
    store.add([first, second])
    assert arrivals(tmp_path) == [(a.event.type, a.event.time, a.received) for a in (first, second)]
    store.close()
