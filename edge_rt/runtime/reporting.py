"""Puts telemetry and Home Assistant together with what the daemon has."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from edge_rt import __version__
from edge_rt.adapters.statefile import StateFile
from edge_rt.adapters.vitals import read_vitals
from edge_rt.core.home_assistant import FallState, config_topic, discovery_payload
from edge_rt.core.telemetry import Vitals, When
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_wire import Topics
from edge_rt.core.wire import rfc3339
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.home_assistant_service import Announced, HomeAssistantService
from edge_rt.runtime.letters import Letter
from edge_rt.runtime.places import ANNOUNCED_NAME
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps
from edge_rt.runtime.telemetry_service import Sources, TelemetryService

# A worker that enrols a person answers when it is done; its figures wait for the next report.
WORKER_S = 1.0


class Sender(Protocol):
    """What takes reports away (runtime.compose_mqtt)."""

    def post(self, letter: Letter) -> None: ...

    def refresh(self) -> None: ...


class Parts(NamedTuple):
    """What a daemon may have running."""

    falls: FallService | None = None
    faces: FaceService | None = None
    mqtt: Sender | None = None


def make_home_assistant(
    topics: Topics,
    config: MqttConfig,
    folder: Path,
    falls: FallService | None,
    faces: FaceService | None,
    models: Collection[str] = (),
) -> HomeAssistantService:
    """Announces if configured, takes back what an earlier configuration announced if not.

    models: tasks whose models come from afar
    """
    topic, payload = None, b""
    if config.home_assistant.enabled:
        topic = config_topic(topics, config.home_assistant.prefix)
        payload = discovery_payload(
            topics,
            config,
            read_vitals(folder),
            __version__,
            falls=falls is not None,
            faces=faces is not None,
            models=models,
        )
    state = None if falls is None else lambda: FallState(*falls.alarm_state())
    file = StateFile(folder / ANNOUNCED_NAME, Announced)
    return HomeAssistantService(file, topic, payload, state, models)


@contextmanager
def telemetry(
    folder: Path, recorder: Recorder, stamps: Stamps, parts: Parts, period_s: float
) -> Iterator[None]:
    """Reports while the context lasts; without an uplink it only watches the power supply."""
    falls, faces, mqtt = parts
    born_s = stamps.monotonic_s()

    def vitals() -> Vitals:
        return read_vitals(folder)

    def when(period_s: float) -> When:
        return When(
            time=rfc3339(stamps.wall_s()),
            clocktrusted=stamps.clock_trusted(),
            bootid=stamps.boot_id,
            monotonicms=str(int(stamps.monotonic_s() * 1000)),
            period_s=period_s,
        )

    def health() -> dict[str, Any]:
        log = recorder.status()
        events = {
            "storage": log.storage,
            "pending": log.pending,
            "dropped": log.dropped,
            "last_sequence": log.last_sequence,
            "bytes": log.log_bytes,
        }
        running_s = round(stamps.monotonic_s() - born_s, 1)
        return {"version": __version__, "daemon_s": running_s, "event_log": events}

    def announce(kind: str, what: str, data: Mapping[str, Any]) -> None:
        recorder.announce(kind, what, data)

    service = TelemetryService(
        Sources(
            vitals,
            when,
            health,
            None if falls is None else falls.totals,
            None if faces is None else lambda: faces.ask("totals", {}, WORKER_S),
        ),
        announce,
        time.monotonic,
        period_s=period_s,
        send=None if mqtt is None else mqtt.post,
        on_look=(lambda: None) if mqtt is None else mqtt.refresh,
    )
    service.start()
    try:
        yield
    finally:
        service.close()
