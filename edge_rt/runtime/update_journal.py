"""The journal of a task's models, with its slots and its security floor."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.adapters.slots import Slots
from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.core.manifest import MANIFEST_NAME, parse_manifest
from edge_rt.core.update_record import Candidate, Notice, Place, Record, Slot, State
from edge_rt.runtime.places import MODELS_NAME
from edge_rt.runtime.stamps import read_boot_id

log = logging.getLogger(__name__)

JOURNAL_NAME, FLOOR_NAME, PROGRESS_NAME = "journal.json", "floor.json", "progress.json"


class Floor(msgspec.Struct, frozen=True):
    """The lowest security epoch that may come in; outside journal and slots, for it only rises."""

    epoch: int = 0


class Progress(msgspec.Struct, frozen=True):
    """What shadow or trial has seen so far. stage: the state it belongs to."""

    sha256: str
    stage: str
    seen: dict[str, Any]


def manifest_sha256(folder: Path) -> str:
    """Of the model.toml in an unpacked bundle. Raises StorageError."""
    return hashlib.sha256(_read(folder / MANIFEST_NAME)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; the model is fetched again") from None


class Journal:
    """One task's. `record` is where the update stands; `saved` is False while the disk lacks it."""

    def __init__(self, state: Path, task: str, boot_id: str = "") -> None:
        """boot_id: of this boot, in each record that is written; empty: the kernel's is read."""
        self.task = task
        self.boot_id = boot_id or read_boot_id()
        self.folder = state / MODELS_NAME / task
        self.slots = Slots(self.folder)
        self.record = Record()
        self.saved = True
        self.problem = ""
        self._epoch: int | None = None  # None: not read yet, or damaged
        self._file = StateFile(self.folder / JOURNAL_NAME, Record)
        self._floor = StateFile(self.folder / FLOOR_NAME, Floor)
        self._progress = StateFile(self.folder / PROGRESS_NAME, Progress)

    def load(self) -> Record:
        """Read it, and remove what a kill has left over in the slots.

        A damaged journal is set aside: the factory model runs, and an event says so.
        """
        try:
            self.record = self._file.load() or Record()
        except StorageError as error:
            log.error("%s: the factory model runs: %s", self.task, error)
            reason = f"the journal of its slots is damaged: {error}"[:300]
            data = {"name": self.task, "version": "unknown", "stage": "start", "reason": reason}
            self.record = Record(notices=(Notice("rolled_back", data),))
            self._set_aside()
        if self.folder.is_dir():
            self.make_room()  # on a read-only disk what is there can still run
        return self.record

    def peek(self) -> Record:
        """What is written down; changes nothing. Raises StorageError."""
        return self._file.load() or Record()

    def make_room(self) -> None:
        """Have the folder there before the first update comes."""
        try:
            self.slots.prepare()
        except StorageError as error:
            log.error("%s: %s", self.task, error)
            self.problem = str(error)

    def write(self, record: Record) -> None:
        """Move on, once that is on disk. Raises StorageError; the record is then the old one."""
        record = msgspec.structs.replace(record, boot_id=self.boot_id)
        try:
            if not self.folder.is_dir():  # a device that never had an update has no such folder
                self.slots.prepare()
            self._file.save(record)
        except StorageError as error:
            self.problem = str(error)
            raise
        self.record, self.saved, self.problem = record, True, ""

    def keep(self, record: Record) -> None:
        """Move on even if the disk does not take it; `flush` tries again."""
        try:
            self.write(record)
        except StorageError as error:
            log.error("%s: not written down: %s", self.task, error)
            self.record, self.saved = record, False

    def flush(self) -> None:
        """Write what the disk would not take before."""
        if not self.saved:
            self.keep(self.record)

    def folder_of(self, place: Place) -> Path | None:
        """The folder of a slot that something lies in; None for the factory bundle.

        Raises StorageError and ManifestError as `check` does.
        """
        if place == "factory":
            return None
        self.check(place, self.record.contents.get(place))
        return self.slots.folder(place)

    def check(self, slot: Slot, candidate: Candidate | None) -> None:
        """Raises StorageError unless the bundle in a slot is the one that the record tells of: what
        was tried is what runs, whatever has become of the folder."""
        self.check_folder(self.slots.folder(slot), candidate)

    def check_folder(self, folder: Path, candidate: Candidate | None) -> None:
        """The same for any folder."""
        path = folder / MANIFEST_NAME
        text = _read(path)
        pinned = self.record.manifests.get(candidate.sha256) if candidate else None
        if pinned not in (None, hashlib.sha256(text).hexdigest()):
            raise StorageError(f"{path}: not as it was unpacked; the model is fetched again")
        found = parse_manifest(text, str(path))
        if candidate is None or (found.name, found.version) != (candidate.name, candidate.version):
            wanted = f"{candidate.name} {candidate.version}" if candidate else "no model"
            raise StorageError(
                f"{path}: {found.name} {found.version} in the place of {wanted}; fetched again"
            )

    def floor(self) -> int:
        """The security epoch below which nothing comes in.

        That of the live model at least, once it is confirmed. A damaged one counts as that of the
        live model, which passed it once.
        """
        running = self.record.running
        live = 0 if running is None else running.security_epoch
        if self._epoch is None:
            try:
                kept = self._floor.load()
                self._epoch = 0 if kept is None else kept.epoch
            except StorageError as error:
                log.error("%s: %s", self.task, error)
                return live
        return self._epoch if self.record.state is State.TRIAL else max(self._epoch, live)

    def raise_floor(self) -> None:
        """To the epoch of the live model, once that is confirmed. Raises StorageError."""
        running = self.record.running
        if running is None or self.record.state is State.TRIAL:
            return
        epoch = self.floor()
        if epoch != self._epoch:
            self._floor.save(Floor(epoch))
            self._epoch = epoch

    def progress(self) -> dict[str, Any] | None:
        """What the present stage had seen of the present candidate; None: it starts anew."""
        candidate = self.record.candidate
        try:
            kept = self._progress.load()
        except StorageError as error:
            log.error("%s: watched anew: %s", self.task, error)
            return None
        if kept is None or candidate is None:
            return None
        same = (kept.sha256, kept.stage) == (candidate.sha256, self.record.state.value)
        return kept.seen if same else None

    def keep_progress(self, seen: dict[str, Any]) -> None:
        """Save it; what a full disk does not take is seen once more."""
        if self.record.candidate is None:
            return
        try:
            sha256, stage = self.record.candidate.sha256, self.record.state.value
            self._progress.save(Progress(sha256, stage, seen))
        except StorageError as error:
            log.warning("%s: %s", self.task, error)

    def _set_aside(self) -> None:
        path = self._file.file.path
        try:
            os.replace(path, path.with_suffix(".damaged"))
        except OSError as error:
            # The next write replaces it; until then each start says so again.
            log.error("%s: cannot be set aside: %s", path, error.strerror)
