"""What a service tells systemd (sd_notify(3)), without its library: datagrams to one socket."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)


class Notifier:
    """Speaks to whoever started us, if that asked to be told; never waits, never raises.

    watchdog_s  how often `turned` must come at the latest; 0: nobody counts
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Takes NOTIFY_SOCKET and the watchdog's variables out of the environment: the processes
        that we start must not speak in our name."""
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", "")
        period_us = environment.pop("WATCHDOG_USEC", "0")
        meant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(period_us) / 1e6 if meant and period_us.isdecimal() else 0.0
        # "@" stands for the zero byte that begins an abstract name (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )

    @property
    def listened(self) -> bool:
        """Whether somebody asked to be told."""
        return self._socket is not None

    def ready(self, status: str) -> bool:
        """The service does what it is for. False when nobody was told; so do all below."""
        return self._tell(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._tell(f"STATUS={_line(text)}")

    def turned(self, status: str) -> bool:
        """Every loop has turned: feeds the watchdog."""
        return self._tell(f"WATCHDOG=1\nSTATUS={_line(status)}")

    def stopping(self) -> bool:
        """The end has begun."""
        return self._tell("STOPPING=1")

    def failed(self, message: str, exit_code: int) -> bool:
        """Why it will end now."""
        return self._tell(f"STATUS={_line(message)}\nEXIT_STATUS={exit_code}")

    def more_time(self, seconds: float) -> bool:
        """Starting or stopping goes on and needs so much longer from now on."""
        return self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _tell(self, message: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:  # a full buffer or a manager that restarts: the next one arrives
            log.debug("systemd was not told: %s", error)
            return False
        return True


def _line(text: str) -> str:
    return " ".join(text.split())
