"""Trying a candidate bundle before it may see the wearer's samples: self-test and challenge set."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edge_rt.adapters.forkserver import Zygote
from edge_rt.adapters.probe import Spawn, probe, report_of
from edge_rt.adapters.tflite import choose_engine, load_engine
from edge_rt.core.challenge import ChallengeContext, ChallengeReport, faults
from edge_rt.core.errors import DaemonError, ModelError
from edge_rt.core.trying import MEMORY_MB, TIMEOUT_S, Ended, ProbeReport, Runner
from edge_rt.runtime import trial_child

log = logging.getLogger(__name__)

TestReport = ProbeReport
# The set takes under 2 s on a desktop processor, and a Zero 2 W is some fifteen times slower.
CHALLENGE_S = 120.0


def start_zygote(engine: str) -> Zygote | None:
    """The fork server, with the engine already in memory; None when it is too late for one.

    Call it before the process starts its first thread. Raises ConfigError for an unusable engine.
    """
    load_engine(choose_engine(engine))
    try:
        return Zygote(trial_child.work)
    except DaemonError as error:
        log.warning(
            "trying: %s; each trial starts an interpreter of its own, which is slower", error
        )
        return None


class Trier:
    """Tries candidates in processes that may crash, hang, or ask for too much.

    runner  starts them: a Zygote; None starts a fresh interpreter for each
    engine  the daemon's, by name

    Safe to call from any thread that may wait (not the fall thread); one trial runs at a time with
    a Zygote. Each call is bounded by its time-out and some seconds.
    """

    def __init__(
        self,
        runner: Runner | None = None,
        engine: str = "auto",
        *,
        timeout_s: float = TIMEOUT_S,
        challenge_s: float = CHALLENGE_S,
        memory_mb: int = MEMORY_MB,
    ) -> None:
        self._runner = runner
        self._spawn = Spawn(trial_child.__name__)
        self._engine = engine
        self._timeout_s = timeout_s
        self._challenge_s = challenge_s
        self._memory_mb = memory_mb

    def self_test(self, folder: Path) -> TestReport:
        """Load, golden vectors, latency within budget, tensors as the manifest says.

        Raises ManifestError or ModelError with the reason in one line, InputError for a folder
        without a bundle.
        """
        return probe(
            folder,
            self._engine,
            timeout_s=self._timeout_s,
            memory_mb=self._memory_mb,
            runner=self._run,
        )

    def challenge(self, folder: Path, context: ChallengeContext) -> ChallengeReport:
        """The device's own falls and activities, through the whole alarm machine.

        Raises ModelError when the candidate fails it (core.challenge), and what self_test raises.
        """
        path = folder.absolute()
        task = trial_child.ChallengeTask(
            str(path), self._engine, context, self._challenge_s, self._memory_mb
        )
        ended = self._run(msgspec.json.encode(task), self._challenge_s)
        raw = report_of(ended, path, self._challenge_s, self._memory_mb)
        report = msgspec.json.decode(raw, type=ChallengeReport)
        if found := faults(report):
            raise ModelError(f"{path}: challenge set: {'; '.join(found)}; do not use this bundle")
        return report

    def _run(self, task: bytes, timeout_s: float) -> Ended:
        if self._runner is not None:
            try:
                return self._runner(task, timeout_s)
            except DaemonError as error:
                log.error("trying: %s; trials start an interpreter of their own until then", error)
                self._runner = None
        return self._spawn(task, timeout_s)
