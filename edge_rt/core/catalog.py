"""The catalog: which releases there are and who may take them. The one file that a fleet signs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_rt.core.errors import ManifestError
from edge_rt.core.manifest import Name, Sha256, Struct, Version, version_tuple
from edge_rt.core.rollout import includes

CATALOG_NAME = "catalog.json"
SCHEMA = 1
# It travels as one retained message, like a chunk; the shipped broker takes packets of 128 KiB.
MAX_CATALOG_BYTES = 124 * 1024
CHUNK_BYTES = 64 * 1024
MAX_CHUNK_BYTES = 124 * 1024
# As large as one file of a bundle may be (core.manifest).
MAX_BUNDLE_BYTES = 64 * 1024 * 1024

Task = Literal["fall", "face-detect", "face-embed"]
# active: devices within the rollout take it. paused: who has it keeps it, nobody else takes it.
# aborted: who has it on trial goes back. withdrawn: who has it at all goes back.
State = Literal["active", "paused", "aborted", "withdrawn"]
ON_OFFER = ("active", "paused")


class Rollout(Struct, frozen=True):
    """percent: share of the fleet that takes the release. seed: fixed for a release, see
    core.rollout."""

    percent: Annotated[float, Meta(ge=0, le=100)]
    seed: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class Release(Struct, frozen=True):
    """A bundle as it travels: one zip, cut into chunks.

    sha256, size  of the zip, which is named by its sha256
    chunk_bytes   size of every chunk but the last
    chunks        sha256 of each chunk, in order; empty once nobody may take it any more
    security_epoch, minimum_runtime  as in the bundle's manifest
    """

    name: Name
    task: Task
    version: Version
    sha256: Sha256
    size: Annotated[int, Meta(ge=1, le=MAX_BUNDLE_BYTES)]
    chunk_bytes: Annotated[int, Meta(ge=1024, le=MAX_CHUNK_BYTES)]
    chunks: tuple[Sha256, ...]
    security_epoch: Annotated[int, Meta(ge=0, le=2**31)]
    minimum_runtime: Version
    rollout: Rollout
    state: State = "active"

    def __post_init__(self) -> None:
        expected = -(-self.size // self.chunk_bytes) if self.state in ON_OFFER else 0
        if len(self.chunks) not in (expected, -(-self.size // self.chunk_bytes)):
            raise ValueError(f"{self.size} bytes are not {len(self.chunks)} chunks")

    def length(self, chunk: int) -> int:
        """Bytes of one chunk, counted from 0."""
        return min(self.chunk_bytes, self.size - chunk * self.chunk_bytes)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Catalog(Struct, frozen=True):
    """Content of the TUF target `catalog.json`."""

    schema: int = SCHEMA
    releases: tuple[Release, ...] = ()

    def __post_init__(self) -> None:
        names = [(release.name, release.version) for release in self.releases]
        hashes = [release.sha256 for release in self.releases]
        for kind in (names, hashes):
            if len(set(kind)) != len(kind):
                raise ValueError("a release is listed twice")

    def find(self, sha256: str) -> Release | None:
        """The release whose zip has this hash; None if it is not listed (any more)."""
        return next((release for release in self.releases if release.sha256 == sha256), None)


def decode_catalog(data: bytes) -> Catalog:
    """Raises ManifestError for what is too large or no catalog."""
    if len(data) > MAX_CATALOG_BYTES:
        raise ManifestError(
            f"{CATALOG_NAME}: {len(data)} bytes, at most {MAX_CATALOG_BYTES} are accepted; "
            "forget releases that nobody runs"
        )
    try:
        catalog = msgspec.json.decode(data, type=Catalog)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{CATALOG_NAME}: {error}; publish it anew") from None
    if catalog.schema != SCHEMA:
        raise ManifestError(
            f"{CATALOG_NAME}: schema {catalog.schema} is not {SCHEMA}; upgrade edge_rt"
        )
    return catalog


def encode_catalog(catalog: Catalog) -> bytes:
    """The bytes to sign. Raises ManifestError when they are more than a device accepts."""
    data = msgspec.json.encode(catalog)
    decode_catalog(data)
    return data


def choose(
    catalog: Catalog,
    task: str,
    device: str,
    runtime_version: str,
    *,
    name: str = "",
    security_epoch: int = 0,
    refused: Collection[str] = (),
) -> Release | None:
    """The release that a device should run for a task; None if there is none for it.

    It is the newest active one whose rollout includes the device, which this runtime can run.

    device          config.device.name
    name            only releases of this bundle name (a wrist's model is none for the waist);
                    empty: any
    security_epoch  the device's floor: releases below it are passed over
    refused         sha256 of releases that did not prove themselves on this device
    Raises ManifestError for a runtime version that is none.
    """
    runtime = version_tuple(runtime_version)
    fitting = [
        release
        for release in catalog.releases
        if release.state == "active"
        and release.task == task
        and name in ("", release.name)
        and release.security_epoch >= security_epoch
        and release.sha256 not in refused
        and version_tuple(release.minimum_runtime) <= runtime
        and includes(release.rollout.seed, device, release.rollout.percent)
    ]
    return max(fitting, key=lambda release: version_tuple(release.version), default=None)
