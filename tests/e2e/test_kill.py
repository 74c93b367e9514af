"""kill -9 at random points: the log is counted against a journal that the producer writes.

The journal is a pipe to this process: what was written to it before the kill arrives. A line
`a <n>` comes before each announce, a line `c <n>` after its commit was confirmed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_rt.adapters.eventreader import EventReader, check_database
from edge_rt.core.errors import StorageError

# Loads once and forks a producer for each line it is given: "<path> <first n> <waiting>".
PRODUCER = """
import os, sys
from pathlib import Path
from edge_rt.adapters.eventlog import EventLog
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.stamps import Stamps

KINDS = (("fall", "alarm"), ("device", "not_worn"), ("device", "started"), ("fall", "resolved"))

def tell(text):
    os.write(1, text.encode())

def produce(path, n, waiting):
    open_log = lambda draft, check: EventLog(Path(path), draft, check=check)
    recorder = Recorder(open_log, Stamps("/edge-rt/home/hall", "b" * 32))
    while True:
        kind, what = KINDS[n % len(KINDS)]
        tell(f"a {n}\\n")
        ticket = recorder.announce(kind, what, {"n": n, "fill": "x" * (n * 37 % 900)})
        if waiting:
            ticket.result(30)
            tell(f"c {n}\\n")
        else:
            ticket.add_done_callback(lambda ticket, n=n: ticket.exception() or tell(f"c {n}\\n"))
        n += 1

for line in sys.stdin:
    path, first, waiting = line.split()
    pid = os.fork()
    if not pid:
        produce(path, int(first), waiting == "1")
    tell(f"p {pid}\\n")
    os.waitpid(pid, 0)
    tell("e 0\\n")
"""


def rounds(count: int, path: Path, seed: int) -> tuple[int, int]:
    """Kill a producer `count` times; number of events confirmed, and announced but lost."""
    chance = random.Random(seed)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    confirmed: set[int] = set()
    lost = 0
    first = 0
    with subprocess.Popen(
        [sys.executable, "-c", PRODUCER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=environment,
    ) as producer:
        assert producer.stdin and producer.stdout
        for _ in range(count):
            waiting = chance.random() < 0.5
            producer.stdin.write(f"{path} {first} {int(waiting)}\n")
            announced = -1
            pid = 0
            left = chance.choice((0, 1, 2, 5, 20, 100, 400)) + chance.randrange(20)
            for line in producer.stdout:
                word, number = line.split()
                if word == "e":
                    break
                if word == "p":
                    pid = int(number)
                elif word == "a":
                    announced = int(number)
                else:
                    confirmed.add(int(number))
                left -= 1
                if left <= 0 and pid:
                    os.kill(pid, signal.SIGKILL)
                    left = 1 << 30  # what is still in the pipe was written before
            else:
                pytest.fail("the producer ended by itself")
            there = counted(path)
            assert confirmed <= set(there), "a confirmed event is gone"
            assert there == sorted(there) and len(set(there)) == len(there)
            mine = [n for n in there if n >= first]
            assert mine == list(range(first, first + len(mine))), "one in the middle is gone"
            gone = announced + 1 - first - len(mine)
            assert gone <= 1 or not waiting, "only the last call may have been cut off"
            lost += gone
            first = max(announced + 1, first)
    return len(confirmed), lost


def counted(path: Path) -> list[int]:
    """The producer's numbers in the log, after checking that the log is whole."""
    reader = EventReader(path)
    try:
        reader.read()
    except StorageError as error:  # killed before the log was born
        assert "start the daemon once" in str(error)
        return []
    check_database(path)
    numbers, place = [], 0
    while stored := reader.read(place, 1000):
        assert [s.sequence for s in stored] == list(range(place + 1, place + 1 + len(stored)))
        place = stored[-1].sequence
        numbers += [s.event.data["n"] for s in stored]
    reader.close()
    return numbers


def test_every_confirmed_event_survives_a_kill(tmp_path: Path) -> None:
    confirmed, _ = rounds(25, tmp_path / "events.db", seed=1)
    assert confirmed > 100


@pytest.mark.release
def test_every_confirmed_event_survives_500_kills(tmp_path: Path) -> None:
    confirmed = 0
    for part in range(20):
        confirmed += rounds(25, tmp_path / f"events-{part}.db", seed=100 + part)[0]
    assert confirmed > 2000
