"""How a command that listens ends."""

from __future__ import annotations

import signal
from collections.abc import Callable


def until_stopped(wake: Callable[[], None]) -> list[int]:
    """Empty until Ctrl-C or SIGTERM, then the signal; `wake` ends the wait that is under way."""
    caught: list[int] = []

    def stop(number: int, _: object) -> None:
        caught.append(number)
        wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return caught
