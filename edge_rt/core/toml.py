"""Writing TOML; the standard library only reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def write_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """TOML of a nested table of plain values: scalars and flat lists first, then the sub-tables.

    A None is left out: TOML has no null. JSON's strings, numbers, booleans and lists of them are
    valid TOML, so values are written as JSON.
    """
    lines = [
        f"{_key(key)} = {msgspec.json.encode(value).decode()}"
        for key, value in table.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    for key, value in table.items():
        if isinstance(value, Mapping):
            section = f"{prefix}{_key(key)}"
            lines += ["", f"[{section}]", write_toml(value, f"{section}.").strip("\n")]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else f'"{key}"'
