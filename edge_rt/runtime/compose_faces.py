"""Face unlock, put together from the configuration."""

from __future__ import annotations

import logging
import time

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.core.unlock import Counters, UnlockMachine, penalised
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.places import UNLOCK_NAME

log = logging.getLogger(__name__)


def make_faces(place: Place) -> FaceService:
    """The service, not started. Raises ConfigError for a lock that needs liveness."""
    config = place.config.faces
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
    return FaceService(
        [str(place.folder), msgspec.json.encode(place.config).decode()],
        machine,
        announcer(place.recorder, None),
        place.lock,
        time.monotonic,
        hang_s=config.hang_s,
        memory_mb=config.memory_mb,
        armed=config.armed,
    )
