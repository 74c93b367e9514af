"""Every event as a line of the service log."""

from __future__ import annotations

import logging

from edge_rt.core.wire import Lane
from edge_rt.runtime.logs import fields
from edge_rt.runtime.teller import Notice

log = logging.getLogger(__name__)


def log_event(notice: Notice) -> None:
    """A line for each event, to be found in the journal by its kind or incident."""
    event = notice.event
    extra = {"event": f"{event.kind}.{event.what}", "sequence": event.sequence}
    if "incident" in event.data:
        extra["incident"] = str(event.data["incident"])
    level = logging.WARNING if event.lane is Lane.ALARM else logging.INFO
    log.log(level, "event %s %s", event.sequence, extra["event"], extra=fields(**extra))
