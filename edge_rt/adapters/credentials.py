"""Secrets: systemd credentials, else files of mode 0600 (systemd.exec(5), LoadCredential=)."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from edge_rt.core.errors import CredentialError

# Passwords, PEM keys with a chain: none comes near.
MAX_SECRET_BYTES = 64 * 1024


def credential_path(name: str, environment: Mapping[str, str] | None = None) -> Path:
    """Where a secret lies: a name without a slash is a systemd credential, else it is a path.

    Raises CredentialError when it is absent, or a file that others may read.
    """
    if "/" in name:
        path = Path(name)
    else:
        folder = (os.environ if environment is None else environment).get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise CredentialError(
                f"credential {name!r}: not started by systemd with credentials; "
                "name a file by its path instead"
            )
        path = Path(folder, name)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}") from None
    # systemd hands out its own read-only copies, 0400 or 0440.
    if "/" in name and mode & 0o077:
        raise CredentialError(f"{path}: mode {mode:04o} lets others read it; chmod 600 {path}")
    return path


def read_secret(name: str, environment: Mapping[str, str] | None = None) -> bytes:
    """A secret's bytes without the line end. Raises CredentialError."""
    path = credential_path(name, environment)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_SECRET_BYTES:
        raise CredentialError(f"{path}: over {MAX_SECRET_BYTES} bytes; that is no secret")
    return data.rstrip(b"\r\n")
