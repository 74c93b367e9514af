"""What the daemon and its trust child say to each other."""

from __future__ import annotations

import msgspec

from edge_rt.core.catalog import Catalog, Release


class Refresh(msgspec.Struct, frozen=True, tag=True):
    """Verify the metadata in the folder `mirror` into the folder `trusted`; `root` is the file that
    the device was given when it joined the fleet."""

    root: str
    trusted: str
    mirror: str


class Unpack(msgspec.Struct, frozen=True, tag=True):
    """Compare the sha256 of the file `blob`, and unpack it into `folder`; `reserve_bytes` of the
    disk stay free."""

    blob: str
    folder: str
    release: Release
    reserve_bytes: int


class Look(msgspec.Struct, frozen=True, tag=True):
    """Read the file `root`, and what is trusted since in the folder `trusted`; change nothing."""

    root: str
    trusted: str


Task = Refresh | Unpack | Look


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """error: why not, empty if all is well; kind: its class of core.errors, if it is one.

    missing       of a refused Refresh: the file that was not in the mirror
    root_version, version, expires_s  of a Refresh: newest root and timestamp, and the timestamp's
                  end in Unix seconds. Of a Look: newest root and its end
    """

    error: str = ""
    kind: str = ""
    missing: str = ""
    root_version: int = 0
    version: int = 0
    expires_s: float = 0.0
    catalog: Catalog | None = None
