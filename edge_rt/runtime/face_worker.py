"""The face worker: camera, face models and templates in a process that may be lost.

Started by edge_rt.runtime.face_service with the arguments STATE_DIR, CONFIG (as JSON) and FD.
It ends when its daemon does.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_rt.adapters.imaging import decode_image, thumbnail
from edge_rt.adapters.templates import Person
from edge_rt.bundle import open_bundle
from edge_rt.core.config import Config
from edge_rt.core.errors import CameraError, EdgeRtError, InputError
from edge_rt.core.latency import between
from edge_rt.core.manifest import EmbedManifest, distance_within
from edge_rt.core.match import Gallery, Match
from edge_rt.core.types import Float32Array, Frame, ImageArray
from edge_rt.core.wake import HEIGHT, WIDTH, Wake
from edge_rt.faces.pipeline import FacePipeline, Observation
from edge_rt.runtime.cameras import make_camera
from edge_rt.runtime.eye import Eye
from edge_rt.runtime.face_beside import Beside, Judged, Live, failed, moving_to
from edge_rt.runtime.face_messages import (
    MAX_LINE_BYTES,
    Answer,
    Arm,
    Ask,
    Beat,
    Compare,
    Failed,
    Ready,
    Seen,
    ToWorker,
    Unlocked,
)
from edge_rt.runtime.face_templates import forget_elsewhere, open_templates
from edge_rt.runtime.link import Link, parent_connection

NICE = 5  # a slow core is given to falls first, and pictures are passed over
OOM_SCORE = "500"  # of 1000
BEAT_S = 0.5
IDLE_S = 0.1
ENROL_FRAMES = 5  # good camera frames a person is enrolled from
ENROL_S = 30.0
VERIFY_S = 8.0
# Templates live in one gallery of at most 32 persons with 16 each: 512 distances, microseconds.


def main(arguments: list[str]) -> int:
    """Run until the daemon hangs up. Exit code 1 when a worker cannot start or go on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Meant for the whole process group: our end comes with the daemon's, in its order.
        signal.signal(number, signal.SIG_IGN)
    # If memory runs out, let it be this process (proc(5)); to raise the own score needs no right.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(OOM_SCORE)
    os.nice(NICE)
    link: Link[ToWorker] = Link(parent_connection(arguments), ToWorker, MAX_LINE_BYTES)
    try:
        config = msgspec.json.decode(arguments[1], type=Config)
        Worker(link, config, Path(arguments[0])).run()
    except EdgeRtError as error:
        link.send(Failed(type(error).__name__, str(error)))
        return 1
    return 0


