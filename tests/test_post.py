"""Sends in threads: what hangs is given up on, and holds up nobody else. Time is the test's."""

from __future__ import annotations

import threading

from inbox import until

from edge_rt.fleet.notices import Place
from edge_rt.fleet.post import HANGS, MAX_STUCK, Letter, Outcome, Post


class Slow:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.sent: list[str] = []

    def send(self, title: str, body: str, urgent: bool) -> str:
        assert self.gate.wait(30)
        self.sent.append(title)
        return ""


class Broken:
    def send(self, title: str, body: str, urgent: bool) -> str:
        raise SystemExit("not what a service may do")


def letter(service: str, round: int = 0) -> Letter:
    return Letter(Place("k", "Ada", service), round, False, 1, f"{service}{round}", "body", True)


def collect(post: Post, now_s: float, count: int) -> list[Outcome]:
    found: list[Outcome] = []
    until(
        lambda: len(found) >= count, lambda: found.extend(post.outcomes(now_s)) or post.wait(0.05)
    )
    return found


def test_a_service_that_hangs_is_given_up_on_and_the_other_is_not_held_up() -> None:
    slow, quick = Slow(), Slow()
    quick.gate.set()
    woken = threading.Event()
    post = Post({"slow": lambda: slow, "quick": lambda: quick}, 20.0, woken.set)
    post.start(letter("slow"), 100.0)
    post.start(letter("quick"), 100.0)
    assert collect(post, 119.9, 1) == [Outcome(letter("quick"), "")]
    assert woken.wait(5)
    assert not post.free("slow") and post.free("quick")
    assert collect(post, 120.0, 1) == [Outcome(letter("slow"), "no answer in 20 s")]
    assert post.free("slow") and not post.stuck("slow") and not post.waiting
    slow.gate.set()
    assert collect(post, 121.0, 1) == [Outcome(letter("slow"), "")], "the late answer counts"


def test_threads_that_hang_are_bounded_and_free_again_when_they_end() -> None:
    slow = Slow()
    post = Post({"slow": lambda: slow}, 1.0)
    for k in range(MAX_STUCK):
        assert not post.stuck("slow"), HANGS
        post.start(letter("slow", k), 10.0 * k)
        collect(post, 10.0 * k + 1, 1)
    assert post.stuck("slow")
    slow.gate.set()
    assert {o.letter.round for o in collect(post, 50.0, MAX_STUCK)} == set(range(MAX_STUCK))
    assert not post.stuck("slow")


def test_a_service_that_hung_is_made_anew() -> None:
    made: list[Slow] = []

    def make() -> Slow:
        made.append(Slow())
        if len(made) == 2:
            made[-1].gate.set()
        return made[-1]

    post = Post({"s": make}, 1.0)
    post.start(letter("s"), 0.0)
    collect(post, 1.0, 1)
    post.start(letter("s", 1), 2.0)
    assert collect(post, 2.0, 1) == [Outcome(letter("s", 1), "")]
    assert made[1].sent == ["s1"]
    made[0].gate.set()


def test_even_a_service_that_ends_its_thread_has_an_outcome() -> None:
    post = Post({"b": Broken}, 20.0)
    post.start(letter("b"), 0.0)
    (outcome,) = collect(post, 0.0, 1)
    assert outcome.error == "SystemExit: not what a service may do"
