"""How long alarm stages take from decision and from commit to the broker's PUBACK."""

from __future__ import annotations

from edge_rt.core.latency import LatencyRecorder
from edge_rt.core.wire import Event

# Stages that were committed while there was no connection are not measured; more than these
# cannot be on their way at once.
MAX_WAITING = 256


class AlarmLatency:
    """Measures stages of this boot that were decided while the connection stood."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._recorder = LatencyRecorder(("alarm_to_puback", "commit_to_puback"))
        self._committed: dict[int, float] = {}  # by sequence, until published
        self._flying: dict[int, tuple[float, float]] = {}  # token -> decided, committed
        self._high = 0  # newest sequence published
        self._online_s = float("inf")

    def connected(self, now_s: float) -> None:
        """What waited for a connection is the outage's length, not ours."""
        self._committed.clear()
        self._flying.clear()
        self._high, self._online_s = 0, now_s

    def committed(self, event: Event, now_s: float) -> None:
        """We have just heard of it; it may have been read, and be on its way, already."""
        sequence = int(event.sequence)
        if sequence > self._high and len(self._committed) < MAX_WAITING:
            self._committed[sequence] = now_s

    def published(self, event: Event, token: int, now_s: float) -> None:
        """It is on its way."""
        sequence, decided_s = int(event.sequence), int(event.monotonicms) / 1000
        committed_s = self._committed.pop(sequence, now_s)
        again, self._high = sequence <= self._high, max(sequence, self._high)
        if not again and event.bootid == self._boot_id and decided_s > self._online_s:
            self._flying[token] = (decided_s, committed_s)

    def acked(self, token: int, now_s: float) -> None:
        """The broker has it."""
        if token in self._flying:
            decided_s, committed_s = self._flying.pop(token)
            self._recorder.record("alarm_to_puback", now_s - decided_s)
            self._recorder.record("commit_to_puback", now_s - committed_s)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per stage, as core.latency has it."""
        return self._recorder.summary()
