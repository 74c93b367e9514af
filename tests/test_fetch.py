"""core.fetch: windows, resends, verified chunks, giving up."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.catalog import Release, Rollout
from edge_rt.core.fetch import Offer, Pull, PullRules

RULES = PullRules(window=4, patience_s=10, tries=3)


def cut(data: bytes, size: int = 1024) -> list[bytes]:
    return [data[n : n + size] for n in range(0, len(data), size)]


def release_of(data: bytes) -> Release:
    chunks = tuple(hashlib.sha256(part).hexdigest() for part in cut(data))
    sha256 = hashlib.sha256(data).hexdigest()
    rollout = Rollout(100, "s")
    return Release(
        "fall-waist", "fall", "1.0.0", sha256, len(data), 1024, chunks, 0, "0.1.0", rollout
    )


DATA = random.Random(1).randbytes(9_500)
PARTS = cut(DATA)


def pull() -> Pull:
    return Pull(release_of(DATA), RULES)


def test_a_window_at_a_time_until_all_is_there() -> None:
    it = pull()
    assert it.ask(0) == [0, 1, 2, 3]
    assert it.ask(0) == []
    assert it.offer(2, PARTS[2], 1) is Offer.TAKEN
    assert it.ask(1) == [4]
    for _ in range(20):
        for chunk in list(it._asked):
            assert it.offer(chunk, PARTS[chunk], 1) is Offer.TAKEN
        it.ask(1)
    assert it.done
    assert it.held == 10
    assert it.counts["asked"] == 10
    assert it.counts["asked_again"] == 0


def test_what_is_not_right_is_not_taken() -> None:
    it = pull()
    it.ask(0)
    assert it.offer(0, PARTS[1], 0) is Offer.WRONG_HASH
    assert it.offer(1, PARTS[1][:-1], 0) is Offer.WRONG_LENGTH
    assert it.offer(2, PARTS[2] + b"x", 0) is Offer.WRONG_LENGTH
    assert it.offer(3, PARTS[3], 0) is Offer.TAKEN
    assert it.offer(3, PARTS[3], 0) is Offer.REPEATED
    assert it.offer(9, PARTS[9], 0) is Offer.UNASKED
    assert it.offer(99, b"", 0) is Offer.UNASKED
    assert it.offer(-1, b"", 0) is Offer.UNASKED
    assert it.held == 1


def test_a_chunk_that_stays_wrong_is_given_up_with_its_reason() -> None:
    it = pull()
    for n in range(RULES.tries):
        assert it.reason == ""
        while 0 not in it.ask(n):
            for chunk in list(it._asked):
                it.offer(chunk, PARTS[chunk], n)
        it.offer(0, PARTS[1], n)
    assert it.reason == "fall-waist 1.0.0: chunk 0 was refused: sha256 is not the signed one"


def test_patience_begins_anew_with_each_chunk_that_comes() -> None:
    it = pull()
    it.ask(0)
    it.offer(1, PARTS[1], 9)
    assert it.next_s() == 19
    assert it.overdue(18.9) == []
    assert it.overdue(19) == [0, 2, 3]
    assert it.counts["asked_again"] == 0
    assert it.ask(19) == [4, 5, 6, 7]  # others first: what never comes must not hold them up


def test_a_chunk_that_never_comes_is_given_up() -> None:
    it = Pull(release_of(PARTS[0]), RULES)
    for n in range(RULES.tries):
        it.ask(n * 10)
        it.overdue(n * 10 + 10)
    assert it.reason.endswith("chunk 0 was refused: it does not come")


def test_a_cut_costs_no_tries_and_no_verified_chunk() -> None:
    it = pull()
    it.ask(0)
    it.offer(0, PARTS[0], 0)
    for _ in range(10):
        it.disconnected()
        assert it.ask(1) == [1, 2, 3, 4]
    assert it.reason == ""
    assert it.held == 1


def test_a_restart_asks_only_for_what_is_missing() -> None:
    it = pull()
    it.resume([0, 1, 2, 5])
    assert it.ask(0) == [3, 4, 6, 7]
    assert it.held == 4
    assert it.counts["resumed"] == 4


@given(st.integers(0, 2**32))
def test_whatever_happens_it_ends_whole_and_takes_nothing_twice(seed: int) -> None:
    chance = random.Random(seed)
    it = Pull(release_of(DATA), PullRules(window=3, patience_s=10, tries=10**9))
    taken: list[int] = []
    waiting: list[int] = []
    now = 0.0
    for _ in range(3000):
        if it.done:
            break
        now += chance.random() * 5
        for chunk in it.overdue(now):
            waiting.remove(chunk)
        waiting += it.ask(now)
        assert len(waiting) <= 3
        what = chance.random()
        if what < 0.1:
            it.disconnected()
            waiting.clear()
        elif what < 0.7 and waiting:
            chunk = waiting.pop(chance.randrange(len(waiting)))
            good = chance.random() < 0.8
            verdict = it.offer(chunk, PARTS[chunk] if good else b"x", now)
            assert (verdict is Offer.TAKEN) == good
            taken += [chunk] if good else []
        elif taken:
            assert it.offer(taken[0], b"anything", now) is Offer.REPEATED
    assert it.done
    assert sorted(taken) == list(range(10))
