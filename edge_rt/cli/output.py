"""What commands print with: results on stdout, progress on a terminal's stderr, nothing else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
import msgspec

Advance = Callable[[int, int | None], None]

MAX_ITEMS = 12  # of a list in one cell; --json has them all


def say(line: str) -> None:
    """One line on stdout; above the bar of `progress` where both go to one terminal."""
    # Named, else click finds its own way round what rich has put in the place of stdout.
    click.echo(line, file=sys.stdout)


def print_json(value: Any) -> None:
    """One compact JSON line; NaN and infinity become null, numpy values plain numbers and lists."""
    click.echo(msgspec.json.encode(value, enc_hook=_plain))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], indent: int = 0) -> None:
    """Left-aligned columns; columns of numbers are aligned right."""
    if not rows:
        return
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(isinstance(row[k], int | float) for row in rows) for k in range(len(headers))]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for line in ([h.upper() for h in headers], *cells):
        aligned = zip(line, widths, numeric, strict=True)
        text = "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in aligned)
        say(" " * indent + text.rstrip())


def print_tree(values: Mapping[str, Any], indent: int = 0) -> None:
    """`key  value` lines; a nested mapping is indented below its key, like ones form a table."""
    width = max((len(str(key)) for key in values), default=0)
    for key, value in values.items():
        pad = " " * indent
        if isinstance(value, Mapping) and value:
            columns = _columns(value)
            if columns:
                rows = [[name, *row.values()] for name, row in value.items()]
                print_table([str(key), *columns], rows, indent)
                continue
            say(f"{pad}{key}")
            print_tree(value, indent + 2)
        else:
            say(f"{pad}{str(key).ljust(width)}  {_cell(value)}".rstrip())


@contextlib.contextmanager
def progress(label: str, *, json_lines: bool = False) -> Iterator[Advance]:
    """Yields `advance(done, total)`; draws a bar when stderr is a terminal, else does nothing.

    total: None while nobody knows; json_lines: they are printed meanwhile, and have a terminal for
    themselves.
    """
    here = sys.stdout.isatty()
    if not sys.stderr.isatty() or (here and json_lines):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # While it draws, rich takes over what is printed, to put it above the bar: results that go to
    # a file must stay out of its hands.
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=here) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def warn(message: str) -> None:
    """One line on stderr that is not an error."""
    click.echo(f"edge-rt: warning: {message}", err=True)


def _columns(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that all values share, if they are flat mappings with the same keys."""
    rows = list(value.values())
    if not all(isinstance(row, Mapping) and row for row in rows):
        return ()
    kinds = {tuple(row) for row in rows}
    flat = not any(isinstance(cell, Mapping) for row in rows for cell in row.values())
    return kinds.pop() if flat and len(kinds) == 1 and len(rows) > 1 else ()


def _cell(value: object) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        more = f" and {len(value) - MAX_ITEMS} more" if len(value) > MAX_ITEMS else ""
        return (", ".join(map(_cell, value[:MAX_ITEMS])) or "-") + more
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_cell(part)}" for key, part in value.items())
    return str(value)


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, without importing numpy for commands that have none."""
    try:
        return value.tolist()
    except AttributeError:
        raise NotImplementedError(f"{type(value).__name__} is no JSON value") from None
