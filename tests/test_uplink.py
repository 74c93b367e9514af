"""The sending side: order, window, receipts, going again."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rt.core.log_schema import Stored
from edge_rt.core.uplink import Mark, Rules, Uplink
from edge_rt.core.uplink_wire import LaneReceipt
from edge_rt.core.wire import Lane

RULES = Rules(window=4, reserved=1, unreceipted=10, resend_s=10, resend_cap_s=40, refused_s=5)


class Log:
    """A log in memory, and the wire: what the uplink would do with both."""

    def __init__(self, *lanes: Lane, rules: Rules = RULES) -> None:
        self.events = [Stored(n, lane, b"x" * 10) for n, lane in enumerate(lanes, 1)]
        self.receipted: set[int] = set()
        self.uplink = Uplink(rules)
        self.wire: list[int] = []
        self.tokens: dict[int, int] = {}

    def append(self, lane: Lane) -> int:
        self.events.append(Stored(len(self.events) + 1, lane, b"x" * 10))
        self.uplink.news(lane)
        return len(self.events)

    def fill(self, now_s: float) -> None:
        while (want := self.uplink.want(now_s)) is not None:
            found = [
                e
                for e in self.events
                if e.lane is want.lane
                and e.sequence > want.after
                and e.sequence not in self.receipted
            ]
            self.uplink.offer(want, found[: want.limit])

    def run(self, now_s: float) -> list[int]:
        """Send what may be sent; the sequences, in order."""
        self.fill(now_s)
        sent = []
        while (stored := self.uplink.next(now_s)) is not None:
            token = len(self.wire) + 1
            self.uplink.sent(token, stored, now_s)
            self.wire.append(stored.sequence)
            self.tokens[stored.sequence] = token
            sent.append(stored.sequence)
        return sent

    def acknowledge(self, sequences: Iterable[int], now_s: float = 0.0) -> None:
        for sequence in sequences:
            assert self.uplink.puback(self.tokens[sequence], False, now_s) is None


def online(*lanes: Lane, rules: Rules = RULES) -> Log:
    log = Log(*lanes, rules=rules)
    log.uplink.connected(0, 0, 0.0)
    return log


def test_nothing_goes_without_a_connection() -> None:
    assert Log(Lane.ALARM).run(0.0) == []


def test_an_alarm_overtakes_all_that_is_not_in_flight() -> None:
    log = online(*[Lane.TELEMETRY] * 20)
    assert log.run(0.0) == [1, 2, 3]  # one place is kept for alarms
    alarm = log.append(Lane.ALARM)
    assert log.run(0.0) == [alarm]
    log.acknowledge([1, 2, 3, alarm])
    assert log.run(0.0) == [4, 5, 6]


def test_a_backlog_goes_in_order_of_urgency() -> None:
    log = online(Lane.TELEMETRY, Lane.EVENT, Lane.ALARM, Lane.TELEMETRY, Lane.ALARM)
    assert log.run(0.0) == [3, 5, 2]


def test_only_a_puback_frees_the_window_and_only_a_receipt_moves_the_mark() -> None:
    log = online(*[Lane.EVENT] * 6)
    assert log.run(0.0) == [1, 2, 3]
    mark = log.uplink.receipt(Lane.EVENT, LaneReceipt(2), 0.0)
    assert mark == Mark(Lane.EVENT, 2, ())
    assert log.run(0.0) == []
    log.acknowledge([1, 2, 3])
    assert log.run(0.0) == [4, 5, 6]
    assert log.uplink.unreceipted(Lane.EVENT) == 4


def test_the_window_obeys_the_brokers_receive_maximum() -> None:
    log = Log(*[Lane.ALARM] * 6)
    log.uplink.connected(2, 0, 0.0)
    assert log.run(0.0) == [1, 2]
    log.uplink.connected(100, 0, 0.0)
    assert log.uplink.window == RULES.window
    log.uplink.connected(5, 0, 0.0)
    assert log.uplink.window == 3  # the rest is for what is no event


def test_what_is_no_event_counts_in_the_window() -> None:
    log = online(*[Lane.ALARM] * 6)
    log.uplink.sent_other(99, 0.0)
    assert log.run(0.0) == [1, 2, 3]
    assert log.uplink.puback(99, True, 0.0) is None
    assert log.run(0.0) == [4]


def test_after_a_reconnect_only_what_has_no_receipt_goes_again() -> None:
    log = online(*[Lane.EVENT] * 5)
    log.run(0.0)
    log.uplink.receipt(Lane.EVENT, LaneReceipt(2), 0.0)  # the log is not yet told
    log.uplink.disconnected()
    assert log.run(1.0) == []
    log.uplink.connected(0, 0, 1.0)
    assert log.run(1.0) == [3, 4, 5]


def test_a_missing_event_is_an_exception_and_goes_again_after_the_time_out() -> None:
    log = online(*[Lane.EVENT] * 3)
    log.run(0.0)
    log.acknowledge([1, 2, 3])
    mark = log.uplink.receipt(Lane.EVENT, LaneReceipt(3, missing=((2, 2),)), 1.0)
    assert mark == Mark(Lane.EVENT, 3, (2,))
    log.uplink.tick(10.9)
    assert log.run(10.9) == []
    log.uplink.tick(11.0)
    assert log.run(11.0) == [2]
    assert log.uplink.receipt(Lane.EVENT, LaneReceipt(3), 12.0) == Mark(Lane.EVENT, 3, ())


def test_what_is_receipted_while_it_waits_to_go_again_does_not_go() -> None:
    log = online(*[Lane.EVENT] * 3)
    log.run(0.0)
    log.uplink.connected(0, 0, 1.0)
    log.fill(1.0)
    assert log.uplink.receipt(Lane.EVENT, LaneReceipt(2), 1.0) == Mark(Lane.EVENT, 2, ())
    assert log.run(1.0) == [3]
    assert log.uplink.receipt(Lane.EVENT, LaneReceipt(3), 1.0) == Mark(Lane.EVENT, 3, ())


def test_later_arrivals_do_not_put_off_a_lost_event() -> None:
    log = online(Lane.EVENT)
    log.run(0.0)
    log.acknowledge([1])
    for now in range(1, 10):
        n = log.append(Lane.EVENT)
        assert log.run(now) == [n]
        log.acknowledge([n])
        log.uplink.receipt(Lane.EVENT, LaneReceipt(n, missing=((1, 1),)), now)
    log.uplink.tick(10.0)
    assert log.run(10.0) == [1]


def test_going_again_gets_slower_while_nobody_receipts() -> None:
    log = online(Lane.EVENT)
    times = []
    for now in range(200):
        log.uplink.tick(now)
        if log.run(now):
            times.append(now)
            log.acknowledge([1])
    assert times == [0, 10, 30, 70, 110, 150, 190]  # 10, 20, 40, and no slower than that


def test_without_receipts_memory_and_the_brokers_queue_stay_bounded() -> None:
    log = online(*[Lane.EVENT] * 200)
    while sent := log.run(0.0):
        log.acknowledge(sent)
    assert len(log.wire) == RULES.unreceipted
    log.uplink.receipt(Lane.EVENT, LaneReceipt(RULES.unreceipted), 1.0)
    assert log.run(1.0) == [11, 12, 13]


def test_what_the_log_trimmed_is_waited_for_no_longer() -> None:
    log = online(*[Lane.EVENT] * 30)
    while sent := log.run(0.0):
        log.acknowledge(sent)
    log.receipted = set(range(1, 11))  # trimmed: gone from the log all the same
    log.uplink.tick(10.0)
    assert log.run(10.0) == [11, 12, 13]
    assert log.uplink.unreceipted(Lane.EVENT) == 3


def test_a_refused_lane_pauses_then_goes_again_and_others_go_on() -> None:
    log = online(Lane.ALARM, Lane.EVENT, Lane.EVENT)
    assert log.run(0.0) == [1, 2, 3]
    assert log.uplink.puback(log.tokens[1], True, 0.0) is Lane.ALARM
    log.acknowledge([2, 3])
    assert log.run(1.0) == []
    assert log.uplink.next_tick_s() == 5.0
    log.uplink.tick(5.0)
    assert log.run(5.0) == [1]
    log.uplink.puback(log.tokens[1], True, 5.0)
    log.uplink.tick(14.9)
    assert log.run(14.9) == [2, 3]  # their own time-out; the alarm pauses twice as long
    log.uplink.tick(15.0)
    assert log.run(15.0) == [1]


def test_an_event_over_the_packet_size_is_told_once_and_holds_nothing_up() -> None:
    log = online(Lane.EVENT)
    log.uplink.connected(0, 1000, 0.0)
    large = Stored(1, Lane.EVENT, b"x" * 1001)
    assert not log.uplink.fits(large)
    assert log.uplink.fits(Stored(2, Lane.EVENT, b"x" * 500))
    assert log.uplink.withheld(large)
    assert not log.uplink.withheld(large)
    log.uplink.connected(0, 0, 0.0)
    assert log.uplink.fits(large)


def test_a_broker_without_pubacks_is_hung() -> None:
    log = online(Lane.EVENT)
    log.run(0.0)
    assert not log.uplink.hung(RULES.puback_s)
    assert log.uplink.hung(RULES.puback_s + 1)
    assert not log.uplink.puback(999, False, 0.0)  # of an earlier connection


@pytest.mark.parametrize("upto", [0, 3, 10**11])
def test_a_receipt_of_what_was_never_sent_says_nothing(upto: int) -> None:
    log = online(*[Lane.EVENT] * 3)
    also = (2, 3) if upto == 0 else ()
    assert log.uplink.receipt(Lane.EVENT, LaneReceipt(upto, also=also), 0.0) is None
    assert log.run(0.0) == [1, 2, 3]


def test_also_receipts_single_events_past_the_mark() -> None:
    log = online(Lane.EVENT, Lane.EVENT, Lane.EVENT)
    log.run(0.0)
    mark = log.uplink.receipt(Lane.EVENT, LaneReceipt(0, also=(2,)), 0.0)
    assert mark == Mark(Lane.EVENT, 2, (1,))


lanes = st.sampled_from(list(Lane))


@settings(max_examples=100, deadline=None)
@given(st.lists(lanes, max_size=40), st.integers(0, 2**32))
def test_through_any_losses_everything_is_receipted_in_the_end(
    kinds: list[Lane], seed: int
) -> None:
    rng = random.Random(seed)
    log = online(*kinds)
    held: set[int] = set()
    now = 0.0
    for step in range(400):
        losing = step < 200
        now += rng.random() * 5
        log.uplink.tick(now)
        if losing and rng.random() < 0.1:
            log.uplink.disconnected()
            log.uplink.connected(rng.choice([0, 1, 2, 50]), 0, now)
        sent = log.run(now)
        assert log.uplink.in_flight <= log.uplink.window
        held |= {n for n in sent if not losing or rng.random() < 0.6}
        log.acknowledge(sent, now)
        for lane in Lane:
            mine = [e.sequence for e in log.events if e.lane is lane and e.sequence in held]
            if mine and (not losing or rng.random() < 0.5):
                top = max(mine)
                gaps = tuple((n, n) for n in range(1, top) if n not in held)
                mark = log.uplink.receipt(lane, LaneReceipt(top, gaps), now)
                if mark is not None:
                    done = {e.sequence for e in log.events if e.lane is lane} - {*mark.exceptions}
                    done = {n for n in done if n <= mark.upto}
                    assert done <= held, "receipted what never arrived"
                    log.receipted |= done
    assert log.receipted == {e.sequence for e in log.events}
    assert log.uplink.want(now) is None


def test_nothing_else_goes_out_while_an_alarm_is_under_way() -> None:
    log = Log(*[Lane.TELEMETRY] * 8)
    log.uplink.connected(0, 0, 0.0)
    assert log.run(0.0) == [1, 2, 3]
    log.acknowledge([1, 2, 3])
    log.uplink.alarm_ahead(1.0)
    assert log.run(1.0) == [], "it is being written"
    alarm = log.append(Lane.ALARM)
    assert log.run(1.01) == [alarm]
    log.acknowledge([alarm])
    assert log.run(1.02) == [4, 5, 6]


def test_an_alarm_that_gets_nowhere_holds_up_nothing_for_long() -> None:
    log = Log(*[Lane.TELEMETRY] * 8)
    log.uplink.connected(0, 0, 0.0)
    log.uplink.tick(0.0)
    log.uplink.alarm_ahead(1.0)
    assert log.run(1.0) == []
    assert log.uplink.next_tick_s() == 1.0 + RULES.ahead_s
    end = 1.0 + RULES.ahead_s
    log.uplink.tick(end)
    assert log.run(end) == [1, 2, 3], "the disk does not take it"
    log.acknowledge([1, 2, 3])
    alarm = log.append(Lane.ALARM)
    log.uplink.alarm_ahead(2.0)
    log.uplink.news(Lane.ALARM)
    assert log.run(2.0) == [alarm]
    assert log.run(2.0 + RULES.ahead_s / 2) == []
    assert log.run(2.0 + RULES.ahead_s) == [4, 5], "the broker does not answer"
