"""A clock that a test moves on, by hand or by sleeping."""

from __future__ import annotations


class DrivenTime:
    """Callable like time.monotonic; `sleep` lets exactly that time pass."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += max(0.0, seconds)
