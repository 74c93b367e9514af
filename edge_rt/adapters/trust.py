"""Signed metadata by The Update Framework (python-tuf): how a device checks it.

Roles, rules and file names are those of the TUF specification (v1.0, with consistent snapshots);
adapters.signing is the publisher's side. Runs in a child process (edge_rt.trust_child): the daemon
never imports this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from securesystemslib.exceptions import StorageError as TufStorageError
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge_rt.core.catalog import CATALOG_NAME, MAX_CATALOG_BYTES
from edge_rt.core.mirror import MAX_BYTES, MAX_ROOTS, ROLES


class Refreshed(NamedTuple):
    """What was verified. expires_s: of the timestamp, Unix seconds."""

    root_version: int
    timestamp_version: int
    expires_s: float
    catalog: bytes


class Refused(Exception):
    """Metadata was not accepted; `missing` is the file that was not there, if that is why."""

    def __init__(self, reason: str, missing: str = "") -> None:
        super().__init__(reason)
        self.missing = missing


class _Mirror(FetcherInterface):
    """Files of a folder as if they were downloaded."""

    BASE = "mirror:///"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.missing = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(self.BASE)
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            self.missing = name
            raise DownloadHTTPError(f"{name} is not there", 404) from None
        return iter((data,))


def refresh(root: bytes, trusted: Path, mirror: Path) -> Refreshed:
    """Verify what lies in `mirror` against `root` and what was trusted before.

    root     the metadata file that the device was given when it joined the fleet
    trusted  folder of verified metadata; it is brought forward
    Raises Refused with a one-line reason.
    """
    limits = UpdaterConfig(
        max_root_rotations=MAX_ROOTS,
        max_delegations=0,  # the catalog is signed by `targets` itself
        root_max_length=MAX_BYTES["root"],
        timestamp_max_length=MAX_BYTES["timestamp"],
        snapshot_max_length=MAX_BYTES["snapshot"],
        targets_max_length=MAX_BYTES["targets"],
    )
    source = _Mirror(mirror)
    base = source.BASE
    try:
        trusted.mkdir(parents=True, exist_ok=True)
        updater = Updater(str(trusted), base, str(trusted), base, source, limits, bootstrap=root)
        updater.refresh()
        target = updater.get_targetinfo(CATALOG_NAME)
        if target is None:
            raise Refused(f"the signed targets do not list {CATALOG_NAME}")
        if target.length > MAX_CATALOG_BYTES:
            raise Refused(f"{CATALOG_NAME} of {target.length} bytes; {MAX_CATALOG_BYTES} are taken")
        catalog = Path(updater.download_target(target, str(trusted / CATALOG_NAME))).read_bytes()
        held = {name: Metadata.from_file(str(trusted / f"{name}.json")) for name in ROLES}
    except DownloadHTTPError:
        raise Refused(f"{source.missing} is not there", source.missing) from None
    except (DownloadError, RepositoryError, TufStorageError, OSError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from None
    _sync(trusted)
    stamp = held["timestamp"].signed
    return Refreshed(held["root"].signed.version, stamp.version, stamp.expires.timestamp(), catalog)


def newest_root(root: bytes, trusted: Path) -> tuple[int, float]:
    """Version and end (Unix seconds) of the newest root that is trusted: the given one, or one that
    came since. Changes nothing. Raises Refused for one that is none, or is not signed by itself."""
    held = trusted / "root.json"
    try:
        roots = [Metadata[Root].from_bytes(data) for data in (root, *_bytes_of(held))]
        for each in roots:
            each.verify_delegate(Root.type, each)
    except (RepositoryError, OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from None
    newest = max((each.signed for each in roots), key=lambda signed: signed.version)
    return newest.version, newest.expires.timestamp()


def _bytes_of(path: Path) -> list[bytes]:
    return [path.read_bytes()] if path.exists() else []


def _sync(folder: Path) -> None:
    """python-tuf replaces files whole but leaves it to the system when they reach the disk."""
    for path in [*folder.rglob("*.json"), folder / "root_history", folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
