"""Speed of the face pipeline: a frame in memory to its decision."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edge_rt.bundle import Bundle
from edge_rt.core.errors import InputError
from edge_rt.core.match import Gallery
from edge_rt.core.types import ImageArray
from edge_rt.evaluation.bench import Stopwatch
from edge_rt.faces.clip import demo_clip
from edge_rt.faces.pipeline import FacePipeline

CLIP_FRAMES = 40  # different pictures; they are shown again and again
READ_S = 1.0


def bench_faces(detect: Bundle, embed: Bundle, frames: int) -> dict[str, Any]:
    """Demo pictures, one face each, through detector, quality gate, embedder and matching.

    Counted are frames that came to a comparison; others end earlier and would flatter the figure.
    Raises ManifestError for bundles of other tasks, InputError when no picture gets so far.
    """
    pipeline = FacePipeline(detect, embed)
    pipeline.warm_up()
    shown = [image for image in _clip() if pipeline.process(image).embedding is not None]
    if not shown:
        raise InputError("no demo picture passes the quality gate; verify the face bundles")
    first = pipeline.process(shown[0]).embedding
    assert first is not None
    gallery = Gallery([("somebody", np.stack([first]))])
    pipeline.latency.reset()
    watch = Stopwatch()
    for k in range(frames):
        image = shown[k % len(shown)]
        start = time.perf_counter()
        watch.start()
        seen = pipeline.process(image)
        watch.lap("pipeline")
        assert seen.embedding is not None  # it was chosen for having one
        gallery.best(seen.embedding)
        watch.lap("match")
        watch.add("frame_to_decision", time.perf_counter() - start)
    laps = watch.summary()
    height, width = shown[0].shape[:2]
    return {
        "bundles": [f"{b.manifest.name} {b.manifest.version}" for b in (detect, embed)],
        "engine": embed.interpreter.engine,
        "input": f"{width} x {height} pixels, {len(shown)} demo pictures in turn",
        "how": "wall clock of one frame after the other; liveness is not in it",
        "stages": {**_rows(pipeline), "match": laps["match"]},
        "frame_to_decision": laps["frame_to_decision"],
    }


def _rows(pipeline: FacePipeline) -> dict[str, dict[str, float]]:
    """The pipeline's own clock, in the columns of the others (within 3.2 %, core.latency)."""
    return {
        stage: {"n": row["count"], **{k: row[k] for k in ("p50_ms", "p95_ms", "p99_ms")}}
        for stage, row in pipeline.latency.summary().items()
    }


def _clip() -> list[ImageArray]:
    camera = demo_clip(seed=1, speed=1e6)
    images: list[ImageArray] = []
    camera.open()
    try:
        while len(images) < CLIP_FRAMES:
            frame = camera.read(READ_S)
            if frame is not None:
                images.append(frame.image.copy())
    except EOFError:
        pass
    finally:
        camera.close()
    return images
