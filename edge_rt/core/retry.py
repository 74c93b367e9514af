"""When to try again: later each time, up to a bound."""

from __future__ import annotations


class Retry:
    """first_s, cap_s: the wait doubles from the one to the other; reset() begins anew."""

    def __init__(self, first_s: float, cap_s: float) -> None:
        self.failures = 0
        self._first_s = first_s
        self._cap_s = cap_s

    def after(self, now_s: float) -> float:
        """It failed: when to try again."""
        # 2 ** 30 is past any cap; the exponent must not grow with the weeks.
        wait_s = min(self._cap_s, self._first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return now_s + wait_s

    def reset(self) -> None:
        """It succeeded."""
        self.failures = 0
