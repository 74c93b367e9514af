"""Faces for people who bring their own pictures: enrol and match in memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_rt.bundle import open_bundle
from edge_rt.core.errors import InputError
from edge_rt.core.manifest import EmbedManifest, distance_within
from edge_rt.core.match import Gallery
from edge_rt.core.types import Float32Array, ImageArray
from edge_rt.faces.pipeline import FacePipeline


class FaceMatch(NamedTuple):
    """person: who it is, None for a stranger or no usable face; distance: to the nearest enrolled
    face, None without a usable face or anyone enrolled; advice: what the picture lacks, if it does.
    """

    person: str | None
    distance: float | None
    advice: str | None = None


class FaceMatcher:
    """Recognises enrolled persons in photographs.

    >>> import edge_rt
    >>> from edge_rt.adapters.imaging import read_image
    >>> from importlib.resources import files
    >>> photos = files("edge_rt") / "demo_media"
    >>> matcher = edge_rt.FaceMatcher()
    >>> matcher.enrol("owner", read_image(photos / "owner_1.jpg"))
    >>> matcher.match(read_image(photos / "owner_2.jpg")).person
    'owner'
    >>> matcher.match(read_image(photos / "stranger_1.jpg")).person is None
    True

    A photograph of a photograph matches as well: nothing here checks that a face is alive.
    """

    def __init__(
        self,
        detect: str | Path = "face-detect",
        embed: str | Path = "face-embed",
        *,
        threshold: float | None = None,
        engine: str = "auto",
    ) -> None:
        """detect, embed: factory bundles or folders; threshold: largest distance that matches.

        Raises as `open_bundle` does; ConfigError for a threshold outside the bundle's bounds.
        """
        bundle = open_bundle(embed, engine)
        self._pipeline = FacePipeline(open_bundle(detect, engine), bundle)
        assert isinstance(bundle.manifest, EmbedManifest)  # FacePipeline refused anything else
        self.threshold = distance_within(bundle.manifest, threshold)
        self._templates: dict[str, list[Float32Array]] = {}
        self._gallery = Gallery([])

    def enrol(self, person: str, *images: ImageArray) -> None:
        """Learn a person from pictures, uint8 (height, width, 3) blue-green-red, one face each.

        Several pictures in different light make recognition steadier. Raises InputError, and learns
        nothing, when a picture has no face, two, or a bad one.
        """
        if not images:
            raise InputError(f"no picture of {person}; give one at least")
        found = []
        for number, image in enumerate(images, 1):
            seen = self._pipeline.process(image, enrolling=True)
            if seen.embedding is None:
                raise InputError(f"picture {number} of {person}: {seen.advice()}")
            found.append(seen.embedding)
        self._templates.setdefault(person, []).extend(found)
        self._gallery = Gallery([(who, np.stack(t)) for who, t in self._templates.items()])

    def match(self, image: ImageArray) -> FaceMatch:
        """Who is in the picture, by the most prominent face."""
        self._pipeline.forget()
        seen = self._pipeline.process(image)
        if seen.embedding is None:
            return FaceMatch(None, None, seen.advice())
        best = self._gallery.best(seen.embedding)
        if best is None:
            return FaceMatch(None, None)
        return FaceMatch(best.person if best.distance <= self.threshold else None, best.distance)
