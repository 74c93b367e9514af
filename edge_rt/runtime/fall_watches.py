"""A fall model in shadow and on trial: the judges of core, fed by what runs on this device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from edge_rt.bundle import Bundle
from edge_rt.core.config import Config
from edge_rt.core.fall import FallRules
from edge_rt.core.manifest import FallManifest
from edge_rt.core.shadow import ShadowPolicy
from edge_rt.core.timebase import Stamps
from edge_rt.core.trial import TrialPolicy, TrialTally, judge_trial
from edge_rt.core.update_config import SHADOW_SPANS
from edge_rt.core.verdict import Verdict
from edge_rt.falls.shadow import Branch, ShadowRunner
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.fall_usage import FallUsage


def make_runner(
    candidate: Bundle,
    live: tuple[FallManifest, FallRules],
    rules: FallRules,
    config: Config,
    sensor: tuple[float, float, Stamps],
    seen: dict[str, Any] | None,
    branch: Callable[[], Branch],
    live_p50_ms: Callable[[], float | None],
) -> ShadowRunner:
    """A candidate beside the live model, as the configuration asks for; sensor: rate in Hz, range
    in g, what its stamps mean. Raises what ShadowRunner raises."""
    updates = config.updates
    policy = ShadowPolicy(
        span_h=updates.shadow_h,
        most_h=SHADOW_SPANS * updates.shadow_h,
        block_s=updates.shadow_block_s,
        cpu_share=updates.shadow_share,
    )
    return ShadowRunner(
        candidate,
        rules,
        *live,
        policy,
        rate_hz=sensor[0],
        range_g=sensor[1],
        stamps=sensor[2],
        seen=seen,
        branch=branch,
        live_p50_ms=live_p50_ms,
    )


def trial_policy(config: Config) -> TrialPolicy:
    """What a trial must show, as the configuration asks for."""
    updates = config.updates
    return TrialPolicy(span_h=updates.trial_h, most_per_day=updates.alarms_per_day)


class ShadowWatch:
    """A candidate that sees what the live model sees (runtime.update_ports.Watch)."""

    def __init__(self, runner: ShadowRunner, service: FallService) -> None:
        self._runner = runner
        self._service = service
        self.stage = runner.stage
        service.listen(runner)

    def verdict(self) -> Verdict | None:
        return self._runner.verdict()

    def seen(self) -> dict[str, Any]:
        return self._runner.seen()

    def status(self) -> dict[str, Any]:
        return self._runner.status()

    def close(self) -> None:
        self._service.listen(None)
        self._runner.close()


class TrialWatch:
    """A trial under way (runtime.update_ports.Watch)."""

    def __init__(
        self, usage: FallUsage, policy: TrialPolicy, seen: dict[str, Any] | None, boot_id: str
    ) -> None:
        """seen: what `seen()` gave in an earlier run. Without a `close` between, that run ended
        in a way that nobody asked for: with the machine, if boot `boot_id` is another one."""
        self._usage = usage
        self._boot_id = boot_id
        self._policy = policy
        self._clean = False
        before = usage.before
        tally = TrialTally(
            before_hours=before.hours, before_alarms=before.alarms, before_p99_ms=before.p99_ms
        )
        if seen is not None:
            tally = TrialTally.restore(seen["tally"])
            if not seen["clean"]:
                same = seen.get("boot_id", boot_id) == boot_id
                tally.crashes, tally.cuts = tally.crashes + same, tally.cuts + (not same)
        self._base = tally
        self._start = usage.live

    def verdict(self) -> Verdict | None:
        return judge_trial(self._tally(), self._policy)

    def status(self) -> dict[str, Any]:
        return {**self._tally().save(), "of_hours": self._policy.span_h}

    def seen(self) -> dict[str, Any]:
        return {"tally": self._tally().save(), "clean": self._clean, "boot_id": self._boot_id}

    def close(self) -> None:
        self._clean = True

    def _tally(self) -> TrialTally:
        now, start = self._usage.live, self._start
        return msgspec.structs.replace(
            self._base,
            hours=self._base.hours + now.hours - start.hours,
            alarms=self._base.alarms + now.alarms - start.alarms,
            p99_ms=now.p99_ms,
        )
