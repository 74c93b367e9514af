"""The fall models of this device: opens the one to start with, changes it between two blocks."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.probe import probe
from edge_rt.adapters.statefile import StateFile
from edge_rt.bundle import Bundle, factory_bundles, locate, open_bundle
from edge_rt.core.config import Config
from edge_rt.core.errors import ConfigError, DaemonError, ManifestError
from edge_rt.core.fall import FallRules, rules_for
from edge_rt.core.latency import between
from edge_rt.core.manifest import FallManifest
from edge_rt.core.timebase import Stamps
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.fall_service import FallService, NextModel
from edge_rt.runtime.fall_usage import HISTORY_NAME, FallUsage, History
from edge_rt.runtime.places import MODELS_NAME
from edge_rt.runtime.teller import Notice

if TYPE_CHECKING:  # what judges models is imported when there is one to judge
    from edge_rt.core.challenge import ChallengeContext
    from edge_rt.runtime.fall_watches import ShadowWatch, TrialWatch

# The falls thread turns ten times a second, and the history of half a minute takes milliseconds.
SWAP_S = 5.0


class Settings(Protocol):
    """Who may change settings from afar (runtime.compose_mqtt)."""

    def config(self) -> Config: ...

    def forget(self, reason: str) -> None: ...

    def watch(self, apply: Callable[[Config], None]) -> None: ...


class FallModels:
    """`open` before the service is there, `bind` once, then the rest.

    Raises ConfigError, InputError, ManifestError for a configured bundle that cannot be read.
    """

    declines = ""  # nothing

    def __init__(self, place: Place, settings: Settings | None) -> None:
        self._place = place
        self._settings = settings
        self._factory = locate(place.config.falls.bundle)
        manifest = _fall(read_bundle(self._factory).manifest)
        self.name, self.version = manifest.name, manifest.version
        self.security_epoch = manifest.security_epoch
        self._manifest = manifest
        self._service: FallService | None = None
        # A candidate that nobody watches any more takes no memory.
        self._shadow: Callable[[], ShadowWatch | None] = lambda: None
        # In force, though perhaps not written down yet; None: nothing has come since the start.
        self._applied: Config | None = None
        self._lock = threading.Lock()

    # ---- at the start ----

    def open(self, folder: Path | None) -> Bundle:
        """A slot's bundle, or the configured one (None), warmed up.

        Raises PublisherError, InputError, and ConfigError for a configuration that the bundle's
        bounds do not allow.
        """
        config = self._place.config
        runtime = config.runtime
        if folder is None:
            folder = self._factory
            if folder not in factory_bundles().values():
                # A bundle that a person named is first tried in a process that may crash.
                probe(folder, runtime.engine, run=False)
        bundle = open_bundle(folder, runtime.engine, runtime.threads)
        manifest = _fall(bundle.manifest)
        if manifest.name != self.name:
            raise ManifestError(f"{folder}: {manifest.name} is in it, configured is {self.name}")
        rules_from(config, manifest)
        bundle.interpreter.warm_up()
        return bundle

    def bind(
        self, service: FallService, bundle: Bundle, sensor: tuple[float, float, Stamps]
    ) -> None:
        """The service that runs `bundle` now; sensor: rate in Hz, range in g, what its stamps
        mean."""
        self._service = service
        self._sensor = sensor
        manifest = self._manifest = _fall(bundle.manifest)
        self._folder = bundle.files.folder
        self._usage = FallUsage(
            StateFile(self._place.folder / MODELS_NAME / "fall" / HISTORY_NAME, History),
            service.has_samples,
            lambda: service.totals().latency,
            time.monotonic,
        )
        self._usage.switch(f"{manifest.name} {manifest.version}")
        if self._settings is not None:
            self._settings.watch(self._apply)

    def rules(self, bundle: Bundle) -> FallRules:
        """The rules for a bundle that `open` gave; settings from afar that it forbids are gone."""
        manifest = _fall(bundle.manifest)
        if self._settings is not None:
            try:
                return rules_from(self._applied or self._settings.config(), manifest)
            except ConfigError as error:  # a bundle with other bounds has come since
                self._applied = None
                self._settings.forget(str(error))
        return rules_from(self._place.config, manifest)

    def _rules_within(self, manifest: FallManifest) -> FallRules:
        """The rules that a bundle would run by, with no word about settings that it forbids."""
        if self._settings is not None:
            with contextlib.suppress(ConfigError):
                return rules_from(self._applied or self._settings.config(), manifest)
        return rules_from(self._place.config, manifest)

    def lost_s(self, bundle: Bundle) -> float:
        """A sensor cannot be missed before its hops are due."""
        grid = _fall(bundle.manifest).input
        return max(self._place.config.falls.lost_s, 3.0 * grid.hop / grid.rate_hz)

    def notice(self, notice: Notice) -> None:
        """For the recorder to call."""
        self._usage.notice(notice)
        shadow = self._shadow()
        if shadow is not None and notice.event.kind == "fall":
            shadow.stage(notice.event.what)

    def challenge_context(self) -> ChallengeContext:
        """This device, for the challenge set."""
        from edge_rt.core.challenge import ChallengeContext

        manifest, folder = self._manifest, self._folder
        return ChallengeContext(
            rate_hz=self._sensor[0],
            range_g=self._sensor[1],
            placement=manifest.decision.placement,
            profile=profile_of(self._place.config),
            live=str(folder),
        )

    # ---- while it runs (runtime.update_ports.Live) ----

    def go(self, folder: Path | None) -> dict[str, Any]:
        """Swap the model between two blocks; figures as FallService.swap gives them."""
        assert self._service is not None  # bound at the start
        bundle = self.open(folder)
        manifest = _fall(bundle.manifest)
        label = f"{manifest.name} {manifest.version}"
        with self._lock:
            model = NextModel(
                bundle,
                self.rules(bundle),
                announcer(self._place.recorder, label),
                self.lost_s(bundle),
            )
            answer = self._service.swap(model)
            try:
                figures = answer.result(SWAP_S)
            except TimeoutError:
                if answer.cancel():
                    raise DaemonError("the fall pipeline did not take the model") from None
                figures = answer.result(SWAP_S)  # it has begun at the last moment
            self._manifest, self._folder = manifest, bundle.files.folder
            self._usage.switch(label)
        return figures

    def look(self) -> None:
        """Keep the counts of what the live model does."""
        self._usage.look()

    def shadow(self, folder: Path, seen: dict[str, Any] | None) -> ShadowWatch:
        """Run a candidate beside the live model. Raises what `open` raises."""
        assert self._service is not None
        bundle = self.open(folder)
        from edge_rt.runtime.fall_watches import ShadowWatch, make_runner

        since = self._service.totals().latency

        def live_p50_ms() -> float | None:
            assert self._service is not None
            row = between(since, self._service.totals().latency).get("push")
            return row["p50_ms"] if row else None

        runner = make_runner(
            bundle,
            (self._manifest, self._rules_within(self._manifest)),
            self._rules_within(_fall(bundle.manifest)),
            self._place.config,
            self._sensor,
            seen,
            self._service.branch,
            live_p50_ms,
        )
        watch = ShadowWatch(runner, self._service)
        self._shadow = weakref.ref(watch)
        return watch

    def trial(self, seen: dict[str, Any] | None) -> TrialWatch:
        """Watch the live model."""
        from edge_rt.runtime.fall_watches import TrialWatch, trial_policy

        policy = trial_policy(self._place.config)
        return TrialWatch(self._usage, policy, seen, self._place.boot_id)

    def fits(self, folder: Path) -> None:
        """Whether it opens here, with this configuration; raises what `open` raises."""
        self.open(folder)

    def _apply(self, config: Config) -> None:
        assert self._service is not None
        with self._lock:
            self._service.set_rules(rules_from(config, self._manifest))
            self._applied = config


def rules_from(config: Config, manifest: FallManifest) -> FallRules:
    """The rules of the alarm machine. Raises ConfigError for what the bundle does not allow."""
    try:
        return rules_for(manifest, **profile_of(config))
    except ValueError as error:
        raise ConfigError(f"[falls]: {error}; correct the configuration") from None


def profile_of(config: Config) -> dict[str, float | bool]:
    """What the configuration sets of the rules, over the bundle's own."""
    falls = config.falls
    profile: dict[str, float | bool] = {
        "cancel_window_s": falls.alarm.cancel_window_s,
        "escalated_window_s": falls.alarm.escalated_window_s,
        "cancel_on_recovery": falls.alarm.cancel_on_recovery,
    }
    if falls.threshold is not None:
        profile["threshold"] = falls.threshold
    return profile


def _fall(manifest: Any) -> FallManifest:
    if not isinstance(manifest, FallManifest):
        raise ManifestError(f"bundle {manifest.name} is not a fall model; see falls.bundle")
    return manifest
