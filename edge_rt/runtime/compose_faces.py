"""Face unlock, put together from the configuration."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.core.unlock import Counters, UnlockMachine, penalised
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.face_judge import Arming
from edge_rt.runtime.face_models import TASKS, FaceModel, Folders
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.places import FACES_NAME, MODELS_NAME, UNLOCK_NAME
from edge_rt.runtime.update_journal import Journal
from edge_rt.runtime.update_start import begin

log = logging.getLogger(__name__)


class Faces(NamedTuple):
    """The service, not started; its models and their journals, where updates are possible."""

    service: FaceService
    models: tuple[tuple[FaceModel, Journal], ...]


def make_faces(place: Place) -> Faces:
    """Raises ConfigError for a lock that needs liveness, and for bundles that cannot be read."""
    config = place.config.faces
    folders = Folders(place.folder, place.config)
    models = _models(place, folders)
    file = StateFile(place.folder / UNLOCK_NAME, Counters)
    try:
        counters = file.load() or Counters()
    except StorageError as error:
        # The file stays damaged until the penalty has been written over it.
        log.error("the unlock counters start from the longest lockout: %s", error)
        counters = penalised(config.rules)
    machine = UnlockMachine(
        config.rules, counters, file.save, boot_id=place.boot_id, now_s=time.monotonic()
    )
    service = FaceService(
        folders.arguments(),
        machine,
        announcer(place.recorder, None),
        place.lock,
        time.monotonic,
        hang_s=config.hang_s,
        memory_mb=config.memory_mb,
        arming=Arming(place.folder / FACES_NAME, config.armed),
    )
    for model, journal in models:
        model.bind(service, journal)
    return Faces(service, models)


def _models(place: Place, folders: Folders) -> tuple[tuple[FaceModel, Journal], ...]:
    updates = place.config.updates.enabled
    if not updates and not (place.folder / MODELS_NAME).is_dir():
        return ()
    made = []
    for part, task in TASKS.items():
        model = FaceModel(part, folders, place.config)
        journal = Journal(place.folder, task, place.boot_id)
        begin(journal, model.open, watched=updates)
        made.append((model, journal))
    return tuple(made)
