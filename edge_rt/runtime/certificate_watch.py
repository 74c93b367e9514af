"""Says in time that the device's certificate ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_rt.adapters.certificate import not_after
from edge_rt.core.errors import CredentialError
from edge_rt.core.wire import rfc3339

# A look costs a stat(2), and the reading of a file when that has changed.
LOOK_S = 60.0
_DAY_S = 86400.0

Announce = Callable[[str, str, Mapping[str, Any]], object]


class CertificateWatch:
    """look() from one thread, the rest from any.

    warn_days      so early it is a problem, and told once as `device.certificate_ending`
    clock_trusted  without it nothing is concluded: in 1970 every certificate is fresh
    """

    def __init__(
        self,
        path: Path,
        warn_days: int,
        announce: Announce,
        *,
        wall_s: Callable[[], float],
        monotonic_s: Callable[[], float],
        clock_trusted: Callable[[], bool],
    ) -> None:
        self._path = path
        self._warn_days = warn_days
        self._announce = announce
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._clock_trusted = clock_trusted
        self._due_s = float("-inf")
        self._seen: tuple[int, int] | None = None
        self._ends: datetime | None = None
        self._told: datetime | None = None
        self.problem = ""

    def look(self) -> None:
        """Look if it is time to; a certificate that was replaced is seen a minute later."""
        now_s = self._monotonic_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + LOOK_S
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_ino) != self._seen:
                self._ends = not_after(self._path)
                self._seen = (stat.st_mtime_ns, stat.st_ino)
        except (OSError, CredentialError) as error:
            self._seen = self._ends = None
            self.problem = f"mqtt: certificate {self._path} cannot be read: {error}"
            return
        self.problem = self._judge(self._ends) if self._ends and self._clock_trusted() else ""

    def status(self) -> dict[str, Any] | None:
        """`ends` (RFC 3339), and `days` left if the clock can be believed; None: not known."""
        if self._ends is None:
            return None
        days = round(self._left_s(self._ends) / _DAY_S, 1) if self._clock_trusted() else None
        return {"ends": rfc3339(self._ends.timestamp()), "days": days}

    def _judge(self, ends: datetime) -> str:
        left_s = self._left_s(ends)
        if left_s > self._warn_days * _DAY_S:
            return ""
        stamp = ends.astimezone(UTC).date().isoformat()
        if self._told != ends:
            self._told = ends
            days = round(left_s / _DAY_S, 1)
            self._announce(
                "device",
                "certificate_ending",
                {"ends": rfc3339(ends.timestamp()), "days": days},
            )
        verb = "ends" if left_s > 0 else "ended"
        return f"mqtt: certificate {self._path} {verb} on {stamp}; see edge-rt provision renew"

    def _left_s(self, ends: datetime) -> float:
        return ends.timestamp() - self._wall_s()
