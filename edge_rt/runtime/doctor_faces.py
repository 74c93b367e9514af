"""The doctor's look at the enrolled faces: their key, and whether it opens them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.templates import STORE_NAMES, load_key
from edge_rt.bundle import locate
from edge_rt.core.config import Config
from edge_rt.core.errors import EdgeRtError
from edge_rt.core.manifest import EmbedManifest
from edge_rt.runtime.check import Check, failed


def check_template_key(
    config: Config, environment: Mapping[str, str] = os.environ
) -> Iterator[Check]:
    """The key of the face templates is where the configuration says, for nobody else to read."""
    key, name = config.faces.template_key, "template key"
    if not config.faces.enabled:
        yield Check(name, "ok", "face unlock is off")
        return
    if not key:
        found = "made at first use and kept beside the templates"
        remedy = "for a key of its own use a systemd credential: faces.template_key"
        yield Check(name, "warning", found, remedy)
        return
    if _out_of_reach(key, environment):
        found = f"credential {key!r}: only the systemd service is given credentials"
        yield Check(name, "warning", found, "run doctor inside the service, or name a file")
        return
    path = Path(key) if "/" in key else Path(environment["CREDENTIALS_DIRECTORY"], key)
    if not path.exists():
        yield Check(name, "failed", f"{path} is missing", "create it, or correct the config")
        return
    try:
        load_key(key, Path(config.runtime.state_dir), environment)
    except EdgeRtError as error:
        yield failed(name, str(error), "give the key that the templates were made with")
    else:
        yield Check(name, "ok", f"{path} has mode {path.stat().st_mode & 0o777:04o}")


def check_templates(
    config: Config, status: dict[str, Any] | None, environment: Mapping[str, str] = os.environ
) -> Iterator[Check]:
    """The enrolled faces can be read back; a running daemon has done so and names its problems."""
    from edge_rt.runtime.face_templates import open_templates

    name, folder = "templates", Path(config.runtime.state_dir)
    key = config.faces.template_key
    if not config.faces.enabled or status is not None or _out_of_reach(key, environment):
        return
    # Looking must not make a key, as opening does where neither key nor templates are.
    if not any((folder / store).exists() for store in STORE_NAMES):
        yield Check(name, "ok", "nobody is enrolled yet")
        return
    manifest = read_bundle(locate(config.faces.embed)).manifest
    if not isinstance(manifest, EmbedManifest):
        found = f"{config.faces.embed} is no face embedder"
        yield Check(name, "failed", found, "correct faces.embed in the config")
        return
    try:
        persons = open_templates(folder, config.faces, manifest, environment).persons()
    except EdgeRtError as error:
        yield failed(name, str(error), "restore a backup, or enrol anew")
    else:
        yield Check(name, "ok", f"{len(persons)} enrolled, their templates open with the key")


def _out_of_reach(key: str, environment: Mapping[str, str]) -> bool:
    """A systemd credential, and we are not the service."""
    return bool(key) and "/" not in key and "CREDENTIALS_DIRECTORY" not in environment
