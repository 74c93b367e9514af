"""Speed of the face pipeline: a frame in memory to its decision."""

from __future__ import annotations

import importlib.resources
import time
from typing import Any

import numpy as np

from edge_rt.adapters.imaging import decode_image, thumbnail
from edge_rt.bundle import Bundle
from edge_rt.core.errors import InputError
from edge_rt.core.match import Gallery
from edge_rt.core.types import ImageArray
from edge_rt.core.wake import HEIGHT, WIDTH, Wake, WakeRules
from edge_rt.evaluation.bench import Stopwatch
from edge_rt.faces.clip import RATE_HZ, Clip, Scene
from edge_rt.faces.pipeline import FacePipeline

PHOTOGRAPH = "owner_2.jpg"
CLIP_FRAMES = 40  # different pictures, 37 MB of them; they are shown again and again
NEAR_S = 1.5


def bench_faces(detect: Bundle, embed: Bundle, frames: int) -> dict[str, Any]:
    """Demo pictures, one face each, through detector, quality gate, embedder and matching.

    Counted are frames that came to a comparison; others end earlier and would flatter the figure.
    Raises ManifestError for bundles of other tasks, InputError when no picture gets so far.
    """
    pipeline = FacePipeline(detect, embed)
    pipeline.warm_up()
    clip = _clip()
    first = next(
        (e for image in clip if (e := pipeline.process(image).embedding) is not None), None
    )
    if first is None:
        raise InputError("no demo picture passes the quality gate; verify the face bundles")
    gallery = Gallery([("somebody", first[np.newaxis])])
    watch = Stopwatch()
    for followed in (True, False):
        name = "frame_to_decision" if followed else "first_frame_to_decision"
        pipeline.latency.reset()
        for k in range(frames):
            if not followed:
                pipeline.forget()
            image = clip[k % len(clip)]
            start = time.perf_counter()
            embedding = pipeline.process(image).embedding
            seen = time.perf_counter()
            if embedding is None:
                continue
            gallery.best(embedding)
            end = time.perf_counter()
            watch.add("match", end - seen)
            watch.add(name, end - start)
        if followed:
            stages = _rows(pipeline)
    _bench_wake(pipeline, clip, frames, watch)
    laps = watch.summary()
    height, width = clip[0].shape[:2]
    return {
        "bundles": [f"{b.manifest.name} {b.manifest.version}" for b in (detect, embed)],
        "engine": embed.interpreter.engine,
        "input": f"{width} x {height} pixels, {len(clip)} frames of the demo clip in turn",
        "how": "wall clock of one frame after the other; first: each frame searched whole, as if "
        "it followed on nothing; waking: the same with the check for movement that let it through; "
        "wake_check: the check alone, as on each frame while nothing moves; liveness is not in it",
        "stages": {**stages, "match": laps.pop("match")},
        **laps,
    }


def _bench_wake(
    pipeline: FacePipeline, clip: list[ImageArray], frames: int, watch: Stopwatch
) -> None:
    """What the wake mode costs a frame on which nothing moves, and one that wakes it."""
    rules = WakeRules()
    empty = np.full_like(clip[0], 90)
    for k in range(frames):
        wake = Wake(rules, -2.0 * rules.awake_s)
        wake.check(thumbnail(empty, WIDTH, HEIGHT), 0.0)
        start = time.perf_counter()
        wake.check(thumbnail(empty, WIDTH, HEIGHT), 0.5)
        watch.add("wake_check", time.perf_counter() - start)
        pipeline.forget()
        start = time.perf_counter()
        image = clip[k % len(clip)]
        if wake.check(thumbnail(image, WIDTH, HEIGHT), 1.0):
            pipeline.process(image)
            watch.add("waking_frame_to_decision", time.perf_counter() - start)


def _rows(pipeline: FacePipeline) -> dict[str, dict[str, float]]:
    """The pipeline's own clock, in the columns of the others (within 3.2 %, core.latency)."""
    return {
        stage: {"n": int(row["count"]), **{k: row[k] for k in ("p50_ms", "p95_ms", "p99_ms")}}
        for stage, row in pipeline.latency.summary().items()
    }


def _clip() -> list[ImageArray]:
    """Pictures of one person who has come near, as the demo's camera shows them."""
    photograph = importlib.resources.files("edge_rt") / "demo_media" / PHOTOGRAPH
    still = decode_image(photograph.read_bytes(), PHOTOGRAPH)
    clip = Clip([Scene(still, NEAR_S + CLIP_FRAMES / RATE_HZ)], seed=1)
    return [clip.frame(clip.length - CLIP_FRAMES + k) for k in range(CLIP_FRAMES)]
