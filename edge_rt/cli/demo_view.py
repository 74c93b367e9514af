"""What the demo shows: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import click

from edge_rt.cli import demo_mqtt

BARS = " ▁▂▃▄▅▆▇█"
SPARK_WIDTH = 48
SCORE_LOW, SCORE_HIGH = -12.0, 8.0  # logits; outside they are drawn at the edge
SHOWN_EVENTS = 10
SHOWN_FAR = 4  # of what came to the other side
SHOWN_CHARACTERS = 10  # of an id: enough to tell two apart on the screen
OTHER_LINES = 21  # of the live view: panels, frames and latencies
STATE_COLOURS = {"alarm": "bold white on red", "prealarm": "bold black on yellow"}

State = dict[str, Any]


class View(Protocol):
    """Shows the daemon's status and events while they grow."""

    def show(self, status: State, events: Sequence[State]) -> None: ...

    def end(self, summary: State) -> None: ...


@contextlib.contextmanager
def make_view(plain: bool, quiet: bool) -> Iterator[View]:
    """plain: one line an event; quiet: those on stderr, stdout belongs to JSON."""
    if plain:
        yield PlainView(quiet)
        return
    from rich.live import Live

    with Live(refresh_per_second=10, transient=True) as live:
        yield LiveView(live)


class PlainView:
    """One line an event."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = 0
        self._far: dict[str, int] = {}  # how often each line of the other side was shown

    def show(self, status: State, events: Sequence[State]) -> None:
        for event in events[self._shown :]:
            click.echo(event_line(event), err=self._quiet)
        self._shown = len(events)
        far = demo_mqtt.lines(status["other_side"]) if "other_side" in status else []
        counts: dict[str, int] = {}
        for line in far:
            counts[line] = counts.get(line, 0) + 1
            if counts[line] > self._far.get(line, 0):
                click.echo(f"other side: {line}", err=self._quiet)
        self._far = counts

    def end(self, summary: State) -> None:
        if not self._quiet:
            for line in summary_lines(summary):
                click.echo(line)


class LiveView:
    """Falls on the left, faces on the right, events and latencies below."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._scores: deque[float] = deque(maxlen=SPARK_WIDTH)
        self._hops = -1

    def show(self, status: State, events: Sequence[State]) -> None:
        from rich.columns import Columns
        from rich.console import Group
        from rich.panel import Panel

        falls, faces = status["falls"], status["faces"]
        if falls["hops"] != self._hops and falls["mean"] is not None:
            self._hops = falls["hops"]
            self._scores.append(falls["mean"])
        title = "falls: SIMULATED wearer" if falls["simulated"] else "falls: recorded"
        panels: list[Any] = [
            Columns(
                [
                    Panel(self._falls(falls), title=title, width=54),
                    Panel(_faces(faces), title="faces", width=42),
                ]
            ),
            Panel("\n".join(event_line(e) for e in events[-self._room() :]), title="events"),
        ]
        if "other_side" in status:
            panels.append(Panel(_other_side(status["other_side"]), title="the other side, by MQTT"))
        panels.append(Panel(_latencies(falls["latency"], faces["latency"]), title="latency"))
        self._live.update(Group(*panels))

    def end(self, summary: State) -> None:
        from rich.panel import Panel

        self._live.console.print(Panel("\n".join(summary_lines(summary)), title="summary"))

    def _room(self) -> int:
        """Lines for events that leave the rest of the picture on the screen."""
        height: int = self._live.console.height
        return max(2, min(SHOWN_EVENTS, height - OTHER_LINES))

    def _falls(self, falls: State) -> str:
        state = falls["state"]
        colour = {"alarm": "bold white on red", "prealarm": "bold black on yellow"}.get(
            state, "bold"
        )
        lines = [f"[{colour}] {state.upper()} [/] at {falls['t_s'] or 0:.1f} s"]
        if falls["alarm_in_s"] is not None:
            lines[0] += f", alarm in {falls['alarm_in_s']:.0f} s"
        lines.append(sparkline(self._scores, falls["threshold"]))
        mean = falls["mean"]
        shown = "--" if mean is None else f"{mean:+.1f}"
        lines.append(f"score {shown} (alarms from {falls['threshold']:+.1f})")
        lines.append(f"peak {falls['peak_g'] or 0:.1f} g, sensor {falls['sensor']}")
        return "\n".join(lines)


