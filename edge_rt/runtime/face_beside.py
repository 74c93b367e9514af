"""A candidate embedder beside the live one, in the face worker.

It runs when the verdict on a frame has been told, at most once a second and a twentieth of the
time, and decides nothing. Embeddings stay here and in the sealed files; what is told are counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from edge_rt.adapters.templates import Person
from edge_rt.bundle import open_bundle
from edge_rt.core.config import Config
from edge_rt.core.errors import EdgeRtError, ManifestError, ModelError
from edge_rt.core.manifest import EmbedManifest, distance_within
from edge_rt.core.match import Gallery
from edge_rt.core.migration import Migration, MigrationPolicy
from edge_rt.core.shadow_faces import FaceShadowTally
from edge_rt.core.types import Float32Array, ImageArray
from edge_rt.faces.embedder import FaceEmbedder
from edge_rt.faces.pipeline import FacePipeline, Observation
from edge_rt.runtime.face_exam import examine
from edge_rt.runtime.face_messages import Compare, Compared
from edge_rt.runtime.face_templates import Moving

EVERY_S = 1.0
SHARE = 0.05  # of the time; a board that takes 0.3 s for a face compares one in six seconds
# An unlock follows within a frame or two on the match that decided it.
FRESH_S = 2.0


class Judged(NamedTuple):
    """What the live embedder has measured: the nearest person, the distance, and its threshold."""

    person: str
    distance: float
    threshold: float

    @property
    def share(self) -> float:
        return self.distance / self.threshold


class Live(NamedTuple):
    """What runs: who finds faces, who embeds them, and who is known to it."""

    finder: FacePipeline
    manifest: EmbedManifest
    persons: list[Person]


class Beside:
    """Raises, from all methods, EdgeRtError: then it is over with this candidate."""

    def __init__(
        self,
        asked: Compare,
        config: Config,
        folder: Path,
        live: Live,
        between: Callable[[], None],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """between: called while the exam of the candidate takes its time."""
        bundle = open_bundle(Path(asked.folder), config.runtime.engine, config.faces.threads)
        manifest = bundle.manifest
        if not isinstance(manifest, EmbedManifest):
            raise ManifestError(f"{manifest.name} is no face embedder")
        self._folder = asked.folder
        self._embedder = FaceEmbedder(bundle)
        self._threshold = distance_within(manifest, config.faces.distance)
        # By its own threshold: a household's stricter one does not make a worse model of it.
        examine(live.finder, self._embedder, manifest.decision.threshold.value, between)
        self._next_s = 0.0
        self._told: Compared | None = None
        self._way: _SameSpace | _NewSpace
        if manifest.embedding_space == live.manifest.embedding_space:
            self._way = _SameSpace(asked, live.persons, self._threshold)
        else:
            moving = moving_to(manifest, config, folder, environment)
            self._way = _NewSpace(moving, live)

    def look(self, image: ImageArray, seen: Observation, judged: Judged) -> None:
        """A frame on which the live model has given its verdict."""
        now_s = time.monotonic()
        if seen.face is None or not seen.sure:
            return
        matched = judged.share <= 1.0
        due = now_s >= self._next_s
        if isinstance(self._way, _NewSpace) and matched:
            # Aligning takes microseconds; it is embedded once this becomes an unlock.
            chip = self._embedder.align(image, seen.face.keypoints).copy()
            self._way.last = _Last(judged, chip, now_s)
        elif due:
            chip = self._embedder.align(image, seen.face.keypoints)
            self._way.take(self._embedder.embed(chip), judged)
            now_s, cost_s = time.monotonic(), time.monotonic() - now_s
            self._next_s = now_s + max(EVERY_S, cost_s / SHARE)

    def unlocked(self, person: str) -> None:
        """The daemon has let this person in."""
        way = self._way
        if not isinstance(way, _NewSpace) or way.last is None:
            return
        last, way.last = way.last, None
        if last.judged.person == person and time.monotonic() - last.t_s <= FRESH_S:
            way.unlocked(last.judged, self._embedder.embed(last.chip))

    def embed(self, image: ImageArray, seen: Observation) -> Float32Array | None:
        """By the candidate, for somebody who is being enrolled; None if it compares only."""
        if seen.face is None or isinstance(self._way, _SameSpace):
            return None
        return self._embedder.embed(self._embedder.align(image, seen.face.keypoints))

    def known(self, persons: list[Person], new: tuple[str, Float32Array] | None = None) -> None:
        """Who is enrolled now; new: pseudonym and templates of whoever came just now."""
        self._way.known(persons, new)

    @property
    def moves(self) -> bool:
        """Whether people are taken along into another embedding space."""
        return isinstance(self._way, _NewSpace)

    def accept_anew(self, person: str) -> None:
        """This person has agreed to be enrolled anew."""
        if isinstance(self._way, _NewSpace):
            self._way.accept_anew(person)

    def news(self) -> Compared | None:
        """What is to be told, None if nothing has changed."""
        now = self._way.report(self._folder)
        if now == self._told:
            return None
        self._told = now
        return now


def failed(folder: str, error: Exception) -> Compared:
    """To tell that it is over with a candidate; what nobody has foreseen is its fault, too."""
    if not isinstance(error, EdgeRtError):
        error = ModelError(f"it cannot be run: {type(error).__name__}: {error}")
    return Compared(folder, kind=type(error).__name__, message=str(error))


def moving_to(
    manifest: EmbedManifest,
    config: Config,
    folder: Path,
    environment: Mapping[str, str],
) -> Moving:
    """The templates that are collected for this embedder."""
    within = distance_within(manifest, config.faces.distance)
    updates = config.updates
    policy = MigrationPolicy(
        templates=updates.face_templates, apart_s=3600.0 * updates.face_apart_h
    )

    def make(persons: tuple[str, ...]) -> Migration:
        return Migration(manifest.embedding_space, persons, within, policy)

    return Moving(folder, config.faces, manifest, environment, make)


class _Last(NamedTuple):
    judged: Judged
    chip: ImageArray
    t_s: float


class _SameSpace:
    """Both measure the same picture against the same templates."""

    def __init__(self, asked: Compare, persons: list[Person], threshold: float) -> None:
        self._tally = FaceShadowTally.restore(asked.seen) if asked.seen else FaceShadowTally()
        self._threshold = threshold
        self.known(persons, None)

    def take(self, embedding: Float32Array, judged: Judged) -> None:
        best = self._gallery.best(embedding)
        if best is not None:
            self._tally.add(judged.distance, best.distance, judged.threshold, self._threshold)

    def known(self, persons: list[Person], new: tuple[str, Float32Array] | None) -> None:
        self._gallery = Gallery([(person.id, person.embeddings) for person in persons])

    def report(self, folder: str) -> Compared:
        return Compared(folder, seen=self._tally.save())


class _NewSpace:
    """Who comes in beyond doubt leaves a template; strangers are counted."""

    def __init__(self, moving: Moving, live: Live) -> None:
        self._moving = moving
        self._live_space = live.manifest.embedding_space
        self._migration = moving.load([person.id for person in live.persons])
        self.last: _Last | None = None
        self._save()

    def take(self, embedding: Float32Array, judged: Judged) -> None:
        # Kept with the next template: what a restart forgets of strangers comes again.
        self._migration.stranger(judged.share, embedding)

    def unlocked(self, judged: Judged, embedding: Float32Array) -> None:
        if self._migration.unlocked(judged.person, judged.share, embedding, time.time()):
            self._save()

    def known(self, persons: list[Person], new: tuple[str, Float32Array] | None) -> None:
        if new is not None:
            self._migration.enrol(*new)
        self._migration.follow(tuple(person.id for person in persons))
        self._save()

    def accept_anew(self, person: str) -> None:
        self._migration.accept_anew(person)
        self._save()

    def report(self, folder: str) -> Compared:
        progress = self._migration.progress()
        return Compared(folder, self._migration.space, progress._asdict())

    def _save(self) -> None:
        self._moving.save(self._migration, self._live_space)
