"""Model updates, put together from the configuration and from what runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from edge_rt import __version__
from edge_rt.core.config import Config
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.compose import Place
from edge_rt.runtime.compose_faces import Faces
from edge_rt.runtime.compose_falls import Falls
from edge_rt.runtime.places import UPDATES_NAME
from edge_rt.runtime.update_journal import Journal
from edge_rt.runtime.update_service import UpdateService
from edge_rt.runtime.update_source import Source
from edge_rt.runtime.update_task import Rules, TaskUpdate

if TYPE_CHECKING:
    from edge_rt.core.challenge import ChallengeContext
    from edge_rt.runtime.trying import Trier
    from edge_rt.runtime.update_ports import Live, Tries

STAGING_NAME = "staging"  # of the fetcher: a folder for each release, by the sha256 of its blob


# An alarm that nobody has receipted after this will not be heard for a faster line; a device whose
# fleet has no receiver must get its models all the same.
MAX_PAUSE_S = 300.0


class Uplink(Protocol):
    """The way to the fleet (runtime.compose_mqtt)."""

    def report_models(self, models: dict[str, Any]) -> None: ...

    def alarm_awaits(self) -> bool: ...


class Pause:
    """Whether fetching leaves the line to an alarm."""

    def __init__(self, awaits: Callable[[], bool], monotonic: Callable[[], float]) -> None:
        self._awaits = awaits
        self._monotonic = monotonic
        self._since_s = 0.0
        self._waiting = False

    def __call__(self) -> bool:
        before, self._waiting = self._waiting, self._awaits()
        if self._waiting and not before:
            self._since_s = self._monotonic()
        return self._waiting and self._monotonic() - self._since_s < MAX_PAUSE_S


@contextmanager
def make_trier(config: Config, forks: bool) -> Iterator[Trier | None]:
    """Who tries candidates, with a fork server; None without updates, or if it shall not fork: then
    each trial gets an interpreter of its own. Enter it before the process has a thread.

    Raises ConfigError for an unusable engine.
    """
    if not (config.updates.enabled and forks):
        yield None
        return
    # The engine and all that tries a model: a device without updates does without.
    from edge_rt.runtime.trying import Trier, start_zygote

    zygote = start_zygote(config.runtime.engine)
    try:
        yield Trier(zygote, config.runtime.engine)
    finally:
        if zygote is not None:
            zygote.close()


def make_updates(
    place: Place,
    falls: Falls | None,
    faces: Faces | None,
    trier: Trier | None,
    uplink: Uplink | None,
) -> UpdateService:
    """The service, not started. Without updates it shows what runs, and goes back.

    Raises CredentialError for a TLS file or a secret that the way to the broker cannot use.
    """
    config = place.config
    rules = Rules(config.updates.settle_s, 3600.0 * config.updates.retry_h)
    staging = place.folder / UPDATES_NAME / STAGING_NAME

    def staged(sha256: str) -> Path:
        return staging / sha256

    def changed(models: dict[str, Any]) -> None:
        if uplink is not None:
            uplink.report_models(models)

    def task(journal: Journal, live: Live, tries: Tries) -> TaskUpdate:
        if config.updates.enabled:
            journal.make_room()
        told = place.recorder.announce
        return TaskUpdate(journal, live, tries, staged, told, rules, time.monotonic)

    engine = config.runtime.engine
    tasks = []
    if falls is not None:
        place.recorder.listen(falls.models.notice)
        tries = ModelTries(trier, engine, falls.models.challenge_context)
        tasks.append(task(falls.journal, falls.models, tries))
    for model, journal in faces.models if faces is not None else ():
        tasks.append(task(journal, model, ModelTries(trier, engine, None)))
    source = _source(place, uplink) if config.updates.enabled and uplink is not None else None
    leftovers: set[str] = set()
    if source is not None:
        from edge_rt.runtime.update_download import kept

        leftovers = kept(place.folder / UPDATES_NAME)
    return UpdateService(
        source,
        tasks,
        device=config.device.name,
        version=__version__,
        changed=changed,
        leftovers=leftovers,
    )


def _source(place: Place, uplink: Uplink) -> Source:
    from edge_rt.runtime.update_fetch import Fetcher

    config = place.config
    return Fetcher(
        config.mqtt,
        Topics(config.device.fleet, config.device.name),
        place.folder / UPDATES_NAME,
        fetch=config.updates.fetch,
        pause=Pause(uplink.alarm_awaits, time.monotonic),
    )


class ModelTries:
    """Tries candidates on behalf of this device (runtime.update_ports.Tries).

    context  of the device, for the challenge set; None for tasks that have none
    """

    def __init__(
        self,
        trier: Trier | None,
        engine: str,
        context: Callable[[], ChallengeContext] | None,
    ) -> None:
        self._engine = engine
        self._context = context
        self._trier = trier

    def self_test(self, folder: Path) -> Mapping[str, Any]:
        report = self._who().self_test(folder)
        golden, latency = report.golden, report.latency
        return {
            "engine": report.engine,
            "grew_mb": report.grew_mb,
            "golden": None if golden is None else msgspec.to_builtins(golden),
            "latency": None if latency is None else msgspec.to_builtins(latency),
            "confined": list(report.confined),
        }

    def challenge(self, folder: Path) -> Mapping[str, Any]:
        if self._context is None:
            return {"challenge": "none"}
        return self._who().challenge(folder, self._context()).figures()

    def _who(self) -> Trier:
        if self._trier is None:
            from edge_rt.runtime.trying import Trier

            self._trier = Trier(None, self._engine)
        return self._trier
