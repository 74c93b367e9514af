"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

from pathlib import Path

import click

# Existence is not click's to check: our own readers name the remedy, in one line.
FILE = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
as_json_lines = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON lines on stdout, one object a line."
)
run_dir = click.option(
    "--run-dir",
    type=FILE,
    envvar="EDGE_RT_RUN_DIR",
    default="/run/edge-rt",
    show_default=True,
    show_envvar=True,
    help="Folder of the daemon's control socket.",
)
engine = click.option(
    "--engine", default="auto", show_default=True, help="auto, litert or tflite-runtime."
)
config = click.option("--config", "config_path", type=FILE, help="The daemon's configuration file.")
detect = click.option(
    "--detect", default="face-detect", show_default=True, help="Detector bundle, name or folder."
)
embed = click.option(
    "--embed", default="face-embed", show_default=True, help="Embedder bundle, name or folder."
)
