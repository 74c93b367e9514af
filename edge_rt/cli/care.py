"""Looking after a device: examine it, save its state, bring it back, forget it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_rt.cli import options, output
from edge_rt.cli.stopping import interruptible
from edge_rt.core.config import Config
from edge_rt.core.errors import InputError

if TYPE_CHECKING:
    from edge_rt.runtime.check import Check

_state_dir = click.option("--state-dir", type=options.FILE, help="The state folder itself.")


@click.command()
@options.config
@click.option("--exercise", "trying", is_flag=True, help="Try siren, lock, LED and buttons.")
@click.option("--yes", is_flag=True, help="Try them all without asking; nobody says what was seen.")
@options.as_json
@click.pass_context
def doctor(
    ctx: click.Context, config_path: Path | None, trying: bool, yes: bool, as_json: bool
) -> None:
    """Check engine, models, sensors, disk, rights, broker and updates; say what to do.

    Without --config the defaults are checked. The exit code is 1 when a line says failed.

    --exercise tries what acts in the room and what is pressed there instead, and asks before each.
    """
    config = _load(config_path)
    if trying:
        checking = _exercise(config, yes)
    else:
        from edge_rt.runtime.doctor import examine

        checking = examine(config)
    checks: list[Check] = []
    with interruptible(), contextlib.closing(checking):
        for check in checking:
            checks.append(check)
            if not as_json:
                click.echo(f"{check.state:<8} {check.name:<18} {check.found}")
                if check.remedy and check.state != "ok":
                    click.echo(f"{'':<8} {'':<18} -> {check.remedy}")
    failed = any(check.state == "failed" for check in checks)
    if as_json:
        output.print_json({"ok": not failed, "checks": [check._asdict() for check in checks]})
    ctx.exit(1 if failed else 0)


def _exercise(config: Config, yes: bool) -> Generator[Check, None, None]:
    from edge_rt.runtime.exercise import exercise

    if yes:
        return exercise(config, lambda text: True, lambda text: True)
    if not sys.stdin.isatty():
        raise InputError("nobody to ask: --exercise needs a terminal, or --yes")

    def ask(text: str) -> bool:
        return click.confirm(text, err=True)

    return exercise(config, ask, ask)


@click.command()
@click.argument("file", type=options.FILE)
@options.config
@_state_dir
@options.as_json
def backup(file: Path, config_path: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """Save events, templates and counters to FILE. The daemon may go on running."""
    from edge_rt.runtime.backup import backup as save

    report = save(_state(config_path, state_dir), file)
    _report(report, f"saved {', '.join(report['files'])} to {file}", as_json)


@click.command()
@click.argument("file", type=options.FILE)
@options.config
@_state_dir
@options.as_json
def restore(file: Path, config_path: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """Bring the state in FILE back. Stop the daemon first; the present state is kept aside."""
    from edge_rt.runtime.backup import restore as bring_back

    report = bring_back(file, _state(config_path, state_dir))
    kept = report["kept_in"]
    aside = f"; what was there before is kept in {kept}" if kept else ""
    _report(report, f"restored {', '.join(report['files'])} from {file}{aside}", as_json)


@click.command("factory-reset")
@click.option("--yes", is_flag=True, help="Really do it.")
@options.config
@_state_dir
@options.as_json
def factory_reset(
    yes: bool, config_path: Path | None, state_dir: Path | None, as_json: bool
) -> None:
    """Forget events, faces and keys; keep the configuration. Stop the daemon first."""
    from edge_rt.runtime.backup import factory_reset as forget

    folder = _state(config_path, state_dir)
    if not yes:
        raise InputError(f"this would forget all events, faces and keys in {folder}; add --yes")
    _report(forget(folder, confirmed=True), f"{folder} is as new", as_json)


def _load(config_path: Path | None) -> Config:
    if config_path is None:
        return Config()
    from edge_rt.runtime.config_file import load_config

    return load_config(config_path)


def _state(config_path: Path | None, state_dir: Path | None) -> Path:
    if (config_path is None) == (state_dir is None):
        raise InputError("name the state: either --config FILE or --state-dir DIR")
    return state_dir or Path(_load(config_path).runtime.state_dir)


def _report(result: Mapping[str, object], said: str, as_json: bool) -> None:
    if as_json:
        output.print_json(result)
    else:
        click.echo(said)
