"""Who gets what is sent to the device, and what other threads send."""

from __future__ import annotations

import pytest

from edge_rt.core.errors import InputError
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.letters import MAX_LETTERS, Inbox, Letter, Outbox


def test_a_letter_is_handed_to_whom_it_is_for() -> None:
    got: list[tuple[str, bytes]] = []

    def take(topic: str, payload: bytes) -> Letter:
        got.append((topic, payload))
        return Letter("answer", b"")

    inbox = Inbox(Topics("home", "dev1"), {"twin/desired": take, "cmd/+": take})
    base = "edge-rt/v1/home/dev1"
    assert inbox.filters == [f"{base}/twin/desired", f"{base}/cmd/+"]
    assert inbox.deliver(f"{base}/cmd/self-test", b"x") == Letter("answer", b"")
    assert got == [("cmd/self-test", b"x")]
    for stray in (f"{base}/cmd", f"{base}/ack", "cmd/self-test", "edge-rt/v1/home/dev2/cmd/x"):
        with pytest.raises(InputError, match="nobody waits"):
            inbox.deliver(stray, b"")


def test_the_outbox_wakes_keeps_its_order_and_forgets_the_oldest() -> None:
    woken: list[None] = []
    outbox = Outbox(lambda: woken.append(None))
    for n in range(MAX_LETTERS + 3):
        outbox.put(Letter(str(n), b""))
    assert len(woken) == MAX_LETTERS + 3
    taken = [int(letter.topic) for letter in outbox.take()]
    assert taken == list(range(3, MAX_LETTERS + 3))
    assert list(outbox.take()) == []
