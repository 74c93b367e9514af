"""Which metadata files a device lets come to it: names, sizes and numbers, all bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_rt.core.catalog import CATALOG_NAME, MAX_CATALOG_BYTES
from edge_rt.core.errors import InputError

ROLES = ("root", "targets", "snapshot", "timestamp")
INDEX_NAME = "index.json"
TIMESTAMP_NAME = "timestamp.json"
# A key with its signature takes some 250 bytes; ten keys a role are 10 KiB of root. The others name
# one file each. Far below what the broker takes, so that a wrong one costs little.
MAX_BYTES = {
    "root": 32 * 1024,
    "timestamp": 8 * 1024,
    "snapshot": 8 * 1024,
    "targets": 8 * 1024,
    "catalog": MAX_CATALOG_BYTES,
    "index": 16 * 1024,
}
# Keys change every few years; a device that was away for 32 changes is set up anew.
MAX_ROOTS = 32
_NAMES = re.compile(
    r"(?:(?P<version>[1-9]\d{0,8})\.(?P<role>root|snapshot|targets)"
    r"|(?P<hash>[0-9a-f]{64})\.catalog|(?P<stamp>timestamp)|(?P<index>index))\.json"
)


class Index(msgspec.Struct, frozen=True):
    """Payload of `models/metadata/index.json`, unsigned: what there is, and how long each is. It
    only saves a device from asking in vain; what it says is never trusted."""

    files: Annotated[dict[str, Annotated[int, Meta(ge=0)]], Meta(max_length=MAX_ROOTS + 8)]


def decode_index(data: bytes) -> Index:
    """Raises InputError for what is none."""
    if len(data) > MAX_BYTES["index"]:
        raise InputError(f"{INDEX_NAME}: {len(data)} bytes; {MAX_BYTES['index']} are taken")
    try:
        return msgspec.json.decode(data, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{INDEX_NAME}: {error}") from None


def limit_of(name: str) -> int | None:
    """How long a file of this name may be; None: no file of ours is named so."""
    match = _NAMES.fullmatch(name)
    if match is None:
        return None
    kind = match["role"] or match["stamp"] or match["index"] or CATALOG_NAME.removesuffix(".json")
    return MAX_BYTES[kind]


def expected(listed: Iterable[str], root_version: int) -> list[str]:
    """The files to ask for: the next root always, of what is listed that which may be new.

    root_version: the newest root that the device trusts.
    """
    newest: dict[str, int] = {}
    catalogs: list[str] = []
    roots: set[int] = {root_version + 1}
    for name in listed:
        match = _NAMES.fullmatch(name)
        if match is None:
            continue
        if match["hash"]:
            catalogs.append(name)
        elif match["role"] == "root":
            roots.add(int(match["version"]))
        elif match["role"]:
            newest[match["role"]] = max(newest.get(match["role"], 0), int(match["version"]))
    wanted = [n for n in sorted(roots) if root_version < n <= root_version + MAX_ROOTS]
    named = [f"{version}.{role}.json" for role, version in newest.items()]
    return [*(f"{n}.root.json" for n in wanted), TIMESTAMP_NAME, *named, *catalogs[:2]]
