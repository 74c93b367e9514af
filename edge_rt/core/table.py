"""State machines that are tables, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def markdown(table: Mapping[Any, Mapping[Any, str]], events: Iterable[Any]) -> str:
    """A row a state, a column an event, in each cell the state it leads to."""
    columns = list(events)
    lines = ["| state | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for state, row in table.items():
        lines.append(f"| {state} | " + " | ".join(row.get(event, "") for event in columns) + " |")
    return "\n".join(lines)
