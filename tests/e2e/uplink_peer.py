"""Processes that the outage test kills: a device that journals what it announces, and a receiver.

python uplink_peer.py device|receiver FILE.json
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.eventreader import EventReader
from edge_rt.adapters.mqtt import Settings
from edge_rt.adapters.operations_key import PrivateKey
from edge_rt.core.errors import StorageError
from edge_rt.core.uplink import Rules
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_link import Backoff
from edge_rt.core.uplink_wire import Topics
from edge_rt.core.wire import source_of
from edge_rt.fleet.receiver import Receiver
from edge_rt.fleet.store import Store
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps
from edge_rt.runtime.uplink_service import UplinkService

# Days of outage in seconds: the waits are shorter, the order of things is the same.
QUICK = Backoff(first_s=0.05, cap_s=0.3, refused_cap_s=0.3, stable_s=1.0)
RULES = Rules(resend_s=1.0, resend_cap_s=2.0, puback_s=2.0)
ALARM_EVERY = 20
AT_ONCE = 32


class Peer(msgspec.Struct):
    """What a peer is told. count: events in all; pace_s: between bursts of events; sign_with: the
    operations key of a receiver that signs its receipts."""

    folder: str
    config: MqttConfig
    count: int
    pace_s: float = 0.0
    sign_with: str = ""


def what_of(number: int) -> tuple[str, str, dict[str, Any]]:
    """The numbered event: now and then a stage of an alarm, else telemetry or an event."""
    if number % ALARM_EVERY == 0:
        return "fall", "suspected", {"incident": f"i{number}", "n": number}
    what = ("clock_stepped", "not_worn", "storage_low")[number % 3]
    return "device", what, {"n": number}


def numbers_in(log: Path) -> set[int]:
    """Numbers of the events that a log holds."""
    reader = EventReader(log)
    found: set[int] = set()
    after = 0
    while stored := reader.read(after, 1000):
        found |= {item.event.data["n"] for item in stored if "n" in item.event.data}
        after = stored[-1].sequence
    reader.close()
    return found


def device(peer: Peer) -> None:
    folder = Path(peer.folder)
    path = folder / "log.sqlite"
    stamps = Stamps(source_of("home", "dev1"), os.urandom(4).hex())
    recorder = Recorder(lambda draft, check: EventLog(path, draft, check=check), stamps)
    assert recorder.flush(10)
    uplink = UplinkService(
        peer.config,
        Topics("home", "dev1"),
        recorder,
        path,
        lambda incident: None,
        rules=RULES,
        backoff=QUICK,
        random=random.Random(os.getpid()).random,
    )
    uplink.start()
    journal = folder / "journal"
    known = numbers_in(path)
    journalled = {int(n) for n in journal.read_text().split()} if journal.exists() else set()
    # What a killed producer had written down and not seen committed, it announces again.
    todo = sorted((journalled - known) | set(range(len(journalled) + 1, peer.count + 1)))
    handle = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for start in range(0, len(todo), AT_ONCE):
        tickets = []
        for number in todo[start : start + AT_ONCE]:
            if number not in journalled:
                os.write(handle, b"%d\n" % number)
            tickets.append(recorder.announce(*what_of(number)))
        for ticket in tickets:
            ticket.result(30)
        time.sleep(peer.pace_s)
    while True:  # until killed
        time.sleep(60)


def receiver(peer: Peer) -> None:
    config = peer.config
    settings = Settings(
        config.host,
        config.port,
        "@receiver",
        ca=Path(config.ca),
        cert=Path(config.cert),
        key=Path(config.key),
        keepalive_s=config.keepalive_s,
        session_s=600,
        receive_maximum=1000,
    )
    sign = PrivateKey.read(Path(peer.sign_with)).sign if peer.sign_with else None
    while True:
        try:
            store = Store(Path(peer.folder))
            with_receiver(Receiver(settings, "home", store, backoff=QUICK, sign=sign))
        except StorageError as error:
            print(error, file=sys.stderr)


def with_receiver(at: Receiver) -> None:
    while True:
        at.turn(1.0)


if __name__ == "__main__":
    given = msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=Peer)
    {"device": device, "receiver": receiver}[sys.argv[1]](given)
