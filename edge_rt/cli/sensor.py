"""The accelerometer: calibrate it, and set up what needs root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_rt.cli import options, output

HOW_SIX = """\
Lay the device on each of its six sides and let go of it for two seconds; any order will do.
The watch over falls goes on meanwhile: should it ask, answer with: edge-rt cancel"""
HOW_STILL = """\
Leave the device lying still for a minute. One position shows less than six sides do."""


@click.group()
def calibrate() -> None:
    """Calibrate a sensor; the result is stored with the device."""


@calibrate.command()
@click.option("--still", is_flag=True, help="One position for a minute instead of six sides.")
@click.option("--wait-s", type=click.FloatRange(5, 3600), default=600.0, show_default=True)
@options.config
@options.run_dir
@options.as_json
def accelerometer(
    still: bool, wait_s: float, config_path: Path | None, run_dir: Path, as_json: bool
) -> None:
    """Offsets and scales from gravity. The daemon may run; without it, give --config."""
    from edge_rt.core.calibration import Positions, Rest
    from edge_rt.runtime.calibrating import calibrate as run
    from edge_rt.runtime.config_file import load_config

    config = load_config(config_path) if config_path is not None else None

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    def progress(rest: Rest, positions: Positions) -> None:
        felt = ", ".join(f"{value:+.3f}" for value in rest.mean_g)
        if all(rest is not each for each in positions.found):
            seen = "had been up" if rest.side else "no side is level"
            missing = ", ".join(positions.missing)
            say(f"  {rest.side or 'tilted'}: {felt} g, {seen}; still missing: {missing}")
        elif not still:
            say(f"  {rest.side} up: {felt} g, {len(positions.found)} of 6")

    say(HOW_STILL if still else HOW_SIX)
    result: dict[str, Any] = run(config, run_dir, not still, wait_s, progress)
    if as_json:
        output.print_json(result)
        return
    for name, key, unit in (("offset", "offset_g", " g"), ("scale", "scale", "")):
        values = ", ".join(f"{value:.4f}" for value in result[key])
        click.echo(f"{name:<7}{values}{unit}")
    click.echo(f"positions are now within {result['left_g']:.4f} g of 1 g; stored and applied")


@click.command("sensor-setup")
@click.option("--config", "config_path", type=options.FILE, required=True, help="Of the daemon.")
@click.option("--group", default="", help="May read the device's buffer afterwards.")
@options.as_json
def sensor_setup(config_path: Path, group: str, as_json: bool) -> None:
    """As root, before the daemon starts: range, rate, trigger and buffer of an IIO device."""
    from edge_rt.runtime.config_file import load_config
    from edge_rt.runtime.sensor_setup import set_up_sensor

    falls = load_config(config_path).falls
    done = set_up_sensor(falls.source, group) if falls.enabled else ["fall detection is off"]
    if as_json:
        output.print_json({"done": done})
        return
    for line in done:
        click.echo(line)
