"""Damaged databases are kept, and out of the way."""

from __future__ import annotations

import os
from pathlib import Path

# A dying card must not fill itself with damaged copies.
_MAX_ASIDE = 4


def set_aside(path: Path) -> str:
    """Rename the database and what belongs to it to `<name>.damaged-<n>`; the new name."""
    taken = sorted(
        int(old.suffix.removeprefix(".damaged-"))
        for old in path.parent.glob(f"{path.name}.damaged-*")
        if old.suffix.removeprefix(".damaged-").isdigit()
    )
    for number in taken[: max(0, len(taken) - _MAX_ASIDE + 1)]:
        for ending in ("", "-wal", "-shm"):
            path.with_name(f"{path.name}.damaged-{number}{ending}").unlink(missing_ok=True)
    name = f"{path.name}.damaged-{taken[-1] + 1 if taken else 1}"
    # The main file first: a kill in between leaves a WAL, which SQLite ignores without its file.
    for ending in ("", "-wal", "-shm"):
        old = Path(f"{path}{ending}")
        if old.exists():
            os.rename(old, path.with_name(name + ending))
    return name
