"""Writing TOML; the standard library only reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def write_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """TOML of a nested table of plain values: scalars and flat lists first, then the sub-tables.

    A list of tables becomes an array of tables.

    A None is left out: TOML has no null. JSON's strings, numbers, booleans and lists of them are
    valid TOML, so values are written as JSON.
    """
    lines = [
        f"{_key(key)} = {msgspec.json.encode(value).decode()}"
        for key, value in table.items()
        if value is not None and not isinstance(value, Mapping) and not _tables(value)
    ]
    for key, value in table.items():
        section = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            lines += ["", f"[{section}]", write_toml(value, f"{section}.").strip("\n")]
        for each in value if _tables(value) else ():
            lines += ["", f"[[{section}]]", write_toml(each, f"{section}.").strip("\n")]
    return "\n".join(lines) + "\n"


def _tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else f'"{key}"'
