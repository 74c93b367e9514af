"""The uplink and the settings from afar, put together from the configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.config import Config
from edge_rt.core.twin import Desired
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.certificate_watch import CertificateWatch
from edge_rt.runtime.clock import clock_trusted
from edge_rt.runtime.compose import Place
from edge_rt.runtime.compose_commands import make_remote_commands, receipts
from edge_rt.runtime.control import Command
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.home_assistant_service import HomeAssistantService
from edge_rt.runtime.letters import Letter
from edge_rt.runtime.places import EVENTS_NAME, TWIN_NAME
from edge_rt.runtime.remote_commands import RemoteCommands
from edge_rt.runtime.reporting import make_home_assistant
from edge_rt.runtime.twin_service import TwinService
from edge_rt.runtime.uplink_service import UplinkService


class MqttPart:
    """Settings are in force from construction on, the connection from `start` to `stop`."""

    def __init__(self, place: Place) -> None:
        device = place.config.device
        self._place = place
        self._topics = Topics(device.fleet, device.name)
        self._home: HomeAssistantService | None = None
        self._commands: RemoteCommands | None = None
        self._watchers: list[Callable[[Config], None]] = []
        file = StateFile(place.folder / TWIN_NAME, Desired)
        twin = self._twin = TwinService(place.config, file, self._apply)
        twin.load()
        self._certificate = _watch(twin.config.mqtt, place)
        self._uplink = UplinkService(
            twin.config.mqtt,
            self._topics,
            place.recorder,
            place.folder / EVENTS_NAME,
            lambda incident: place.siren.sound("alarm"),
            boot_id=place.boot_id,
            handlers={
                "twin/desired": lambda _, body: Letter("twin/reported", twin.desire(body), True),
                "cmd/+": self._command,
            },
            greetings=self._greet,
            open_receipt=receipts(self._topics, place.config.mqtt),
        )

    def start(
        self,
        falls: FallService | None,
        faces: FaceService | None,
        table: Mapping[str, Command],
    ) -> None:
        """Connect, and stay so; falls, faces: what there is to be shown at home; table: the
        commands that some may be sent of."""
        place = self._place
        self._commands = make_remote_commands(place, self._topics, table)
        self._commands.start()
        home = self._home = make_home_assistant(
            self._topics,
            self._twin.config.mqtt,
            place.folder,
            falls,
            faces,
            _from_afar(place.config, falls, faces),
        )
        home.send = self._uplink.post
        home.show_models(self._twin.models)
        place.recorder.listen(home.notice)
        self._uplink.start()

    def post(self, letter: Letter) -> None:
        """Send a letter while there is a connection; forgotten without one."""
        self._uplink.post(letter)

    def alarm_awaits(self) -> bool:
        """Whether the line is wanted for a stage of a fall."""
        return self._uplink.alarm_awaits()

    def report_models(self, models: dict[str, Any]) -> None:
        """What `twin/reported` says of models from now on."""
        self._twin.models = models
        self._uplink.post(Letter("twin/reported", self._twin.report(), True))
        if self._home is not None:
            self._home.show_models(models)

    def refresh(self) -> None:
        """Bring what Home Assistant shows up to date, and look at the certificate's end."""
        if self._certificate is not None:
            self._certificate.look()
        if self._home is not None:
            self._home.refresh()

    def stop(self) -> None:
        """Say `stopped` and hang up."""
        if self._commands is not None:
            self._commands.close()
        self._uplink.stop()

    def config(self) -> Config:
        """The configuration with the settings from afar that are in force."""
        return self._twin.config

    def forget(self, reason: str) -> None:
        """Drop settings that cannot be applied."""
        self._uplink.set_patience(self._twin.forget(reason).mqtt.alarm_patience_s)

    def watch(self, apply: Callable[[Config], None]) -> None:
        """Have new settings applied by this too; it raises ConfigError for what it refuses."""
        self._watchers.append(apply)

    def stuck_s(self) -> float:
        """How long ago the uplink's thread last turned."""
        return time.monotonic() - self._uplink.turned_s

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        status = self._uplink.status()
        status["bad_input"] += self._twin.malformed
        return {
            **status,
            "commands": self._commands.status() if self._commands else {},
            "certificate": self._certificate.status() if self._certificate else None,
        }

    def problems(self) -> list[str]:
        """What a person should look at."""
        status = self._uplink.status()
        found = [status["error"]] if status["error"] else []
        if status["alarms_unheard"]:
            found.append(f"{status['alarms_unheard']} alarms without a receipt")
        if self._certificate is not None and self._certificate.problem:
            found.append(self._certificate.problem)
        return found

    def _command(self, topic: str, payload: bytes) -> None:
        assert self._commands is not None  # nothing comes before start()
        self._commands.handle(topic, payload)

    def _greet(self) -> list[Letter]:
        at_home = self._home.greet() if self._home is not None else []
        return [*at_home, Letter("twin/reported", self._twin.report(), True)]

    def _apply(self, config: Config) -> None:
        for apply in self._watchers:
            apply(config)
        self._uplink.set_patience(config.mqtt.alarm_patience_s)


def _from_afar(
    config: Config, falls: FallService | None, faces: FaceService | None
) -> tuple[str, ...]:
    """Tasks whose models are updated."""
    if not config.updates.enabled:
        return ()
    with_faces = faces is not None and config.updates.faces != "off"
    return (
        *(("fall",) if falls is not None else ()),
        *(("face-detect", "face-embed") if with_faces else ()),
    )


def _watch(config: MqttConfig, place: Place) -> CertificateWatch | None:
    if not config.cert:
        return None
    return CertificateWatch(
        Path(config.cert),
        config.certificate_warn_days,
        place.recorder.announce,
        wall_s=time.time,
        monotonic_s=time.monotonic,
        clock_trusted=clock_trusted,
    )
