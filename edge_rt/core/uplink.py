"""What goes out next: lanes, the in-flight window, receipts, and when to send again.

A PUBACK only frees the window (a broker acknowledges what nobody received, and forgets what it
acknowledged); an application receipt is what counts. What has none after a while, or after a
reconnect, goes again from the oldest on (go-back-N): the receiver drops repeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edge_rt.core.log_schema import Stored
from edge_rt.core.uplink_wire import LaneReceipt
from edge_rt.core.wire import Lane

# Most urgent first: nothing of a lane is picked while one before it has something to send.
ORDER = (Lane.ALARM, Lane.EVENT, Lane.TELEMETRY)

# One fetch fills a window a few times over; 64 events of 0.5 KiB are read in under 1 ms.
FETCH = 64
# Places of the broker's limit for what is no event: it goes out at once, window or not.
SPARE = 2
# Topic, properties and header around an event's body (MQTT 5.0, section 3.3).
PACKET_OVERHEAD_BYTES = 256


class Rules(msgspec.Struct, frozen=True):
    """window       messages without PUBACK; bounds what an alarm queues behind in the sockets:
                    20 of 0.5 KiB are 0.3 s at 256 kbit/s
    reserved        places of the window that only alarms take
    unreceipted     events of a lane sent without receipt; bounds memory here and in the broker's
                    queue for a receiver that is away
    resend_s        without progress for so long, a lane goes again from its oldest; doubles up to
    resend_cap_s    this
    ahead_s         from an alarm's decision to its PUBACK nothing else goes out, but for no longer
                    than this: neither a sick disk nor a slow link may stop everything
    refused_s       a lane refused by the broker pauses for so long; doubles up to refused_cap_s
    puback_s        a broker that owes a PUBACK for so long is hung: connect anew
    """

    window: int = 20
    reserved: int = 2
    unreceipted: int = 800
    resend_s: float = 15.0
    resend_cap_s: float = 300.0
    ahead_s: float = 0.25
    refused_s: float = 10.0
    refused_cap_s: float = 300.0
    puback_s: float = 30.0


class Want(NamedTuple):
    """Read the lane's unreceipted events past `after` from the log, up to `limit`."""

    lane: Lane
    after: int
    limit: int


class Mark(NamedTuple):
    """What the log may be told: its lane is receipted up to `upto`, but for `exceptions`."""

    lane: Lane
    upto: int
    exceptions: tuple[int, ...]


class _InFlight(NamedTuple):
    lane: Lane | None  # None: no event
    sent_s: float


class _Lane:
    def __init__(self) -> None:
        self.queue: deque[Stored] = deque()  # read, not sent; at most FETCH and a window
        self.cursor = 0  # last sequence read
        self.high = 0  # last sequence ever sent
        self.upto = 0  # last sequence receipted, gaps aside
        self.outstanding: dict[int, None] = {}  # sent and not receipted, ascending
        self.more = True  # the log may hold more past the cursor
        self.progress_s = 0.0
        self.resends = 0
        self.hold_s = 0.0  # paused until
        self.refusals = 0

    def is_due(self, stored: Stored) -> bool:
        """Never sent, or sent and not receipted."""
        return stored.sequence > self.high or stored.sequence in self.outstanding

    def rewind(self) -> None:
        self.queue.clear()
        # All that was sent and not receipted is in `outstanding`: nothing before it need be read.
        self.cursor = next(iter(self.outstanding), self.high + 1) - 1
        self.more = True


