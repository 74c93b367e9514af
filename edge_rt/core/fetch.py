"""Fetching a release chunk by chunk: what to ask for next, what to make of what comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from edge_rt.core.catalog import Release


class PullRules(msgspec.Struct, frozen=True):
    """window      chunks asked for at once: enough to fill a line, little to lose at a cut
    patience_s  what has not come for so long, while nothing else came either, is asked for again;
                a chunk takes 20 s on a line of 256 kbit/s that loses every tenth packet
    tries       so often a chunk may fail to come or be wrong before the fetch is given up for now
    """

    window: int = 8
    patience_s: float = 60.0
    tries: int = 3


class Offer(StrEnum):
    """What became of a message with a chunk."""

    TAKEN = "taken"
    REPEATED = "repeated"  # held already
    UNASKED = "unasked"
    WRONG_LENGTH = "wrong_length"
    WRONG_HASH = "wrong_hash"


class Pull:
    """One release under way. Holds numbers, never bytes. Times are monotonic seconds."""

    def __init__(self, release: Release, rules: PullRules | None = None) -> None:
        self.release = release
        self.counts = dict.fromkeys([*Offer, "asked", "asked_again", "resumed"], 0)
        self.reason = ""  # why it was given up; empty while it was not
        self._rules = rules or PullRules()
        self._missing = dict.fromkeys(range(len(release.chunks)))  # a set in order
        self._asked: dict[int, float] = {}
        self._tries: dict[int, int] = {}
        self._news_s = float("-inf")

    @property
    def held(self) -> int:
        """Chunks that are there and right."""
        return len(self.release.chunks) - len(self._missing) - len(self._asked)

    @property
    def asked(self) -> int:
        """Chunks that are on their way."""
        return len(self._asked)

    @property
    def done(self) -> bool:
        return not self._missing and not self._asked

    def resume(self, chunks: Iterable[int]) -> None:
        """These are held from an earlier run; the caller has compared their hashes."""
        for chunk in chunks:
            del self._missing[chunk]
            self.counts["resumed"] += 1

    def ask(self, now_s: float) -> list[int]:
        """Chunks to ask for now; the window is full after that, or nothing is left."""
        room = max(0, self._rules.window - len(self._asked))
        chosen = [chunk for chunk, _ in zip(self._missing, range(room), strict=False)]
        for chunk in chosen:
            del self._missing[chunk]
            self._asked[chunk] = now_s
            self.counts["asked_again" if chunk in self._tries else "asked"] += 1
        return chosen

    def offer(self, chunk: int, payload: bytes, now_s: float) -> Offer:
        """A chunk came. Only of a TAKEN one the bytes are right and must be kept; after that, or
        when it is wrong, it is no longer asked for."""
        verdict = self._judge(chunk, payload)
        self.counts[verdict] += 1
        if verdict is Offer.TAKEN:
            del self._asked[chunk]
            self._news_s = now_s
        elif verdict in (Offer.WRONG_LENGTH, Offer.WRONG_HASH):
            what = "sha256 is not the signed one"
            if verdict is Offer.WRONG_LENGTH:
                what = f"{len(payload)} bytes, {self.release.length(chunk)} are signed"
            self._again(chunk, what)
        return verdict

    def overdue(self, now_s: float) -> list[int]:
        """Chunks that did not come; they are no longer asked for, the next ask() names them."""
        due = [chunk for chunk in self._asked if now_s >= self._due_s(chunk)]
        for chunk in due:
            self._again(chunk, "it does not come")
        return due

    def next_s(self) -> float:
        """When overdue() may have something."""
        return min(map(self._due_s, self._asked), default=float("inf"))

    def disconnected(self) -> list[int]:
        """The connection ended: what was asked for is asked for again, at nobody's fault."""
        lost = list(self._asked)
        self._missing = dict.fromkeys([*lost, *self._missing])
        self._asked.clear()
        return lost

    def _due_s(self, chunk: int) -> float:
        return max(self._asked[chunk], self._news_s) + self._rules.patience_s

    def _judge(self, chunk: int, payload: bytes) -> Offer:
        if chunk not in self._asked:
            held = 0 <= chunk < len(self.release.chunks) and chunk not in self._missing
            return Offer.REPEATED if held else Offer.UNASKED
        if len(payload) != self.release.length(chunk):
            return Offer.WRONG_LENGTH
        right = hashlib.sha256(payload).hexdigest() == self.release.chunks[chunk]
        return Offer.TAKEN if right else Offer.WRONG_HASH

    def _again(self, chunk: int, what: str) -> None:
        del self._asked[chunk]
        self._missing[chunk] = None
        tries = self._tries[chunk] = self._tries.get(chunk, 0) + 1
        if tries >= self._rules.tries:
            self.reason = f"{self.release}: chunk {chunk} was refused: {what}"
