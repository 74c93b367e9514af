"""Figures of models on labelled data, through the same pipelines that run live."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edge_rt.cli import options, output
from edge_rt.core.errors import InputError


@click.group()
def evaluate() -> None:
    """Score models on labelled recordings and pictures."""


@evaluate.command()
@click.argument("files", nargs=-1, required=True, type=options.FILE)
@click.option("--bundle", default="fall-waist", show_default=True, help="Factory name or folder.")
@click.option("--cross-validate", is_flag=True, help="Train and score subject-disjoint folds.")
@click.option("--folds", default="5", show_default=True, help="A number, or loso.")
@options.engine
@options.as_json
def fall(
    files: tuple[Path, ...],
    bundle: str,
    cross_validate: bool,
    folds: str,
    engine: str,
    as_json: bool,
) -> None:
    """Stream whole trials of FILES (trials/1 .npz, or folders of them) through the pipeline.

    A fall counts as detected, and a daily activity as a false alarm, if a pre-alarm is raised in
    the trial; unscored are trials too short or broken for one window to be judged. The delay is
    from the peak of |acceleration| to the pre-alarm; early counts falls whose pre-alarm came more
    than 0.5 s before it. Scoring a bundle on subjects it was trained on gives a warning.
    """
    from edge_rt.bundle import open_bundle
    from edge_rt.evaluation.fall import cross_validate_fall, evaluate_fall

    number = _folds(folds)
    paths = trial_files(files)
    opened = open_bundle(bundle, engine)
    with output.progress("folds" if cross_validate else "trials") as advance:
        if cross_validate:
            result = cross_validate_fall(paths, opened, folds=number, progress=advance)
        else:
            result = evaluate_fall(paths, opened, progress=advance)
    for warning in result["warnings"]:
        output.warn(warning)
    if as_json:
        output.print_json(result)
        return
    tables = {key: result.pop(key) for key in ("per_activity", "per_subject")}
    output.print_tree(result)
    for name, table in tables.items():
        click.echo()
        rows = [[key, *row.values()] for key, row in table.items()]
        output.print_table([name.removeprefix("per_"), *next(iter(table.values()), {})], rows)


@evaluate.command()
@click.argument("pairs", type=options.FILE)
@options.detect
@options.embed
@options.engine
@options.as_json
def face(pairs: Path, detect: str, embed: str, engine: str, as_json: bool) -> None:
    """Verify the picture pairs of PAIRS (csv: a,b,same; paths relative to it)."""
    from edge_rt.bundle import open_bundle
    from edge_rt.evaluation.face import evaluate_face

    models = open_bundle(detect, engine), open_bundle(embed, engine)
    with output.progress("pictures") as advance:
        result = evaluate_face(pairs, *models, progress=advance)
    _print(result, as_json)


@evaluate.command()
@click.option("--faces", type=options.FILE, required=True, help="Pictures with one face each.")
@click.option("--no-faces", type=options.FILE, required=True, help="Pictures without any face.")
@options.detect
@options.engine
@options.as_json
def detector(faces: Path, no_faces: Path, detect: str, engine: str, as_json: bool) -> None:
    """Count faces found in one folder of pictures and false ones in another."""
    from edge_rt.bundle import open_bundle
    from edge_rt.evaluation.face import evaluate_detector

    with output.progress("pictures") as advance:
        result = evaluate_detector(faces, no_faces, open_bundle(detect, engine), progress=advance)
    _print(result, as_json)


def trial_files(paths: tuple[Path, ...]) -> list[Path]:
    """The files themselves, and every .npz in folders. Raises InputError for an empty folder."""
    found = []
    for path in paths:
        inside = sorted(path.rglob("*.npz")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: no .npz in this folder; name a folder of trials/1 files")
        found += inside
    return found


def _folds(text: str) -> int | None:
    if text == "loso":
        return None
    if not text.isdecimal() or int(text) < 2:
        raise click.BadParameter(f"{text!r} is neither loso nor a number above 1", None, None)
    return int(text)


def _print(result: Mapping[str, Any], as_json: bool) -> None:
    for warning in result.get("warnings", ()):
        output.warn(warning)
    (output.print_json if as_json else output.print_tree)(result)
