"""The chunks of the release that is wanted: into a file, then strictly unpacked."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from edge_rt.adapters.partfile import PartFile
from edge_rt.core.catalog import Release
from edge_rt.core.errors import ManifestError
from edge_rt.core.fetch import Offer, Pull, PullRules
from edge_rt.core.update_task import Answer, Task, Unpack

log = logging.getLogger(__name__)

_PLACE = re.compile(r"([0-9a-f]{64})/(0|[1-9]\d{0,5})", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COUNTS = (*Offer, "asked", "asked_again", "resumed")  # over all releases since the start


class Outcome(StrEnum):
    """What became of a whole download."""

    STAGED = "staged"
    REFUSED = "refused"  # what was signed cannot be used
    FAILED = "failed"  # the disk, or our child


class Download:
    """One release under way, and the folder of those. Use from one thread; it knows no broker.

    folder  holds `download/` and `staging/`
    run     runs a task in the trust child
    Raises StorageError from open(), offer() and finish().
    """

    def __init__(
        self, folder: Path, rules: PullRules, reserve_bytes: int, run: Callable[[Task], Answer]
    ) -> None:
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.pull: Pull | None = None
        self.file: PartFile | None = None
        self.reason = ""  # of the last outcome that was not STAGED
        self._folder = folder
        self._rules = rules
        self._reserve_bytes = reserve_bytes
        self._run = run

    def staging(self, sha256: str) -> Path:
        """Where a release is unpacked to."""
        return self._folder / "staging" / sha256

    @property
    def asked(self) -> bool:
        """Whether chunks are on their way."""
        return self.pull is not None and self.pull.asked > 0

    def open(self, release: Release) -> Pull:
        """Begin, or go on where an earlier run has stopped."""
        self.close()
        file = PartFile(self._folder / "download", release, self._reserve_bytes)
        pull = Pull(release, self._rules)
        pull.resume(list(file.held()))
        self.file, self.pull = file, pull
        if pull.held:
            log.info("updates: %s: %d chunks are here already", release, pull.held)
        return pull

    def close(self) -> None:
        """Let go of it; what is on the disk stays for open()."""
        if self.pull is not None:
            for what, count in self.pull.counts.items():
                self.counts[what] += count
        if self.file is not None:
            self.file.close()
        self.file = self.pull = None

    def offer(self, place: str, payload: bytes, now_s: float) -> Offer:
        """A chunk came; place: `<sha256>/<n>`."""
        match = _PLACE.fullmatch(place)
        pull, file = self.pull, self.file
        if match is None or pull is None or file is None or match[1] != pull.release.sha256:
            self.counts[Offer.UNASKED] += 1
            return Offer.UNASKED
        chunk = int(match[2])
        verdict = pull.offer(chunk, payload, now_s)
        if verdict is Offer.TAKEN:
            file.write(chunk, payload)
        elif verdict in (Offer.WRONG_LENGTH, Offer.WRONG_HASH):
            log.warning("updates: %s: chunk %d: %s", pull.release, chunk, verdict)
        return verdict

    def finish(self) -> Outcome:
        """All chunks are here, each compared: make them durable; a child compares the hash of the
        whole and unpacks it strictly."""
        assert self.file is not None and self.pull is not None
        release = self.pull.release
        self.file.sync()
        blob, folder = str(self.file.path), str(self.staging(release.sha256))
        answer = self._run(Unpack(blob, folder, release, self._reserve_bytes))
        if not answer.error:
            return Outcome.STAGED
        self.reason = answer.error
        if answer.kind != ManifestError.__name__:
            return Outcome.FAILED
        if len(list(self.file.held())) < len(release.chunks):
            # Each was compared as it came: this is no fault of whoever signed it.
            self.reason = f"{blob}: the disk gives back other bytes than it was given; replace it"
            return Outcome.FAILED
        return Outcome.REFUSED

    def discard(self, sha256: str) -> None:
        """Forget a release, its staging folder included."""
        if self.pull is not None and self.pull.release.sha256 == sha256:
            self.close()
        (self._folder / "download" / f"{sha256}.part").unlink(missing_ok=True)
        for folder in (self.staging(sha256), self._folder / "staging" / f"{sha256}.new"):
            shutil.rmtree(folder, ignore_errors=True)

    def status(self) -> dict[str, Any]:
        """JSON-able view."""
        pull, counts = self.pull, dict(self.counts)
        if pull is None:
            return {"release": None, **counts}
        for what, count in pull.counts.items():
            counts[what] += count
        total = len(pull.release.chunks)
        return {"release": str(pull.release), "chunks": total, "held": pull.held, **counts}


def kept(folder: Path) -> set[str]:
    """sha256 of every release that something lies on the disk of, below a Download's folder."""
    places = [*(folder / "download").glob("*.part"), *(folder / "staging").glob("*")]
    return {match[0] for path in places if (match := _SHA256.match(path.name))}
