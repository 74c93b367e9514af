"""Commands that run the daemon or talk to it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from edge_rt.cli import options, output
from edge_rt.runtime.client import Client

WATCH_PERIOD_S = 1.0  # a person reads it; the daemon should not notice


def ask(run_dir: Path, command: str, as_json: bool, said: str, **arguments: Any) -> None:
    """Call the daemon and print its answer: as JSON, or what was done and the state it led to."""
    with Client(run_dir) as client:
        answer = client.call(command, **arguments)
    if as_json:
        output.print_json(answer)
        return
    if "state" in answer:  # of the fall pipeline; all of it is in edge-rt status
        click.echo(f"{said}; now {answer['state']}")
        return
    click.echo(said)
    output.print_tree(answer, indent=2)


@click.command()
@click.option("--config", "config_path", type=options.FILE, required=True, help="Its settings.")
@click.option("--check", is_flag=True, help="Only check the configuration.")
@click.pass_context
def run(ctx: click.Context, config_path: Path, check: bool) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C."""
    if check:
        from edge_rt.runtime.config_file import load_config
        from edge_rt.runtime.preflight import preflight

        preflight(load_config(config_path))
        click.echo(f"{config_path}: ok")
        return
    # numpy's pool of threads has nothing to do here, and who has threads cannot fork for trials.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edge_rt.runtime import process

    ctx.exit(process.run(config_path))


@click.command()
@click.option("--watch", is_flag=True, help="Show it anew each second, until Ctrl-C.")
@options.as_json
@options.run_dir
def status(run_dir: Path, as_json: bool, watch: bool) -> None:
    """Show what the running daemon sees and does."""
    with Client(run_dir) as client:
        while True:
            answer = client.call("status")
            if as_json:
                output.print_json(answer)
            else:
                if watch:
                    click.clear()
                output.print_tree(answer)
            if not watch:
                return
            time.sleep(WATCH_PERIOD_S)


@click.command()
@options.as_json
@options.run_dir
def cancel(run_dir: Path, as_json: bool) -> None:
    """Cancel a pre-alarm: the person is all right."""
    ask(run_dir, "cancel", as_json, "cancelled")


@click.command()
@options.as_json
@options.run_dir
def resolve(run_dir: Path, as_json: bool) -> None:
    """Close an alarm: somebody has looked after it."""
    ask(run_dir, "resolve", as_json, "resolved")


@click.command("help-now")
@options.as_json
@options.run_dir
def help_now(run_dir: Path, as_json: bool) -> None:
    """Raise the alarm at once, without waiting for a fall."""
    ask(run_dir, "help_now", as_json, "alarm raised")


_what = click.argument("what", type=click.Choice(["falls", "faces"]))


@click.command()
@_what
@options.as_json
@options.run_dir
def arm(run_dir: Path, as_json: bool, what: str) -> None:
    """Arm fall detection or face unlock."""
    ask(run_dir, "arm", as_json, f"{what} armed", what=what)


@click.command()
@_what
@options.as_json
@options.run_dir
def disarm(run_dir: Path, as_json: bool, what: str) -> None:
    """Disarm fall detection or face unlock."""
    ask(run_dir, "disarm", as_json, f"{what} disarmed", what=what)


@click.command()
@click.option("--follow", is_flag=True, help="Go on with new events, until Ctrl-C.")
@click.option("--after", type=click.IntRange(0), help="Start behind this sequence.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="How many of the stored ones: the newest, or the first behind --after.",
)
@options.as_json
@options.run_dir
def events(run_dir: Path, as_json: bool, follow: bool, after: int | None, limit: int) -> None:
    """List or follow the event log; with --json one event a line."""
    with Client(run_dir) as client:
        start = {} if after is None else {"after": after}
        for event in client.stream("events", **start, limit=limit, follow=follow):
            if as_json:
                output.print_json(event)
            else:
                click.echo(event_line(event))


def event_line(event: dict[str, Any]) -> str:
    """One CloudEvent for a person: when, number, what, and the flat part of its data."""
    data = event.get("data") or {}
    flat = [f"{k}={v}" for k, v in data.items() if not isinstance(v, dict | list)]
    kind = str(event.get("type", "?")).removeprefix("edge_rt.")
    sequence = str(event.get("sequence", "?")).rjust(6)
    return f"{event.get('time', '?')}  {sequence}  {kind:<18}  {' '.join(flat)}".rstrip()