def sparkline(scores: Sequence[float], threshold: float) -> str:
    """Scores as bars, those from the threshold on in red."""
    cells = []
    for score in scores:
        share = (score - SCORE_LOW) / (SCORE_HIGH - SCORE_LOW)
        bar = BARS[max(0, min(len(BARS) - 1, round(share * (len(BARS) - 1))))]
        cells.append(f"[red]{bar}[/]" if score >= threshold else bar)
    return "".join(cells)


def _faces(faces: State) -> str:
    last = faces["last"] or {}
    outcome = last.get("outcome", "nobody yet")
    colour = {"unlocked": "bold green", "denied": "bold red"}.get(outcome, "bold")
    lines = [
        f"[{colour}]{outcome.upper()}[/] {last.get('person') or last.get('reason') or ''}",
        f"sees: {faces['seen'] or '--'} {faces['seen_reason']}",
        f"{faces['state']}, liveness {faces['liveness']}",
        f"camera {faces['camera']}, {faces['frames']} frames, worker {faces['worker']}",
    ]
    return "\n".join(lines)


def _other_side(look: State) -> str:
    head = f"{look['connection']}, {len(look['arrived'])} events arrived"
    head += f", {look['without_receipt']} without a receipt"
    return "\n".join([head, *demo_mqtt.lines(look)[-SHOWN_FAR:]])


def _latencies(falls: State, faces: State) -> str:
    rows = [
        f"{name:<10} p50 {row['p50_ms']:8.3f} ms   p99 {row['p99_ms']:8.3f} ms"
        for stages in (falls, faces)
        for name, row in stages.items()
    ]
    return "\n".join(rows)


def event_line(event: State) -> str:
    """One event: number, what, and the part of its data that tells a person something."""
    data = event["data"]
    why = data.get("why") or {}
    parts = [f"{int(event['sequence']):>4}  {event['type'].removeprefix('edge_rt.'):<18}"]
    for key in ("incident", "person"):
        if data.get(key):
            parts.append(f"{key} {str(data[key])[:SHOWN_CHARACTERS]}")
    parts += [f"{key} {data[key]}" for key in ("reason", "detail") if data.get(key)]
    for key in ("mean", "peak_g", "delay_s", "posture"):
        if why.get(key) is not None:
            parts.append(f"{key} {why[key]}")
    return "  ".join(parts)


def summary_lines(summary: State) -> list[str]:
    """The end of the demo in sentences."""
    events = summary["events"]
    lines = [f"{summary['input']} accelerometer, {summary['engine']}, {summary['seconds']} s"]
    for delay in summary["delay_s"]:
        after = "" if delay is None else f", {delay:.2f} s after the impact"
        lines.append(f"a fall: pre-alarm{after}, {events.get('fall.alarm', 0)} alarm(s)")
    lines.append(
        f"faces: {events.get('face.unlocked', 0)} unlocked, {events.get('face.denied', 0)} denied "
        "(liveness not checked: a photograph would do)"
    )
    for name in ("falls", "faces"):
        lines += [
            f"{name} {stage}: p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms"
            for stage, row in summary["latency"][name].items()
        ]
    far = summary.get("other_side")
    if far:
        lines.append(
            f"other side: {len(far['arrived'])} events arrived, "
            f"{far['without_receipt']} without a receipt; "
            f"told: {', '.join(far['told']) or 'nobody'}"
        )
    lines += [f"NOT SEEN: {what}" for what in summary["missed"]]
    return lines
