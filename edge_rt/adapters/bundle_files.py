"""Model bundles on disk: reading with every check that needs no engine, and writing."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import InputError, ManifestError
from edge_rt.core.manifest import MANIFEST_NAME, Manifest, parse_manifest
from edge_rt.core.toml import write_toml

MAX_MANIFEST_BYTES = 64 * 1024  # a manifest is a page or two of text


class BundleFiles(NamedTuple):
    """A bundle whose files are all there and have the hashes that the manifest names."""

    manifest: Manifest
    model: bytes
    folder: Path


def read_bundle(folder: Path) -> BundleFiles:
    """Read and check a bundle folder.

    Raises InputError when the folder or manifest is not there, ManifestError when the manifest is
    malformed or a file is missing, truncated or altered.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST_NAME} in it; name a bundle folder")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path}: over {MAX_MANIFEST_BYTES} bytes; this is no manifest")
    manifest = parse_manifest(path.read_bytes(), str(path))
    model = b""
    for name in manifest.files:
        content = _checked(folder / name, manifest.files[name].sha256, manifest.files[name].size)
        if name == manifest.model:
            model = content
    return BundleFiles(manifest, model, folder)


def _checked(path: Path, sha256: str, size: int) -> bytes:
    if not path.is_file() or path.is_symlink():
        raise ManifestError(f"{path}: missing, though the manifest lists it; reinstall the bundle")
    found = path.stat().st_size
    if found != size:
        raise ManifestError(
            f"{path}: {found} bytes, the manifest says {size} (truncated or altered); "
            "reinstall the bundle"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ManifestError(f"{path}: its sha256 differs from the manifest's; reinstall the bundle")
    return content


def read_golden(files: BundleFiles) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    """Golden inputs and outputs, each an array (cases, *tensor shape without the batch axis).

    Raises ManifestError when the file does not hold `input_0` and `output_0`, ....
    """
    path = files.folder / files.manifest.golden.file
    try:
        with np.load(path, allow_pickle=False) as arrays:
            named = {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ManifestError(f"{path}: not a readable .npz ({error}); rebuild the bundle") from None
    inputs = [named[k] for k in sorted(named) if k.startswith("input_")]
    outputs = [named[k] for k in sorted(named) if k.startswith("output_")]
    if len(inputs) != 1 or not outputs or len({len(a) for a in inputs + outputs}) != 1:
        raise ManifestError(f"{path}: needs input_0 and output_0.. with equally many cases")
    return inputs, outputs


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> Manifest:
    """Write `model.toml` for the files that lie in `folder`; fills in the `files` table.

    manifest: the keys of the manifest without `files`, as plain values.
    Returns the manifest as read back. Raises ManifestError when it would not be valid.
    """
    entries = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST_NAME and path.is_file():
            content = path.read_bytes()
            entries[path.name] = {
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
            }
    text = write_toml({**manifest, "files": entries})
    parsed = parse_manifest(text, str(folder / MANIFEST_NAME))
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return parsed
