"""How a command that listens ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


def until_stopped(wake: Callable[[], None]) -> list[int]:
    """Empty until Ctrl-C or SIGTERM, then the signal; `wake` ends the wait that is under way."""
    caught: list[int] = []

    def stop(number: int, _: object) -> None:
        caught.append(number)
        wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return caught


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP (a terminal that is gone) end what is under way as Ctrl-C does: outputs
    that it drives come to rest."""
    numbers = (signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: object) -> None:
        for each in numbers:  # the way out is not interrupted again
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
