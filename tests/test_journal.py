"""The journal's native protocol and what our records become in it."""

from __future__ import annotations

import logging
import os
import socket
import struct
from pathlib import Path

import pytest

from edge_rt.adapters.journal import MAX_VALUE_BYTES, Journal, encode, goes_to_journal
from edge_rt.runtime.logs import JournalHandler, fields, journal_fields


def decode(datagram: bytes) -> dict[str, str]:
    """As journald reads it."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, mark, value = line.partition(b"=")
        if not mark:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        found[name.decode()] = value.decode()
        datagram = rest
    return found


def record(level: int = logging.WARNING, message: str = "hello %s", **extra: object) -> object:
    made = logging.LogRecord("edge_rt.x", level, "/x.py", 7, message, ("you",), None, "turn")
    made.__dict__.update(extra)
    return made


def test_lines_and_texts() -> None:
    values = {"MESSAGE": "one\ntwo\n", "PRIORITY": "3", "EMPTY": "", "WORD": "ö=ä"}
    assert decode(encode(values)) == values
    assert encode({"A": "b"}) == b"A=b\n"


def test_an_entry_fits_a_datagram() -> None:
    assert len(encode({"MESSAGE": "x" * 10_000_000})) < MAX_VALUE_BYTES + 100


def test_a_record_becomes_fields() -> None:
    extra = fields(event="fall.alarm", incident="abc")
    found = journal_fields(record(**extra))  # type: ignore[arg-type]
    assert found["MESSAGE"] == "hello you"
    assert found["PRIORITY"] == "4"
    assert found["SYSLOG_IDENTIFIER"] == "edge-rt"
    assert (found["CODE_FILE"], found["CODE_LINE"], found["CODE_FUNC"]) == ("/x.py", "7", "turn")
    assert found["EDGE_RT_EVENT"] == "fall.alarm" and found["EDGE_RT_INCIDENT"] == "abc"


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, "2"), (logging.ERROR, "3"), (logging.INFO, "6"), (logging.DEBUG, "7")],
)
def test_levels_become_priorities(level: int, priority: str) -> None:
    assert journal_fields(record(level))["PRIORITY"] == priority  # type: ignore[arg-type]


def test_a_journal_that_is_gone_leaves_the_line_to_stderr(tmp_path: Path) -> None:
    kept: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    path = str(tmp_path / "socket")
    handler = JournalHandler(Journal(path), Keeping())
    handler.emit(record())  # type: ignore[arg-type]
    assert len(kept) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(path)
        journald.settimeout(5.0)
        handler.emit(record())  # type: ignore[arg-type]
        assert decode(journald.recv(65536))["MESSAGE"] == "hello you"
    assert len(kept) == 1


def test_stderr_is_the_journal_only_if_systemd_says_so(tmp_path: Path) -> None:
    with open(tmp_path / "stream", "w") as stream:
        there = os.fstat(stream.fileno())
        named = {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"}
        assert goes_to_journal(stream.fileno(), named)
        assert not goes_to_journal(stream.fileno(), {})
        assert not goes_to_journal(stream.fileno(), {"JOURNAL_STREAM": f"{there.st_dev}:1"})
        fd = stream.fileno()
    assert not goes_to_journal(fd, named)
