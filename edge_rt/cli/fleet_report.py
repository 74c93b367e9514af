"""`fleet report`: a version against what ran before it, and what to sign next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_rt.cli import options, output
from edge_rt.core.errors import InputError

if TYPE_CHECKING:
    from edge_rt.core.comparison import Arm, ComparePolicy
    from edge_rt.fleet.report import Report

# What a rollout goes through, where nobody says otherwise.
STEPS = (10.0, 50.0, 100.0)


@click.command()
@click.argument("version")
@click.option("--store", type=options.FILE, required=True, help="Folder that fleet listen keeps.")
@click.option("--name", default="", help="Bundle name, where several have this version.")
@click.option(
    "--task",
    type=click.Choice(["fall"]),
    default="fall",
    show_default=True,
    help="What is counted: alarms and cancelled pre-alarms of falls.",
)
@click.option(
    "--look-back",
    type=click.FloatRange(1, 366),
    default=28.0,
    show_default=True,
    help="Days before the version that the same devices are compared with.",
)
@click.option("--policy", "policy_path", type=options.FILE, help="TOML file with other thresholds.")
@click.option(
    "--in",
    "folder",
    type=options.FILE,
    envvar="EDGE_RT_FLEET_DIR",
    help="The publisher's folder, to name the next step of the rollout.",
)
@click.option("--check", is_flag=True, help="Exit code 1 unless it is to be advanced.")
@options.as_json
def report(
    version: str,
    store: Path,
    name: str,
    task: str,
    look_back: float,
    policy_path: Path | None,
    folder: Path | None,
    check: bool,
    as_json: bool,
) -> None:
    """Compare VERSION with what ran before it: advance, hold or abort its rollout?

    Nothing is changed: the command that is recommended is shown, and asks for your keys.
    """
    from edge_rt.core.comparison import Action
    from edge_rt.fleet.report import report as make

    policy = _policy(policy_path)
    made = make(store, version, policy, name=name, look_back_days=look_back)
    action = made.recommendation.action
    command = _command(made, folder)
    if as_json:
        output.print_json(_json(made, task, command))
    else:
        _print(made, policy, command)
    if check and action is not Action.ADVANCE:
        raise click.exceptions.Exit(1)


def _policy(path: Path | None) -> ComparePolicy:
    from edge_rt.core.comparison import ComparePolicy
    from edge_rt.core.typed_toml import decode_toml

    if path is None:
        return ComparePolicy()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    policy: ComparePolicy = decode_toml(text, ComparePolicy, str(path), InputError)
    return policy


def _command(made: Report, folder: Path | None) -> str:
    """What to sign; empty: nothing."""
    from edge_rt.core.comparison import Action

    words = f"{made.name} {made.version}"
    action = made.recommendation.action
    percent = _percent(made, folder)
    if action is Action.ABORT:
        return f"edge-rt fleet rollout abort {words}"
    if action is Action.HOLD or percent == 100.0:
        return ""
    larger = [step for step in STEPS if percent is not None and step > percent]
    return f"edge-rt fleet rollout set {words} " + (f"{larger[0]:g}" if larger else "PERCENT")


def _percent(made: Report, folder: Path | None) -> float | None:
    if folder is None:
        return None
    from edge_rt.fleet.publisher import Publisher

    publisher = Publisher(folder, lambda path: b"")  # nothing is signed here, so no key is opened
    return publisher.find(made.name, made.version).rollout.percent


def _arms(made: Report) -> dict[str, Arm]:
    return {"treated": made.arms.treated, "others": made.arms.others, "before": made.arms.before}


def _json(made: Report, task: str, command: str) -> dict[str, Any]:
    found = made.recommendation
    arms = {
        arm: {
            "devices": len(devices),
            "days": sum(exposure.days for exposure in devices.values()),
            "counts": {
                metric: sum(exposure.counts[metric] for exposure in devices.values())
                for metric in found.rates
            },
        }
        for arm, devices in _arms(made).items()
    }
    return {
        "name": made.name,
        "version": made.version,
        "task": task,
        "recommendation": found.action.value,
        "reasons": found.reasons,
        "command": command or None,
        "states": made.states,
        "failures": made.reasons,
        "away": made.outcomes.away,
        "away_control": made.outcomes.away_control,
        "arms": arms,
        "rates": found.rates,
        "unclocked_boots": made.unclocked,
    }


def _print(made: Report, policy: ComparePolicy, command: str) -> None:
    from edge_rt.cli.fleet_view import plain
    from edge_rt.core.comparison import PLURALS, rate

    found = made.recommendation
    click.echo(f"{made.name} {made.version}")
    output.print_table(["devices", "are"], [[n, state] for state, n in made.states.items()], 2)
    # What a device gives as a reason is shown, never obeyed by the terminal.
    output.print_table(
        ["devices", "failed for"], [[n, plain(why)] for why, n in made.reasons.items()], 2
    )
    click.echo()
    rows = []
    for arm, devices in _arms(made).items():
        days = sum(exposure.days for exposure in devices.values())
        row: list[object] = [arm, len(devices), f"{days:.1f}"]
        for metric in found.rates:
            count, mean, low, high = rate(devices, metric, policy.confidence_alpha)
            row.append(f"{count}: {mean:.3g} ({low:.3g}-{high:.3g})" if days > 0.0 else "-")
        rows.append(row)
    output.print_table(
        ["arm", "devices", "device-days", *(f"{PLURALS[m]} a day" for m in found.rates)], rows
    )
    click.echo()
    if made.unclocked:
        output.warn(f"left out for want of a trusted clock: {made.unclocked} of the boots")
    for k, reason in enumerate(found.reasons):
        click.echo(f"{found.action if k == 0 else '':5s}  {plain(reason)}")
    if command:
        click.echo(f"\nsign it with: {command}")
        if made.states.get("confirmed") and found.action == "abort":
            words = f"{made.name} {made.version}"
            click.echo(f"who has confirmed it keeps it, unless: edge-rt fleet withdraw {words}")
