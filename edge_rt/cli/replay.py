"""Recordings through the live pipelines, in the foreground and without a daemon."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_rt.cli import options, output
from edge_rt.core.errors import InputError, ManifestError

if TYPE_CHECKING:
    from edge_rt.core.match import Gallery
    from edge_rt.core.types import Camera, Frame, ImageArray
    from edge_rt.core.unlock import Look
    from edge_rt.faces.pipeline import FacePipeline, Observation

READ_S = 1.0
BLOCK_S = 0.5  # the pace of a FIFO sensor; the decisions do not depend on it


def _speed(ctx: click.Context, option: click.Parameter, text: str) -> float | None:
    """Seconds of recording in one of ours; None: as fast as possible."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < float("inf"):
        raise click.BadParameter(f"{text!r} is neither max nor a number above 0", ctx, option)
    return speed


_paced = click.option(
    "--speed", callback=_speed, default="max", show_default=True, help="1 is real time."
)


@click.group()
def replay() -> None:
    """Run a recording through the live pipelines."""


@replay.command()
@click.argument("file", type=options.FILE)
@click.option("--trial", default="", help="Which trial; the first by default.")
@click.option("--bundle", default="fall-waist", show_default=True, help="Factory name or folder.")
@click.option("--scores", is_flag=True, help="Print every score, not only what is announced.")
@_paced
@options.engine
@options.as_json_lines
def fall(
    file: Path,
    trial: str,
    bundle: str,
    scores: bool,
    speed: float | None,
    engine: str,
    as_json: bool,
) -> None:
    """Stream one trial of FILE (trials/1 .npz) through detector and alarm machine."""
    from edge_rt.adapters.trials import read_trials
    from edge_rt.bundle import open_bundle
    from edge_rt.core.fall_rules import rules_for
    from edge_rt.core.manifest import FallManifest
    from edge_rt.core.types import SampleBlock
    from edge_rt.falls.detector import FallDetector
    from edge_rt.falls.pipeline import FallPipeline

    trials = list(read_trials(file))
    chosen = next((t for t in trials if trial in ("", t.trial)), None)
    if chosen is None:
        some = ", ".join(t.trial for t in trials[:3])
        raise InputError(f"{file}: none of its {len(trials)} trials ({some} ...) is {trial!r}")
    opened = open_bundle(bundle, engine)
    if not isinstance(opened.manifest, FallManifest):
        raise ManifestError(f"bundle {bundle} is not a fall model; name another")
    placement = opened.manifest.decision.placement
    if chosen.placement != placement:
        output.warn(f"a trial from the {chosen.placement}; {bundle} was made for the {placement}")
    stamps = "even" if chosen.t_s is None else "arrival"
    detector = FallDetector(opened, rate_hz=chosen.rate_hz, stamps=stamps)  # type: ignore[arg-type]
    pipeline = FallPipeline(
        detector, rules_for(opened.manifest), lambda: uuid.uuid4().hex, range_g=16.0
    )
    times = chosen.times_s()
    size = max(1, round(BLOCK_S * chosen.rate_hz))
    begun, events = time.monotonic(), 0
    with output.progress("samples", json_lines=as_json) as advance:
        for start in range(0, len(times), size):
            block = SampleBlock(times[start : start + size], chosen.acc_g[start : start + size])
            if speed is not None:
                time.sleep(max(0.0, begun + start / chosen.rate_hz / speed - time.monotonic()))
            for kind, what, data in pipeline.push(block):
                events += 1
                # Told is when a block has come: at its end, and never before it was decided.
                told_s = max(float(block.t_s[-1]), pipeline.now_s)
                _event(told_s, f"{kind}.{what}", data, as_json)
            if scores:
                _score(pipeline.status(), as_json)
            advance(start + len(block.t_s), len(times))
    status = pipeline.status()
    if not status["hops"]:
        raise InputError(
            f"{file}: no window of trial {chosen.trial} was scored ({len(times)} samples at "
            f"{chosen.rate_hz:g} Hz); it is too short, or has too many gaps"
        )
    status |= {"trial": chosen.trial, "activity": chosen.activity, "is_fall": chosen.is_fall}
    status |= {"engine": opened.interpreter.engine, "announcements": events}
    _end(status, as_json)


