"""From one embedding space to another: new templates from people who come in as usual.

Embeddings of two spaces cannot be compared, so that a new embedder would know nobody. While it
runs in shadow, a person whom the live model knows beyond doubt gives a new template each time; it
goes live only when everybody has enough of them, or has agreed to be enrolled anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_rt.core.errors import StorageError
from edge_rt.core.rates import binomial_at_least
from edge_rt.core.types import Float32Array
from edge_rt.core.verdict import Verdict

# Pictures of strangers within a person's distance: as core.shadow_faces allows within one space.
MOST_ADMITTED, ALPHA = 0.002, 0.01


class MigrationPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a template is taken, and how many are needed."""

    # Of the live threshold: who is so close is not the neighbour's brother. On LFW the factory
    # embedder lets no stranger in at the whole of it.
    confident: float = 0.8
    # As much beyond it: nearer may be the owner in a bad light, whom a better model knows.
    foreign: float = 1.25
    templates: int = 5  # as many as an enrolment from pictures takes
    # Frames of one visit are one picture many times over: light and beard differ between days.
    apart_s: float = 4 * 3600.0


class Person(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """templates: embeddings in the new space; last_s: when the last was taken.

    enrolled  from pictures that both models saw: nothing is missing
    anew      has agreed to be enrolled anew
    """

    templates: list[list[float]] = []
    last_s: float | None = None
    refused: int = 0
    enrolled: bool = False
    anew: bool = False


class Progress(NamedTuple):
    """Counts, and the pseudonyms of those who still lack templates; nothing of the templates.

    strangers, admitted  pictures of people whom the live model does not know, once somebody had
                         templates, and those of them that the candidate would let in
    """

    persons: int
    migrated: int
    waiting: tuple[str, ...]
    strangers: int = 0
    admitted: int = 0


class Migration:
    """Collects for `persons` (pseudonyms) into `space`; `within`: the largest distance at which
    two embeddings of the new space count as one person, from the candidate's manifest."""

    def __init__(
        self, space: str, persons: tuple[str, ...], within: float, policy: MigrationPolicy
    ) -> None:
        self.space = space
        self._within = within
        self._policy = policy
        self._persons = {name: Person() for name in persons}
        self._strangers = self._admitted = 0

    def unlocked(self, person: str, share: float, embedding: Float32Array, now_s: float) -> bool:
        """The live model let `person` in; whether a template was taken.

        share      live distance over the live threshold
        embedding  float32 (n,) of the same picture by the candidate
        now_s      seconds of a clock that goes on through restarts
        """
        known = self._persons.get(person)
        if known is None or share > self._policy.confident or self._has_all(known):
            return False
        if known.last_s is not None and abs(now_s - known.last_s) < self._policy.apart_s:
            return False
        if not np.isfinite(embedding).all() or not self._agrees(known, embedding):
            known.refused += 1
            # The first one may have been the odd one out: three others against it, and it goes.
            if len(known.templates) == 1 and known.refused >= 3:
                known.templates, known.refused = [], 0
            return False
        known.templates.append([float(x) for x in embedding])
        known.last_s = now_s
        return True

    def stranger(self, share: float, embedding: Float32Array) -> None:
        """The live model knows nobody like this: the candidate must not either.

        share  live distance over the live threshold; those close to it are left out
        """
        if share < self._policy.foreign:
            return
        known = [t for who in self._persons.values() for t in who.templates]
        if known:
            self._strangers += 1
            self._admitted += self._near(known, embedding)

    def enrol(self, person: str, embeddings: Float32Array) -> None:
        """Somebody new, from the pictures of the enrolment, float32 (m, n) by the candidate."""
        rows = [[float(x) for x in row] for row in embeddings]
        self._persons[person] = Person(templates=rows, enrolled=True)

    def accept_anew(self, person: str) -> None:
        """This person has agreed to be enrolled anew. KeyError: unknown."""
        self._persons[person].anew = True

    def follow(self, persons: tuple[str, ...]) -> None:
        """Who is enrolled now: removed ones are forgotten, new ones begin."""
        self._persons = {name: self._persons.get(name, Person()) for name in persons}

    def progress(self) -> Progress:
        """How far it is."""
        waiting = tuple(
            name for name, who in self._persons.items() if not (who.anew or self._has_all(who))
        )
        n = len(self._persons)
        return Progress(n, n - len(waiting), waiting, self._strangers, self._admitted)

    @property
    def done(self) -> bool:
        """Everybody can go over; also when nobody is enrolled."""
        return not self.progress().waiting

    def templates(self) -> dict[str, Float32Array]:
        """By person, float32 (k, n). Only of those who have all: half a gallery lets nobody in."""
        return {
            name: np.array(who.templates, np.float32)
            for name, who in self._persons.items()
            if self._has_all(who)
        }

    def save(self) -> dict[str, Any]:
        """JSON-able; biometric: to be kept where templates are kept, and as well sealed."""
        return {
            "space": self.space,
            "persons": msgspec.to_builtins(self._persons),
            "strangers": [self._strangers, self._admitted],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from `save()`; people who are not enrolled any more are left out.

        Raises StorageError if it is damaged or of another space.
        """
        if saved.get("space") != self.space:
            raise StorageError(f"saved migration: not to {self.space}; it starts anew")
        try:
            old = msgspec.convert(saved.get("persons"), dict[str, Person])
            counts = msgspec.convert(saved.get("strangers"), tuple[int, int])
        except msgspec.ValidationError as error:
            raise StorageError(f"saved migration: {error}; it starts anew") from None
        for name in self._persons.keys() & old.keys():
            self._persons[name] = old[name]
        self._strangers, self._admitted = counts

    def _has_all(self, who: Person) -> bool:
        return who.enrolled or len(who.templates) >= self._policy.templates

    def _agrees(self, who: Person, embedding: Float32Array) -> bool:
        """Within one person's distance of all of theirs, and of nobody else's: a wrong one poisons
        the gallery, and a model to whom two people are one must not come in."""
        if any(not self._near([template], embedding) for template in who.templates):
            return False
        others = [
            t for other in self._persons.values() if other is not who for t in other.templates
        ]
        return not self._near(others, embedding)

    def _near(self, templates: list[list[float]], embedding: Float32Array) -> bool:
        """Whether one of them is no farther than the same person's."""
        if not templates:
            return False
        apart = np.linalg.norm(np.asarray(templates, np.float32) - embedding, axis=1)
        return bool((apart <= self._within).any())


def judge_migration(progress: Progress, space: str) -> Verdict | None:
    """None while somebody lacks templates; a candidate that lets strangers in is refused."""
    persons, waiting = progress.persons, progress.waiting
    strangers, admitted = progress.strangers, progress.admitted
    figures = {"persons": persons, "migrated": progress.migrated}
    figures |= {"strangers": strangers, "admitted": admitted}
    p = binomial_at_least(admitted, strangers, MOST_ADMITTED)
    if p < ALPHA:
        why = f"it lets in {admitted} of {strangers} pictures of people whom nobody knows here"
        return Verdict(False, (why,), figures)
    if waiting:
        return None
    return Verdict(True, (f"{persons} persons are ready for {space}",), figures)