class Worker:
    """Models loaded at construction; `run` never returns while the daemon lives."""

    def __init__(self, link: Link[ToWorker], config: Config, folder: Path) -> None:
        """Raises ConfigError, PublisherError, CredentialError, StorageError, InputError."""
        faces, runtime = config.faces, config.runtime
        self._link = link
        self._config, self._whole, self._folder = faces, config, folder
        detect = open_bundle(faces.detect, runtime.engine, runtime.threads)
        embed = open_bundle(faces.embed, runtime.engine, faces.threads)
        self._pipeline = FacePipeline(detect, embed)
        self._pipeline.warm_up()
        assert isinstance(embed.manifest, EmbedManifest)  # FacePipeline refused anything else
        self._threshold = distance_within(embed.manifest, faces.distance)
        # Enrolled together, pictures that no setting would take for one person are of two.
        self._apart = embed.manifest.decision.threshold.max
        self._manifest = embed.manifest
        self._beside: Beside | None = None
        self._compared = ""  # the candidate's folder
        moving_to(embed.manifest, config, folder, os.environ).adopt()
        self._store = open_templates(folder, faces, embed.manifest, os.environ)
        self._know(self._store.persons())
        self._eye = Eye(lambda: make_camera(faces.camera), link.send)
        self._wake = Wake(faces.wake, time.monotonic())
        self._armed = False
        self._inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._beat_s = 0.0
        # One count a verdict or a reason of the quality gate: a dozen words.
        self._tally: Counter[str] = Counter()
        self._told = (self._pipeline.latency.snapshot(), 0, 0)
        self._models = {b.manifest.name: b.manifest.version for b in (detect, embed)}
        self._engine = embed.interpreter.engine

    def run(self) -> None:
        """The loop; each turn is bounded by one camera read and one frame."""
        threading.Thread(target=self._read, name="daemon", daemon=True).start()
        self._link.send(Ready(self._engine, self._models, len(self._persons)))
        while True:
            self._turn()

    def _read(self) -> None:
        while (message := self._link.receive()) is not None:
            self._inbox.put(message)
        os._exit(0)  # the daemon is gone: no clean-up may hold us, the loop may be stuck

    def _turn(self) -> None:
        self._obey()
        if self._armed and self._wake.wait_s(time.monotonic()) == 0.0:
            frame = self._eye.next_frame()
            if frame is not None:
                self._look(frame)
        self._beat()

    def _obey(self) -> None:
        try:
            message = self._inbox.get(timeout=self._idle_s())
        except queue.Empty:
            return
        match message:
            case Arm(on):
                self._armed = on
                if on:  # whoever arms may stand before the camera already
                    self._wake = Wake(self._config.wake, time.monotonic())
                else:
                    self._eye.close()
            case Ask(id, command, args):
                self._link.send(self._answer(id, command, args))
            case Compare():
                self._compare(message)
            case Unlocked(person) if self._beside is not None:
                self._with_candidate(lambda beside: beside.unlocked(person))
            case _:
                pass  # unlocked, and the candidate is gone since

    def _idle_s(self) -> float:
        """How long to wait for a message: until a frame is wanted, or a beat is due."""
        return min(self._wake.wait_s(time.monotonic()), IDLE_S) if self._armed else IDLE_S

    def _beat(self) -> None:
        now_s = time.monotonic()
        if now_s - self._beat_s < BEAT_S:
            return
        self._beat_s = now_s
        latency = self._pipeline.latency.summary()
        eye, asleep = self._eye, self._armed and self._wake.asleep(now_s)
        self._link.send(Beat(eye.state, eye.frames, eye.dropped, latency, asleep))
        if self._beside is not None and (news := self._beside.news()) is not None:
            self._link.send(news)

    # ---- seeing ----

    def _look(self, frame: Frame) -> None:
        wake, t_s = self._wake, time.monotonic()
        small = thumbnail(frame.image, WIDTH, HEIGHT) if wake.wants_thumbnail(t_s) else None
        if not wake.check(small, t_s):
            # Nothing has moved since the models found no face in it.
            self._tally["asleep"] += 1
            self._link.send(Seen(frame.t_s, "no_face"))
            self._eye.rest()
            return
        seen = self._pipeline.process(frame.image)
        if seen.face is not None:
            wake.saw_face(time.monotonic())
        elif wake.asleep(time.monotonic()):
            self._eye.rest()
        self._tally[seen.reason or ("no_face" if seen.embedding is None else "good")] += 1
        best = None if seen.embedding is None else self._gallery.best(seen.embedding)
        self._link.send(self._seen(frame.t_s, seen, best))
        if best is not None and self._beside is not None:
            judged = Judged(best.person, best.distance, self._threshold)
            self._with_candidate(lambda beside: beside.look(frame.image, seen, judged))

    def _seen(self, t_s: float, seen: Observation, best: Match | None) -> Seen:
        if seen.embedding is None:
            return Seen(t_s, "poor" if seen.reason else "no_face", seen.reason or "")
        if best is None:  # nobody can be let in, so nobody is refused or locked out either
            return Seen(t_s, "poor", "nobody_enrolled")
        if best.distance > self._threshold:
            return Seen(t_s, "stranger" if seen.sure else "no_face")
        return Seen(t_s, "match", person=best.person)

    def _know(self, persons: list[Person]) -> None:
        self._persons = persons
        self._gallery = Gallery([(person.id, person.embeddings) for person in persons])

    # ---- a candidate beside the live embedder ----

    def _compare(self, asked: Compare) -> None:
        self._beside, self._compared = None, asked.folder
        if not asked.folder:
            return
        live = Live(self._pipeline, self._manifest, self._persons)
        try:
            self._beside = Beside(asked, self._whole, self._folder, live, self._beat)
        except Exception as error:  # whatever it is, the live embedder goes on
            self._link.send(failed(asked.folder, error))

    def _with_candidate(self, do: Callable[[Beside], None]) -> None:
        """What a candidate does wrong ends the candidate, and nothing else."""
        if self._beside is None:
            return
        try:
            do(self._beside)
        except Exception as error:  # whatever it is, the live embedder goes on
            self._beside = None
            self._link.send(failed(self._compared, error))

    def _by_candidate(
        self, image: ImageArray, seen: Observation, into: list[Float32Array] | None
    ) -> None:
        def embed(beside: Beside) -> None:
            if into is not None and (embedding := beside.embed(image, seen)) is not None:
                into.append(embedding)

        self._with_candidate(embed)

    # ---- commands ----

    def _answer(self, id: int, command: str, args: dict[str, Any]) -> Answer:
        try:
            return Answer(id, self._commands()[command](args))
        except EdgeRtError as error:
            return Answer(id, kind=type(error).__name__, message=str(error))

    def _commands(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {
            "enrol": self._enrol,
            "verify": self._verify,
            "list": lambda args: self._listed(),
            "remove": self._remove,
            "anew": self._anew,
            "totals": lambda args: self._totals(),
        }

    def _totals(self) -> dict[str, Any]:
        """What has happened since this was last asked for; aggregates only."""
        latency, frames, dropped = self._told
        self._told = (self._pipeline.latency.snapshot(), self._eye.frames, self._eye.dropped)
        seen, self._tally = dict(self._tally), Counter()
        return {
            "latency": between(latency, self._told[0]),
            "frames": self._eye.frames - frames,
            "dropped": self._eye.dropped - dropped,
            "seen": seen,
        }

    def _listed(self) -> dict[str, Any]:
        rows = [
            {"name": p.name, "id": p.id, "templates": len(p.embeddings), "created_s": p.created_s}
            for p in self._persons
        ]
        return {"persons": rows}

    def _enrol(self, args: dict[str, Any]) -> dict[str, Any]:
        images = args["images"]
        theirs: list[Float32Array] = []  # the same pictures by a candidate
        found = (
            self._from_images(images, theirs)
            if images
            else self._from_camera(ENROL_FRAMES, ENROL_S, theirs, new=args.get("new", False))
        )
        templates = np.stack(found)
        self._check_one_person(templates)
        person = self._store.add(args["name"], templates, time.time())
        self._know(self._store.persons())
        new = (person.id, np.stack(theirs)) if len(theirs) == len(found) else None
        self._with_candidate(lambda beside: beside.known(self._persons, new))
        return {**self._listed(), "enrolled": person.id, "templates": len(found)}

    def _check_one_person(self, templates: Float32Array) -> None:
        for k, row in enumerate(templates):
            distances = np.linalg.norm(templates[:k] - row, axis=1)
            if (distances > self._apart).any():
                first = int(np.argmax(distances)) + 1
                raise InputError(
                    f"pictures {first} and {k + 1} do not look like one person; enrol persons one "
                    "by one, from pictures that are more alike"
                )

    def _remove(self, args: dict[str, Any]) -> dict[str, Any]:
        person = self._store.remove(args["name"])
        self._know(self._store.persons())
        self._with_candidate(lambda beside: beside.known(self._persons))
        space = self._manifest.embedding_space
        forget_elsewhere(self._folder, self._config, os.environ, space, person)
        return {**self._listed(), "removed": person.id}

    def _anew(self, args: dict[str, Any]) -> dict[str, Any]:
        """Somebody would rather be enrolled anew than have an update wait for them."""
        name = args["name"]
        found = [p.id for p in self._persons if name in (p.id, p.name)]
        if not found:
            raise InputError(f"{name!r:.80} is not enrolled; see edge-rt face list")
        if self._beside is None or not self._beside.moves:
            raise InputError("no embedder of another space is on its way; nobody is waited for")
        self._beside.accept_anew(found[0])
        return {**self._listed(), "anew": found[0]}

    def _verify(self, args: dict[str, Any]) -> dict[str, Any]:
        images = args["images"]
        (embedding, *_) = self._from_images(images) if images else self._from_camera(1, VERIFY_S)
        best = self._gallery.best(embedding)
        names = {p.id: p.name for p in self._persons}
        matched = best is not None and best.distance <= self._threshold
        return {
            "match": matched,
            "name": names[best.person] if best is not None and matched else None,
            "distance": None if best is None else round(best.distance, 4),
            "threshold": self._threshold,
        }

    def _from_images(
        self, images: list[str], theirs: list[Float32Array] | None = None
    ) -> list[Float32Array]:
        """One embedding a photograph; each must hold exactly one good face.

        theirs: filled with what a candidate for another embedding space makes of them.
        """
        found = []
        for k, text in enumerate(images, 1):
            where = f"picture {k}"
            try:
                data = base64.b64decode(text, validate=True)
            except binascii.Error:
                raise InputError(f"{where}: not base64") from None
            image = decode_image(data, where)
            seen = self._pipeline.process(image, enrolling=True)
            if seen.embedding is None:
                raise InputError(f"{where}: {seen.advice()}")
            found.append(seen.embedding)
            self._by_candidate(image, seen, theirs)
        return found

    def _from_camera(
        self,
        frames: int,
        patience_s: float,
        theirs: list[Float32Array] | None = None,
        *,
        new: bool = False,
    ) -> list[Float32Array]:
        """new: of somebody who is not enrolled yet; frames of the others are passed over."""
        found: list[Float32Array] = []
        last = self._eye.reason or "no frame came from the camera"
        for frame in self._watch(patience_s):
            seen = self._pipeline.process(frame.image, enrolling=True)
            if seen.embedding is None:
                last = seen.advice()
                continue
            best = self._gallery.best(seen.embedding) if new else None
            if best is not None and best.distance <= self._threshold:
                last = "whoever was seen is enrolled already"
                continue
            found.append(seen.embedding)
            self._by_candidate(frame.image, seen, theirs)
            if len(found) == frames:
                return found
        last = self._eye.reason or last
        raise CameraError(f"{len(found)} of {frames} good frames in {patience_s:g} s: {last}")

    def _watch(self, patience_s: float) -> Iterator[Frame]:
        """Frames for so long, with beats in between; the camera closes again if we are disarmed."""
        end_s = time.monotonic() + patience_s
        try:
            while time.monotonic() < end_s:
                frame = self._eye.next_frame()
                self._beat()
                if frame is not None:
                    yield frame
        finally:
            if not self._armed:
                self._eye.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
