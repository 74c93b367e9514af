"""A candidate in shadow: it sees the live samples, and nobody hears what it says.

It runs in a thread of its own behind a bounded queue. What the fall thread does for it is one copy
of a few samples and one put that never waits; when the queue is full or its share of the processor
is used up, it is the candidate that goes without.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_rt.bundle import Bundle
from edge_rt.core.errors import ManifestError
from edge_rt.core.fall import AlarmMachine, Event, FallRules
from edge_rt.core.hop import Hop, HopFlag
from edge_rt.core.manifest import FallManifest
from edge_rt.core.shadow import ShadowPolicy, ShadowTally, Verdict, judge
from edge_rt.core.timebase import Stamps
from edge_rt.core.types import SampleBlock
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.margin import log_odds
from edge_rt.falls.pipeline import Scorer

log = logging.getLogger(__name__)

# Blocks that wait for the candidate: at 50 Hz sample by sample ten seconds. Beyond, they are left
# out and counted.
MAX_WAITING = 512
# A candidate that has used up its share rests until it has saved up for this much of the stream:
# long enough for runs of whole blocks, not of windows that never fill.
SAVE_UP_S = 300.0
CLOSE_S = 2.0
BACK_S = 1.0
TURN_S = 0.5  # looks this often whether it is to end

Branch = Callable[[Bundle], Scorer]


class Side:
    """One of the two models as the judge sees it: an alarm machine and margins."""

    def __init__(self, who: str, rules: FallRules, scale: str, tally: ShadowTally) -> None:
        self._who, self._tally, self._scale = who, tally, scale
        self._threshold = log_odds(rules.threshold, scale)
        self._rules = rules
        self._machine = AlarmMachine(rules, lambda: who)
        self.at_s = 0.0
        self.warm = False

    def take(self, hops: Sequence[Hop]) -> None:
        """Count them; a pre-alarm is cancelled at once, so that the next one counts too."""
        for hop in hops:
            if hop.t_s < self.at_s - BACK_S:  # the source's clock was set back: begin anew
                self._machine = AlarmMachine(self._rules, lambda: self._who, now_s=hop.t_s)
            self.at_s = hop.t_s
            self.warm = not hop.flags & HopFlag.WARMING
            if self.warm:
                margin = log_odds(hop.mean, self._scale) - self._threshold
                self._tally.hop(self._who, hop.t_s, margin)
            for step in self._machine.step(hop):
                if step.what == "prealarm":
                    if self.warm:
                        self._tally.prealarm(self._who, hop.t_s)
                    self._machine.command(Event.CANCEL, hop.t_s)


class ShadowRunner:
    """Call it with each live block and the live hops that came of it; ask `verdict` now and then.

    candidate, rules             the new bundle and the rules it would run by
    live, live_rules             the manifest that runs now and its rules
    rate_hz, range_g, stamps     of the source, as falls.detector has them
    seen                         what `seen()` gave in an earlier run; StorageError if damaged
    branch                       begins a detector beside the live one, so that both judge the same
                                 windows: called on the fall thread. None: it begins by itself with
                                 the first block, as the live one did (replays)
    live_p50_ms                  median of the live pipeline for a block of samples, None: not known
    threaded                     False: blocks are worked off in the calling thread (replays)

    Raises ManifestError for a bundle of another task, InputError for an impossible rate.
    """

    def __init__(
        self,
        candidate: Bundle,
        rules: FallRules,
        live: FallManifest,
        live_rules: FallRules,
        policy: ShadowPolicy,
        *,
        rate_hz: float,
        range_g: float,
        stamps: Stamps = "even",
        seen: dict[str, Any] | None = None,
        branch: Callable[[], Branch] | None = None,
        live_p50_ms: Callable[[], float | None] = lambda: None,
        threaded: bool = True,
    ) -> None:
        manifest = candidate.manifest
        if not isinstance(manifest, FallManifest):
            raise ManifestError(f"bundle {manifest.name} is not a fall model; it cannot run beside")
        self._candidate = candidate
        self._detector: Scorer
        self._detector = FallDetector(candidate, rate_hz=rate_hz, range_g=range_g, stamps=stamps)
        self._branch = branch
        # The next block brings a detector as the live one is behind that block.
        self._apart = branch is not None
        self._tally = ShadowTally(policy.block_s, _hop_s(live), _hop_s(manifest))
        if seen is not None:
            self._tally.restore(seen)
        self._policy = policy
        self._rate_hz = rate_hz
        self._live_p50_ms = live_p50_ms
        self._live = Side("live", live_rules, live.output.scale, self._tally)
        self._mine = Side("candidate", rules, manifest.output.scale, self._tally)
        self._most_credit_s = self._credit_s = policy.cpu_share * SAVE_UP_S
        self._resting = False
        self._raised: tuple[float, bool] | None = None
        self._dropped_s = self._told_s = 0.0
        self._lock = threading.Lock()
        self._inbox: queue.Queue[tuple[SampleBlock, Sequence[Hop], Branch | None]]
        self._inbox = queue.Queue(MAX_WAITING)
        self._threaded, self._closed = threaded, False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        if threaded:
            self._thread.start()

    # ---- from the fall thread ----

    def __call__(self, block: SampleBlock, hops: Sequence[Hop]) -> None:
        """Returns at once and raises nothing; the block may be reused afterwards."""
        if self._closed:
            return
        begin = self._branch() if self._apart and self._branch is not None else None
        if begin is not None:
            self._apart = False
        if not self._threaded:
            self._take(block, hops, begin)
            return
        try:
            copied = SampleBlock(np.array(block.t_s), np.array(block.acc_g))
            self._inbox.put_nowait((copied, tuple(hops), begin))
        except queue.Full:
            self._apart = self._branch is not None
            self._dropped_s += len(block.t_s) / self._rate_hz  # one writer: this thread

    # ---- from any other thread ----

    def stage(self, what: str) -> None:
        """The device announced `fall.<what>`: pre-alarms that nobody cancels may be real falls."""
        with self._lock:
            if what == "prealarm":
                # A candidate that was resting or had no full window cannot have missed anything.
                self._raised = (self._live.at_s, self._mine.warm and not self._resting)
            elif what == "alarm" and self._raised is not None:
                at_s, heard = self._raised
                self._raised = None
                if heard:
                    self._tally.alarm(at_s)
            elif what in ("cancelled", "resolved"):
                self._raised = None

    def verdict(self) -> Verdict | None:
        """None while the run goes on (core.shadow)."""
        with self._lock:
            self._tally.live_p50_ms = self._live_p50_ms()
            return judge(self._tally, self._policy)

    def seen(self) -> dict[str, Any]:
        """What to go on with after a restart, JSON-able."""
        with self._lock:
            return self._tally.save()

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        with self._lock:
            return {
                "hours": round(self._tally.hours, 3),
                "of_hours": self._policy.span_h,
                "blocks": len(self._tally.blocks["live"]),
                "resting": self._resting,
                "prealarms": self._tally.candidate_prealarms,
            }

    def close(self) -> None:
        """Stop. A candidate that hangs in its engine is left behind; it holds nothing of ours."""
        self._closed = True
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    # ---- in its own thread ----

    def _run(self) -> None:
        while not self._closed:
            try:
                item = self._inbox.get(timeout=TURN_S)
            except queue.Empty:
                continue
            self._take(*item)

    def _take(self, block: SampleBlock, hops: Sequence[Hop], begin: Branch | None) -> None:
        try:
            self._step(block, hops, begin)
        except Exception as error:  # a candidate's fault, of whatever kind, is its own end
            with self._lock:
                if not self._tally.failures:
                    log.warning("shadow: the candidate failed: %s: %s", type(error).__name__, error)
                self._tally.failures += 1
                self._begin_anew()

    def _begin_anew(self) -> None:
        self._detector.reset()
        self._apart = self._branch is not None

    def _step(self, block: SampleBlock, hops: Sequence[Hop], begin: Branch | None) -> None:
        lasts_s = len(block.t_s) / self._rate_hz
        dropped_s = self._dropped_s
        with self._lock:
            self._tally.skipped_s += dropped_s - self._told_s
            self._told_s = dropped_s
            self._live.take(hops)
            if self._rests(lasts_s):
                self._tally.skipped_s += lasts_s
                return
        # Outside the lock: an engine that hangs here may not hold up whoever asks for a verdict.
        begun, worked = time.perf_counter(), time.thread_time()
        mine: list[Hop] = []
        if begin is not None:  # behind this block already
            self._detector = begin(self._candidate)
        else:
            mine = self._detector.push(block)
        took_s, worked = time.perf_counter() - begun, time.thread_time() - worked
        with self._lock:
            self._mine.take(mine)
            if mine:
                self._tally.latency.record("wall", took_s)
                self._tally.latency.record("work", worked)
            self._tally.heard_s += lasts_s
            self._tally.cpu_s += worked
            self._credit_s -= worked

    def _rests(self, lasts_s: float) -> bool:
        gained = self._credit_s + self._policy.cpu_share * lasts_s
        self._credit_s = min(self._most_credit_s, gained)
        if self._credit_s <= 0.0:
            self._resting = True
        elif self._resting and self._credit_s >= self._most_credit_s:
            self._resting = False
            self._begin_anew()  # what it missed is no gap to be bridged
        return self._resting


def _hop_s(manifest: FallManifest) -> float:
    return manifest.input.hop / manifest.input.rate_hz
