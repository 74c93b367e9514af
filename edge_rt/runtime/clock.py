"""Whether the wall clock may be believed."""

from __future__ import annotations

import ctypes
import time
from datetime import UTC, datetime

# A Pi without a real-time clock starts in 1970 or at the date of its last shutdown. The kernel's
# flag says whether something (NTP, an RTC with a synchronised past) has disciplined the clock.
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 256  # struct timex takes 208 on 64-bit; `modes` 0 at its start means: only read
FIRST_YEAR = 2025  # edge_rt did not exist before: whatever the kernel says, this was never set
_FIRST_S = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()


def clock_trusted() -> bool:
    """Whether the wall clock may be believed now."""
    libc = ctypes.CDLL(None, use_errno=True)
    return believable(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)), time.time())


def believable(kernel_state: int, unix_s: float) -> bool:
    """kernel_state: what adjtimex(2) returned; unix_s: what the clock shows."""
    return kernel_state not in (-1, _TIME_ERROR) and unix_s >= _FIRST_S
