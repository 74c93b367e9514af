"""Alarms that nobody has receipted."""

from __future__ import annotations

from edge_rt.core.patience import MAX_ALARMS, Alarm, Patience
from edge_rt.core.uplink_wire import LaneReceipt


def test_an_alarm_without_receipt_is_overdue_once() -> None:
    patience = Patience(30.0)
    patience.stage("prealarm", "i", 1, 0.0)
    patience.stage("alarm", "i", 2, 5.0)
    assert patience.next_s() == 35.0
    assert patience.overdue(34.9) == []
    assert patience.overdue(35.0) == [Alarm(2, "i", 5.0)]
    assert patience.overdue(99.0) == []
    assert patience.waiting == 1
    assert patience.receipted(LaneReceipt(2)) == [Alarm(2, "i", 5.0)]
    assert patience.waiting == 0


def test_a_receipt_or_an_end_in_time_is_silence() -> None:
    patience = Patience(30.0)
    patience.stage("alarm", "a", 1, 0.0)
    patience.stage("alarm", "b", 2, 0.0)
    patience.stage("alarm", "c", 3, 0.0)
    assert patience.receipted(LaneReceipt(3, missing=((2, 3),))) == []
    patience.stage("resolved", "b", 4, 1.0)
    assert [alarm.incident for alarm in patience.overdue(100.0)] == ["c"]


def test_it_is_bounded() -> None:
    patience = Patience(30.0)
    for n in range(1, 2 * MAX_ALARMS):
        patience.stage("alarm", str(n), n, float(n))
    assert patience.waiting == MAX_ALARMS
    assert len(patience.overdue(1e9)) == MAX_ALARMS