@replay.command()
@click.argument("video", type=options.FILE)
@click.option("--owner", type=options.FILE, help="Photograph of the one person who is enrolled.")
@options.detect
@options.embed
@_paced
@options.engine
@options.as_json_lines
def face(
    video: Path,
    owner: Path | None,
    detect: str,
    embed: str,
    speed: float | None,
    engine: str,
    as_json: bool,
) -> None:
    """Show VIDEO (or a folder of pictures) to detector, quality gate, embedder and unlock machine.

    Printed is each change of what is seen, and what the daemon would announce. The video's own time
    drives the unlock machine. Nothing is unlocked and nothing is kept.
    """
    from edge_rt.adapters.camera_replay import ReplayCamera
    from edge_rt.adapters.imaging import read_image
    from edge_rt.bundle import open_bundle
    from edge_rt.core.manifest import EmbedManifest
    from edge_rt.core.match import Gallery
    from edge_rt.core.unlock import Counters, UnlockMachine, UnlockRules
    from edge_rt.faces.pipeline import FacePipeline

    camera = ReplayCamera(video, speed=speed or 1.0, paced=speed is not None)
    # Before the models: engines talk when they load, and a wrong path is one line.
    camera.open()
    camera.close()
    portrait = None if owner is None else read_image(owner)
    models = open_bundle(detect, engine), open_bundle(embed, engine)
    pipeline = FacePipeline(*models)
    assert isinstance(models[1].manifest, EmbedManifest)  # FacePipeline refuses anything else
    threshold = models[1].manifest.decision.threshold.value
    gallery = Gallery([]) if portrait is None else _enrol(pipeline, portrait, str(owner))
    machine = UnlockMachine(UnlockRules(), Counters(), lambda _: None, boot_id="replay", now_s=0.0)
    verdicts: dict[str, int] = {}
    announced: dict[str, int] = {}
    last = ""
    camera.open()
    try:
        with output.progress("frames", json_lines=as_json) as advance:
            begun_s = None
            for number, (stamp_s, image) in enumerate(_frames(camera), 1):
                begun_s = stamp_s if begun_s is None else begun_s
                t_s = (stamp_s - begun_s) * (speed or 1.0)
                look = _look(pipeline.process(image), gallery, threshold)
                seen = look.verdict.value + (f" ({look.reason})" if look.reason else "")
                verdicts[seen] = verdicts.get(seen, 0) + 1
                if seen != last:
                    _event(t_s, seen, {}, as_json)
                last = seen
                for outcome in machine.step(look, t_s) if owner else ():
                    announced[outcome.what] = announced.get(outcome.what, 0) + 1
                    _event(t_s, f"face.{outcome.what}", outcome.data("not_checked"), as_json)
                advance(number, None)
    finally:
        camera.close()
    summary = {"frames": sum(verdicts.values()), "seen": verdicts, "announced": announced}
    _end({**summary, "latency": pipeline.latency.summary()}, as_json)


def _enrol(pipeline: FacePipeline, portrait: ImageArray, where: str) -> Gallery:
    """A gallery of the one person on a photograph. Raises InputError."""
    from edge_rt.core.match import Gallery

    seen = pipeline.process(portrait, enrolling=True)
    if seen.embedding is None:
        raise InputError(f"{where}: {seen.advice()}")
    return Gallery([("owner", seen.embedding[None])])


def _look(seen: Observation, gallery: Gallery, threshold: float) -> Look:
    from edge_rt.core.unlock import Look, Verdict

    if seen.embedding is None:
        return Look(Verdict.POOR if seen.reason else Verdict.NO_FACE, reason=seen.reason)
    best = gallery.best(seen.embedding)
    if best is None or best.distance > threshold:
        return Look(Verdict.STRANGER if seen.sure else Verdict.NO_FACE)
    return Look(Verdict.MATCH, person=best.person)


def _frames(camera: Camera) -> Iterator[Frame]:
    """All frames until the end of the recording."""
    while True:
        try:
            frame = camera.read(READ_S)
        except EOFError:
            return
        if frame is not None:
            yield frame


def _event(t_s: float, what: str, data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json({"t_s": round(t_s, 3), "event": what, "data": data})
        return
    output.say(f"{t_s:9.2f} s  {what}")
    if data:
        output.print_tree(data, indent=13)


def _score(status: dict[str, Any], as_json: bool) -> None:
    line = {key: status[key] for key in ("t_s", "score", "peak_g", "flags", "state")}
    if as_json:
        output.print_json(line)
    elif line["t_s"] is not None:
        output.say(
            f"{line['t_s']:9.2f} s  score {line['score']:7.2f}  peak {line['peak_g']:6.2f} g  "
            f"{line['state']}"
        )


def _end(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json({"summary": summary})
    else:
        click.echo("\nsummary")
        output.print_tree(summary, indent=2)
