"""What `fleet listen` shows: a live table on a terminal, a line an event elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import click

from edge_rt.cli.daemon import event_line

if TYPE_CHECKING:
    from edge_rt.fleet.overview import Overview, Row
    from edge_rt.fleet.receiver import Receiver
    from edge_rt.fleet.store import Arrived, Store

# Drawing costs milliseconds, and a backlog arrives at thousands of events a second.
PERIOD_S = 0.25
SHOWN_EVENTS = 8
OTHER_LINES = 12  # of the picture: frames, headings, connection
COLUMNS = ("device", "status", "heard", "last event", "at", "alarms", "missing", "lag")
STATUS_STYLES = {"online": "green", "silent": "bold red", "offline": "red"}


class FleetView(Protocol):
    """Shows events as they are stored, and how the fleet is after each turn."""

    def event(self, arrived: Arrived) -> None: ...

    def turn(self, receiver: Receiver) -> None: ...


@contextlib.contextmanager
def make_fleet_view(store: Store, *, live: bool, as_json: bool) -> Iterator[FleetView]:
    """live: stdout is a terminal, which the table has for itself."""
    if as_json or not live:
        yield LineView(as_json)
        return
    from rich.live import Live

    from edge_rt.fleet.overview import Overview

    with Live(auto_refresh=False) as drawing:
        yield TableView(drawing, Overview(store))


class LineView:
    """One line an event."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def event(self, arrived: Arrived) -> None:
        click.echo(arrived.body if self._as_json else line_of(arrived))

    def turn(self, receiver: Receiver) -> None:
        """Lines stand where they are."""


class TableView:
    """A row a device, and the newest events below; what is warned of stays above."""

    def __init__(self, live: Any, overview: Overview) -> None:
        self._live = live
        self._overview = overview
        self._events: deque[str] = deque(maxlen=SHOWN_EVENTS)
        self._due_s = 0.0

    def event(self, arrived: Arrived) -> None:
        self._overview.take(arrived)
        self._events.append(line_of(arrived))

    def turn(self, receiver: Receiver) -> None:
        from rich.console import Group
        from rich.text import Text

        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + PERIOD_S
        rows = self._overview.rows(receiver.devices, now_s)
        room = max(3, self._live.console.height - OTHER_LINES - SHOWN_EVENTS)
        counts = receiver.counts
        head = f"fleet {receiver.fleet}: {receiver.state}, {len(rows)} devices, "
        head += f"{counts['stored']} events stored, {counts['repeats']} repeats"
        if len(rows) > room:
            head += f"; {len(rows) - room} devices are not shown"
        # Text, not markup: what devices say must not be read as instructions to the screen.
        events = [Text(line, no_wrap=True, overflow="ellipsis") for line in self._events]
        self._live.update(Group(Text(head), table(rows[:room]), *events), refresh=True)


def table(rows: list[Row]) -> Any:
    """The devices as a table of rich."""
    from rich.table import Table
    from rich.text import Text

    made = Table(expand=True)
    for name in COLUMNS:
        made.add_column(name, justify="right" if name in ("alarms", "missing", "lag") else "left")
    for row in rows:
        made.add_row(
            Text(plain(row.device)),
            Text(plain(row.status), STATUS_STYLES.get(row.status, "")),
            "-" if row.heard_s is None else f"{row.heard_s:.0f} s ago",
            Text(plain(row.last)),
            Text(plain(row.time)[:19]),
            Text(str(row.alarms), "bold white on red" if row.alarms else ""),
            Text(str(row.missing), "yellow" if row.missing else ""),
            "-" if row.lag_s is None else f"{row.lag_s:.3g} s",
        )
    return made


def line_of(arrived: Arrived) -> str:
    """One event for a person, in one line, whatever a device put into it."""
    event = arrived.event
    device = event.source.rsplit("/", 1)[-1]
    shown = {name: getattr(event, name) for name in ("time", "sequence", "type", "data")}
    return plain(f"{device:<16}  {event_line(shown)}")


def plain(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)
