"""core.catalog: strict, bounded, and what a device chooses from it."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from edge_rt.core.catalog import (
    MAX_CATALOG_BYTES,
    Catalog,
    Release,
    Rollout,
    choose,
    decode_catalog,
    encode_catalog,
)
from edge_rt.core.errors import ManifestError


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def release(version: str = "1.1.0", percent: float = 100, **more: Any) -> Release:
    chunks = tuple(digest(f"{version} {n}") for n in range(3))
    given: dict[str, Any] = {
        "name": "fall-waist",
        "task": "fall",
        "sha256": digest(version + str(more)),
        "size": 2500,
        "chunk_bytes": 1024,
        "chunks": chunks,
        "security_epoch": 1,
        "minimum_runtime": "0.1.0",
    }
    return Release(version=version, rollout=Rollout(percent, "seed"), **{**given, **more})


def chosen(*releases: Release, task: str = "fall", **more: Any) -> str | None:
    found = choose(Catalog(releases=releases), task, "dev1", "0.1.0.dev1", **more)
    return found.version if found else None


def test_it_comes_back_as_it_went() -> None:
    catalog = Catalog(releases=(release(), release("1.2.0", 10, state="paused")))
    assert decode_catalog(encode_catalog(catalog)) == catalog
    assert catalog.find(catalog.releases[1].sha256) is catalog.releases[1]
    assert catalog.find(digest("other")) is None


def test_lengths_of_chunks() -> None:
    assert [release().length(n) for n in range(3)] == [1024, 1024, 452]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"size": 10**9}, "size"),
        ({"chunk_bytes": 1}, "chunk_bytes"),
        ({"chunks": []}, "not 0 chunks"),
        ({"chunks": ["0" * 64] * 4}, "not 4 chunks"),
        ({"chunks": ["x", "y", "z"]}, "chunks"),
        ({"sha256": "../etc"}, "sha256"),
        ({"name": "../fall"}, "name"),
        ({"version": "1"}, "version"),
        ({"version": "9" * 5000 + ".0.0"}, "version"),  # int() would refuse it at each turn
        ({"version": "\u0661.0.0"}, "version"),
        ({"version": "1.0.0\n"}, "version"),
        ({"name": "fall-waist\n"}, "name"),
        ({"sha256": "0" * 64 + "\n"}, "sha256"),
        ({"task": "shell"}, "task"),
        ({"state": "great"}, "state"),
        ({"security_epoch": -1}, "security_epoch"),
        ({"rollout": {"percent": 101, "seed": "s"}}, "percent"),
        ({"rollout": {"percent": 10, "seed": "a/b"}}, "seed"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], complaint: str) -> None:
    entry = {**msgspec.to_builtins(release()), **change}
    with pytest.raises(ManifestError, match=complaint):
        decode_catalog(msgspec.json.encode({"schema": 1, "releases": [entry]}))


def test_what_is_no_catalog_is_refused() -> None:
    for data in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"schema": 2, "releases": []}'):
        with pytest.raises(ManifestError, match=r"catalog\.json"):
            decode_catalog(data)
    with pytest.raises(ManifestError, match="at most"):
        decode_catalog(b" " * (MAX_CATALOG_BYTES + 1))
    with pytest.raises(ManifestError, match="at most"):
        many = tuple(release(f"1.0.{n}", chunks=(digest("c"),) * 3) for n in range(400))
        encode_catalog(Catalog(releases=many))


def test_a_release_is_listed_once() -> None:
    entry = msgspec.to_builtins(release())
    for other in ({**entry, "sha256": digest("o")}, {**entry, "version": "9.9.9"}):
        with pytest.raises(ManifestError, match="twice"):
            decode_catalog(msgspec.json.encode({"schema": 1, "releases": [entry, other]}))


def test_chunks_may_be_gone_once_nobody_may_take_it() -> None:
    assert release(state="withdrawn", chunks=()).chunks == ()
    with pytest.raises(ValueError, match="not 0 chunks"):
        release(state="paused", chunks=())


def test_the_newest_by_number_is_chosen() -> None:
    assert chosen(release("1.9.0"), release("1.10.0"), release("1.2.0")) == "1.10.0"
    assert chosen() is None


@pytest.mark.parametrize("state", ["paused", "aborted", "withdrawn"])
def test_only_active_ones_are_chosen(state: str) -> None:
    assert chosen(release("1.0.0"), release("2.0.0", state=state)) == "1.0.0"


def test_each_reason_to_pass_one_over() -> None:
    old = release("1.0.0")
    assert chosen(old, release("2.0.0", percent=0)) == "1.0.0"
    assert chosen(old, release("2.0.0", minimum_runtime="0.2.0")) == "1.0.0"
    assert chosen(old, release("2.0.0", security_epoch=0), security_epoch=1) == "1.0.0"
    assert chosen(old, release("2.0.0", name="fall-wrist"), name="fall-waist") == "1.0.0"
    assert chosen(old, release("2.0.0", task="face-embed")) == "1.0.0"
    new = release("2.0.0")
    assert chosen(old, new, refused={new.sha256}) == "1.0.0"
    assert chosen(old, new) == "2.0.0"
