"""Where releases come from, and who hears of them: what the update service is put together by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from edge_rt.core.catalog import Catalog, Release


class Listener(NamedTuple):
    """Who hears of it, each on the fetching thread and returning at once.

    catalog  a newly verified catalog; also at the start the one verified last
    staged   a release lies strictly unpacked in a folder, all of it as signed
    failed   (None, reason): metadata or chunks do not come or are not right, which is the way's
             fault; it is tried again without being told. (release, reason): what was signed cannot
             be used; it is not wanted any more
    """

    catalog: Callable[[Catalog], None]
    staged: Callable[[Release, Path], None]
    failed: Callable[[Release | None, str], None]


class Source(Protocol):
    """Where releases come from; runtime.update_fetch.Fetcher is one. From any thread."""

    def start(self, listener: Listener) -> None: ...

    def want(self, release: Release | None) -> None:
        """Fetch this release and nothing else; None: nothing. Said again it changes nothing."""
        ...

    def discard(self, sha256: str) -> None:
        """Forget what was fetched of a release, its staging folder included."""
        ...

    def status(self) -> dict[str, Any]:
        """JSON-able view: progress and counters."""
        ...

    def stop(self, timeout_s: float) -> bool:
        """End; False if the thread did not come back in time."""
        ...
