"""TOML into frozen structs; what is wrong names the place, and the nearest valid key or choice."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from edge_rt.core.errors import EdgeRtError

# How msgspec words what it refuses; the path comes last, and not at all for the top level.
_AT = r"(?: - at `\$\.?(?P<path>[^`]*)`)?$"
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`" + _AT)
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`" + _AT)
_OTHER = re.compile(r"(?P<what>.*?)" + _AT, re.DOTALL)


def decode_toml(text: bytes | str, kind: Any, where: str, error: type[EdgeRtError]) -> Any:
    """Decode into `kind`, a strict struct or a union of tagged ones; `where` names the file.

    Raises `error` for malformed TOML, unknown or missing keys and values that do not fit.
    """
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as wrong:
        raise error(f"{where}: {explain(str(wrong), kind)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise error(f"{where}: not valid TOML: {wrong}") from None


def explain(message: str, kind: Any) -> str:
    """msgspec's message about a `kind`, with the remedy."""
    # Which entry of a table it was, msgspec does not tell.
    message = message.replace("[...]", "")
    if unknown := _UNKNOWN.fullmatch(message):
        key, path = unknown["key"], unknown["path"] or ""
        return f"unknown key {key!r} in {_section(path)}; {_nearest(key, _keys(kind, path))}"
    if missing := _MISSING.fullmatch(message):
        key, path = missing["key"], missing["path"] or ""
        choices = _choices(kind, f"{path}.{key}")
        remedy = f"choose {', '.join(choices)}" if choices else "add it"
        return f"{_section(path)} has no key {key!r}; {remedy}"
    other = _OTHER.fullmatch(message)
    assert other is not None  # it matches any text
    if other["path"] is None:
        return message
    choices = _choices(kind, other["path"])
    remedy = f"choose {', '.join(choices)}" if choices else "correct this value"
    return f"{other['path']}: {other['what']}; {remedy}"


def _section(path: str) -> str:
    return f"[{path}]" if path else "the top level"


def _nearest(key: str, valid: list[str]) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(key, valid, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"


def _keys(kind: Any, path: str) -> list[str]:
    """Names allowed in a section; for a choice of drivers, those of all of them."""
    types = _at(kind, path)
    names = {field.encode_name for t in types for field in msgspec.structs.fields(t)}
    tags = {tag for t in types if (tag := t.__struct_config__.tag_field)}
    return sorted(names | tags)


def _choices(kind: Any, path: str) -> list[str]:
    """The values of a key that tells structs apart (a driver), empty for any other key."""
    section, _, key = path.rpartition(".")
    configs = [t.__struct_config__ for t in _at(kind, section)]
    return [str(config.tag) for config in configs if config.tag_field == key]


def _at(kind: Any, path: str) -> list[type[msgspec.Struct]]:
    """The structs that may stand at `path`."""
    types = list(_structs(kind))
    for step in filter(None, re.sub(r"\[\d+\]", "", path).split(".")):
        fields = [field for t in types for field in msgspec.structs.fields(t)]
        types = [t for field in fields if field.encode_name == step for t in _structs(field.type)]
    return types


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Structs in a type: itself, or inside unions, tuples and tables."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for inner in typing.get_args(kind):
        yield from _structs(inner)