class Uplink:
    """The sending side. Times are monotonic seconds; one thread uses it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.window = rules.window
        self.online = False
        self._lanes = {lane: _Lane() for lane in ORDER}
        self._in_flight: dict[int, _InFlight] = {}
        self._max_body_bytes = 0  # 0: no limit
        self._too_large: dict[int, None] = {}
        self._ahead = 0  # alarm stages announced, not yet committed
        self._ahead_until_s = 0.0  # 0: no alarm is under way
        self.resent = 0

    # ---- connection ----

    def connected(self, receive_maximum: int, max_packet_bytes: int, now_s: float) -> None:
        """A new connection: everything without a receipt goes again.

        receive_maximum, max_packet_bytes  the broker's limits (MQTT 5.0, 3.2.2.3.3 and 3.2.2.3.6);
                                           0: none given
        """
        self.online = True
        # A broker ends the connection of a client that goes past its limit.
        spare = SPARE if receive_maximum > 2 * SPARE else 0
        limit = receive_maximum - spare or self.rules.window
        self.window = min(self.rules.window, limit)
        self._max_body_bytes = max_packet_bytes and max(1, max_packet_bytes - PACKET_OVERHEAD_BYTES)
        self._in_flight.clear()
        for lane in self._lanes.values():
            self.resent += len(lane.outstanding)
            lane.rewind()
            lane.progress_s, lane.resends, lane.hold_s = now_s, 0, 0.0

    def disconnected(self) -> None:
        self.online = False
        self._in_flight.clear()

    def hung(self, now_s: float) -> bool:
        """The broker owes a PUBACK for too long."""
        oldest = next(iter(self._in_flight.values()), None)
        return oldest is not None and now_s - oldest.sent_s > self.rules.puback_s

    # ---- filling from the log ----

    def news(self, lane: Lane) -> None:
        """The log holds something new."""
        self._lanes[lane].more = True
        if lane is Lane.ALARM:
            self._ahead = max(0, self._ahead - 1)

    def alarm_ahead(self, now_s: float) -> None:
        """An alarm stage was decided and is being written: leave processor and line to it."""
        self._ahead += 1
        self._ahead_until_s = now_s + self.rules.ahead_s

    def want(self, now_s: float) -> Want | None:
        """What to read next, most urgent lane first; None when there is nothing to do."""
        if not self.online:
            return None
        for name, lane in self._lanes.items():
            room = self._room(lane)
            # Half empty: reading by ones would cost a query for each event.
            if lane.more and room > 0 and len(lane.queue) <= FETCH // 2 and now_s >= lane.hold_s:
                return Want(name, lane.cursor, min(FETCH, room))
        return None

    def offer(self, want: Want, found: Sequence[Stored]) -> None:
        """What the log gave for `want`."""
        lane = self._lanes[want.lane]
        whole = len(found) < want.limit
        lane.more = not whole
        end = found[-1].sequence if found else want.after
        if want.after < lane.high:
            # What we wait for and the log no longer holds was trimmed, and told of elsewhere.
            kept = {stored.sequence for stored in found}
            covered = lane.high if whole else end
            for sequence in [n for n in lane.outstanding if want.after < n <= covered]:
                if sequence not in kept:
                    del lane.outstanding[sequence]
        lane.cursor = end
        for stored in found:
            # Receipted a moment ago, and the log not yet told: nothing to send again.
            if lane.is_due(stored):
                lane.queue.append(stored)

    # ---- sending ----

    def next(self, now_s: float) -> Stored | None:
        """The event to publish now, None when the window is full or nothing waits.

        The caller publishes it and calls sent() or, if that failed, disconnected().
        """
        if not self.online or len(self._in_flight) >= self.window:
            return None
        reserved = min(self.rules.reserved, self.window - 1)
        ordinary = len(self._in_flight) < self.window - reserved and not self._alarm_under_way(
            now_s
        )
        for name, lane in self._lanes.items():
            if now_s < lane.hold_s or not (ordinary or name is Lane.ALARM):
                continue
            while lane.queue:
                stored = lane.queue.popleft()
                # Receipted while it waited here to go again: sending it would start over the wait
                # for a receipt that has come.
                if lane.is_due(stored):
                    return stored
        return None

    def fits(self, stored: Stored) -> bool:
        """Whether the broker takes a packet of this size."""
        return not self._max_body_bytes or len(stored.body) <= self._max_body_bytes

    def withheld(self, stored: Stored) -> bool:
        """Note an event that does not fit; True the first time, when somebody should be told."""
        lane = self._lanes[stored.lane]
        lane.high = max(lane.high, stored.sequence)
        lane.outstanding[stored.sequence] = None
        new = stored.sequence not in self._too_large
        if len(self._too_large) < 1024:  # beyond that, telling again is the lesser evil
            self._too_large[stored.sequence] = None
        return new

    def sent(self, token: int, stored: Stored, now_s: float) -> None:
        """It is on its way; `token` comes back with its PUBACK."""
        lane = self._lanes[stored.lane]
        if not lane.outstanding:
            lane.progress_s = now_s
        lane.high = max(lane.high, stored.sequence)
        lane.outstanding[stored.sequence] = None
        self._in_flight[token] = _InFlight(stored.lane, now_s)

    def sent_other(self, token: int, now_s: float) -> None:
        """A message that is no event (status, settings) is on its way; it counts in the window."""
        self._in_flight[token] = _InFlight(None, now_s)

    def puback(self, token: int, refused: bool, now_s: float) -> Lane | None:
        """The broker answered. Returns the lane that it refused, which pauses, then goes again."""
        message = self._in_flight.pop(token, None)
        if message is None or message.lane is None:
            return None
        lane = self._lanes[message.lane]
        if not refused:
            lane.refusals = 0
            return None
        if now_s >= lane.hold_s:  # the rest of a refused window says nothing new
            pause = self.rules.refused_s * 2.0 ** min(lane.refusals, 30)
            lane.hold_s = now_s + min(pause, self.rules.refused_cap_s)
            lane.refusals += 1
        lane.rewind()
        return message.lane

    # ---- receipts ----

    def receipt(self, name: Lane, given: LaneReceipt, now_s: float) -> Mark | None:
        """What the receiver has, as what the log may be told; None if it says nothing new."""
        lane = self._lanes[name]
        # What this process has not sent yet is not outstanding; a receipt for it (of an earlier
        # life, or made up) says nothing: it is sent, and receipted again.
        held = given.holds()
        arrived = [n for n in lane.outstanding if held(n)]
        if not arrived:
            return None
        oldest = next(iter(lane.outstanding))
        for n in arrived:
            del lane.outstanding[n]
        # Only the oldest counts: later ones that arrive must not put off a lost one for ever.
        if oldest not in lane.outstanding:
            lane.progress_s, lane.resends = now_s, 0
        lane.more = True  # there may be room again
        lane.upto = max(lane.upto, arrived[-1])
        return Mark(name, lane.upto, tuple(n for n in lane.outstanding if n <= lane.upto))

    def tick(self, now_s: float) -> None:
        """Let lanes without progress go again."""
        if now_s >= self._ahead_until_s:
            self._ahead, self._ahead_until_s = 0, 0.0
        if not self.online:
            return
        for lane in self._lanes.values():
            if now_s >= lane.hold_s:
                lane.hold_s = 0.0
            if lane.outstanding and now_s >= self._resend_s(lane):
                lane.resends += 1
                lane.progress_s = now_s
                self.resent += len(lane.outstanding)
                lane.rewind()

    def next_tick_s(self) -> float:
        """When tick() or a paused lane has something to do; infinity if never."""
        if not self.online:
            return float("inf")
        times = [self._resend_s(lane) for lane in self._lanes.values() if lane.outstanding]
        times += [lane.hold_s for lane in self._lanes.values() if lane.hold_s and lane.more]
        times += [self._ahead_until_s] if self._ahead_until_s else []
        times += [m.sent_s + self.rules.puback_s for m in list(self._in_flight.values())[:1]]
        return min(times, default=float("inf"))

    # ---- state ----

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def unreceipted(self, lane: Lane) -> int:
        """Sent in this process's life, and not receipted."""
        return len(self._lanes[lane].outstanding)

    def _alarm_under_way(self, now_s: float) -> bool:
        if now_s >= self._ahead_until_s:
            return False
        alarms = self._lanes[Lane.ALARM]
        waiting = self._ahead or alarms.more or alarms.queue
        return bool(waiting) or any(m.lane is Lane.ALARM for m in self._in_flight.values())

    def _room(self, lane: _Lane) -> int:
        if lane.cursor < lane.high:  # going again adds nothing
            return FETCH
        waiting = len(lane.outstanding) + len(lane.queue)
        return self.rules.unreceipted - waiting

    def _resend_s(self, lane: _Lane) -> float:
        wait = self.rules.resend_s * 2.0 ** min(lane.resends, 30)
        return lane.progress_s + min(wait, self.rules.resend_cap_s)
