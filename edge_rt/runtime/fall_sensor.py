"""The state of the sensor that falls are watched with; loss and return are told once each."""

from __future__ import annotations

import logging
from typing import Any

from edge_rt.core.types import Announce

log = logging.getLogger(__name__)

# A sensor that does not tell the truth is reset at once, then less and less often: each time costs
# half a second of samples, in which some of the truth may be.
REOPEN_S, REOPEN_MOST_S = 10.0, 300.0


class FallSensor:
    """state: "starting", "ok", "lost", "ended" or "off"; detail: why."""

    def __init__(self, state: str, now_s: float) -> None:
        self.state, self.detail = state, ""
        self._reopen_s, self._patience_s = now_s, REOPEN_S

    def becomes(self, announce: Announce, state: str, detail: str = "", **more: Any) -> None:
        """more: what else the event tells of a loss."""
        before, self.state, self.detail = self.state, state, detail
        if state == before:
            return
        if state == "lost":
            data = {"sensor": "accelerometer", "detail": detail, **more}
            announce("device", "sensor_lost", data)
        elif before == "lost" and state == "ok":
            announce("device", "sensor_back", {"sensor": "accelerometer"})

    def tells_the_truth(self, announce: Announce) -> None:
        """Usable samples came of it."""
        self._patience_s = REOPEN_S
        self.becomes(announce, "ok")

    def wants_reset(self, broken: str, now_s: float) -> bool:
        """Whether one that delivers, but not the truth, is to be opened anew, which resets it."""
        if not broken or now_s < self._reopen_s:
            return False
        log.warning("accelerometer: %s; it is opened anew", broken)
        self._reopen_s = now_s + self._patience_s
        self._patience_s = min(2 * self._patience_s, REOPEN_MOST_S)
        return True
