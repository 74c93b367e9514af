"""What the recorder tells the uplink: alarms ahead, events committed, alarms of earlier runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edge_rt.adapters.eventreader import EventReader
from edge_rt.core.patience import Patience
from edge_rt.core.uplink import Uplink
from edge_rt.core.wire import Event, Lane
from edge_rt.runtime.alarm_latency import AlarmLatency
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.teller import Notice

# Stages on their way from the recorder's threads to the uplink's; one fall has five.
MAX_NOTICES = 1024


class News:
    """notice() may be called from any thread, the rest from the uplink's; wake makes that one turn.

    Times are monotonic seconds.
    """

    def __init__(self, latency: AlarmLatency, patience: Patience, wake: Callable[[], None]) -> None:
        self._latency = latency
        self._patience = patience
        self._wake = wake
        self._ahead: deque[Notice] = deque(maxlen=MAX_NOTICES)
        self._notices: deque[Notice] = deque(maxlen=MAX_NOTICES)

    def listen(self, recorder: Recorder) -> Callable[[], None]:
        """Hear of everything from now on, until the function that is returned is called."""
        # No wake-up for what is ahead: a thread that waits sends nothing that could be in its way.
        forget = (recorder.listen_ahead(self._ahead.append), recorder.listen(self.notice))

        def forget_both() -> None:
            for one in forget:
                one()

        return forget_both

    def notice(self, notice: Notice) -> None:
        """The recorder committed an event; returns at once."""
        self._notices.append(notice)
        self._wake()

    def __bool__(self) -> bool:
        return bool(self._ahead or self._notices)

    def take(self, uplink: Uplink, now_s: float) -> None:
        """Hand on what has been heard."""
        while self._ahead:  # before the notices of their commits
            self._ahead.popleft()
            uplink.alarm_ahead(now_s)
        while self._notices:
            event = self._notices.popleft().event
            uplink.news(event.lane)
            if event.lane is Lane.ALARM:
                self._latency.committed(event, now_s)
            if event.kind == "fall":
                self._watch(event, int(event.sequence), now_s)

    def watch_old(self, reader: EventReader, now_s: float) -> None:
        """Alarms of an earlier run that nobody has receipted. Raises StorageError, InputError."""
        after = 0
        while found := reader.next_unreceipted(Lane.ALARM, after, 100):
            for stored in found:
                self._watch(stored.event, stored.sequence, now_s)
            after = found[-1].sequence

    def _watch(self, event: Event, sequence: int, now_s: float) -> None:
        self._patience.stage(event.what, str(event.data.get("incident", "")), sequence, now_s)
