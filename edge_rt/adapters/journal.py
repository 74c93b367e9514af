"""Lines with fields for systemd's journal, in its native protocol.

Source: systemd.io/JOURNAL_NATIVE_PROTOCOL (the datagram), systemd.journal-fields(7) (the names),
sd-daemon(3) and systemd.exec(5) (JOURNAL_STREAM).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
# A datagram must fit the socket's send buffer (212,992 bytes by default), else it would have to go
# through a memory file. A traceback takes a few KiB; what is longer is cut.
MAX_VALUE_BYTES = 32 * 1024


def goes_to_journal(fd: int, environment: Mapping[str, str] | None = None) -> bool:
    """Whether what is written to this descriptor lands in the journal anyway."""
    stream = (os.environ if environment is None else environment).get("JOURNAL_STREAM", "")
    try:
        there = os.fstat(fd)
    except OSError:  # closed
        return False
    return stream == f"{there.st_dev}:{there.st_ino}"


class Journal:
    """Sends entries; for one thread, which may have to wait for journald."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, fields: Mapping[str, str]) -> None:
        """One entry. Raises OSError when journald does not take it (it may be starting anew)."""
        self._socket.sendto(encode(fields), self._path)

    def close(self) -> None:
        """No more."""
        self._socket.close()


def encode(fields: Mapping[str, str]) -> bytes:
    """The datagram: `NAME=value` lines; a value of several lines is preceded by its length."""
    return b"".join(_field(name, value) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")[:MAX_VALUE_BYTES]
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
