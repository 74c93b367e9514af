"""What an embedder must tell apart before it may see anybody here: photographs of the package.

Golden vectors say that a model computes what its maker saw it compute; not that it knows a face.
One that gives the same numbers for everybody would go live, and let everybody in.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from itertools import combinations

import numpy as np

from edge_rt.adapters.imaging import decode_image
from edge_rt.core.errors import ModelError
from edge_rt.core.types import Float32Array
from edge_rt.faces.embedder import FaceEmbedder
from edge_rt.faces.pipeline import FacePipeline

# Three of one person, one of each of two others.
OWNER = ("owner_1.jpg", "owner_2.jpg", "owner_3.jpg")
OTHERS = ("stranger_1.jpg", "stranger_2.jpg")


def examine(
    finder: FacePipeline,
    embedder: FaceEmbedder,
    within: float,
    between: Callable[[], None],
) -> None:
    """Embed the photographs and compare them.

    finder   finds the faces; what it follows is forgotten
    within   the largest distance of one person
    between  called after each photograph: a slow board takes a second for some of them
    Raises ModelError, naming the pair of photographs that is judged wrongly.
    """
    found: dict[str, Float32Array] = {}
    for name in (*OWNER, *OTHERS):
        image = decode_image((files("edge_rt") / "demo_media" / name).read_bytes(), name)
        face = finder.process(image, enrolling=True).face
        if face is None:
            raise ModelError(f"{name}: the live detector finds no face in it; the exam needs one")
        found[name] = embedder.embed(embedder.align(image, face.keypoints))
        if not np.isfinite(found[name]).all():
            raise ModelError(f"{name}: its embedding is not finite")
        between()
    for one, other in combinations(found, 2):
        distance = float(np.linalg.norm(found[one] - found[other]))
        alike = one in OWNER and other in OWNER
        if (distance <= within) != alike:
            who = "two people" if alike else "one person"
            raise ModelError(f"it takes {one} and {other} for {who} (photographs of the package)")
