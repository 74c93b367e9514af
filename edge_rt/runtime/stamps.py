"""Where an event's time, identity and source come from on a running device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edge_rt.core.wire import Event, make_event


def read_boot_id() -> str:
    """The kernel's id of this boot, 32 hex digits (random(4), /proc/sys/kernel/random)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip().replace("-", "")


class Stamps(NamedTuple):
    """source, boot_id as in the event; the rest is asked anew for each event.

    wall_s, monotonic_s  seconds since 1970, and on the monotonic clock of this boot
    clock_trusted        whether the wall clock has been set since the boot
    random               gives that many random bytes
    """

    source: str
    boot_id: str
    wall_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    clock_trusted: Callable[[], bool] = lambda: False
    random: Callable[[int], bytes] = os.urandom

    def draft(
        self, kind: str, what: str, data: Mapping[str, Any], model_version: str | None = None
    ) -> Event:
        """An event of now, without a place in a log. Raises ValueError like make_event."""
        return make_event(
            kind,
            what,
            data,
            source=self.source,
            unix_s=self.wall_s(),
            random=self.random(10),
            boot_id=self.boot_id,
            monotonic_s=self.monotonic_s(),
            clock_trusted=self.clock_trusted(),
            model_version=model_version,
        )
