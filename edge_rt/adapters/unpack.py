"""Bundles as one zip: packing the same bytes each time, unpacking strictly.

What is unpacked was signed, but by a publisher who may have been careless or robbed: nothing here
trusts a name, a size or a count. Runs in a child process (edge_rt.trust_child).
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edge_rt.core.catalog import MAX_BUNDLE_BYTES, Release
from edge_rt.core.errors import ManifestError, StorageError
from edge_rt.core.manifest import MANIFEST_NAME, Manifest, parse_manifest, version_tuple

# A bundle is a manifest, a model or two, golden vectors and a card.
MAX_FILES = 32
MAX_MANIFEST_BYTES = 64 * 1024  # as adapters.bundle_files reads it
# Of what is unpacked to what came: float weights and text shrink to a third, never to this; deflate
# itself goes up to 1,032 (RFC 1951: 258 bytes in 2 bits).
MAX_RATIO = 20
_ALLOWED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile and zlib raise for bytes that are none of theirs. Names that are no UTF-8 and lengths
# out of range are ValueErrors; a directory of a million entries is more than this process may hold.
_UNSOUND = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, OverflowError, MemoryError),
)
_ENCRYPTED = 0x1  # general purpose bit 0 (APPNOTE.TXT 4.4.4)
_BLOCK = 64 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def pack(folder: Path, manifest: Manifest) -> bytes:
    """The zip of a checked bundle folder; the same files give the same bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in (MANIFEST_NAME, *sorted(manifest.files)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, (folder / name).read_bytes(), compresslevel=9)
    return target.getvalue()


class Limits(NamedTuple):
    """runtime_version: of this edge_rt; reserve_bytes: of the disk that stay free."""

    runtime_version: str
    reserve_bytes: int


def unpack(blob: Path, folder: Path, release: Release, limits: Limits) -> None:
    """Unpack `blob` into `folder`, which is there, whole and durable, only once all is right.

    Raises ManifestError for whatever is not as a bundle of this release must be, StorageError when
    the disk does not take it.
    """
    new = folder.with_name(folder.name + ".new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700, parents=True)
        with blob.open("rb") as handle:
            whole = hashlib.file_digest(handle, "sha256").hexdigest()
        if whole != release.sha256:
            raise ManifestError(f"{release}: the sha256 of the whole is not the signed one")
        _unpack(blob, new, release, limits)
        _sync(new)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(new, folder)
        _sync(folder.parent)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}; free or mend the disk") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _unpack(blob: Path, folder: Path, release: Release, limits: Limits) -> None:
    try:
        with zipfile.ZipFile(blob) as archive:
            entries = _checked(archive, str(release), release.size)
            text = _read(archive, entries[MANIFEST_NAME], MAX_MANIFEST_BYTES)
            manifest = parse_manifest(text, f"{release}: {MANIFEST_NAME}")
            check_release(manifest, release, limits.runtime_version)
            _check_room(folder, entries.values(), limits.reserve_bytes)
            if MANIFEST_NAME in manifest.files:
                raise ManifestError(f"{release}: {MANIFEST_NAME} cannot list itself; drop it")
            if surplus := entries.keys() - {MANIFEST_NAME, *manifest.files}:
                raise ManifestError(f"{release}: {min(surplus)!r} is not in the manifest's [files]")
            (folder / MANIFEST_NAME).write_bytes(text)
            for name, file in manifest.files.items():
                if name not in entries:
                    raise ManifestError(f"{release}: {name} is missing")
                _extract(archive, entries[name], folder / name, file.size, file.sha256, release)
    except _UNSOUND as error:
        raise ManifestError(f"{release}: no sound zip ({error}); publish it anew") from None


def check_release(manifest: Manifest, release: Release, runtime_version: str) -> None:
    """Raises ManifestError unless the bundle is the one that was signed, for this runtime."""
    task = manifest.__struct_config__.tag
    for what, found, signed in (
        ("task", task, release.task),
        ("name", manifest.name, release.name),
        ("version", manifest.version, release.version),
        ("security_epoch", manifest.security_epoch, release.security_epoch),
        ("minimum_runtime", manifest.minimum_runtime, release.minimum_runtime),
    ):
        if found != signed:
            raise ManifestError(f"{release}: {what} is {found!r}, {signed!r} was signed")
    if version_tuple(manifest.minimum_runtime) > version_tuple(runtime_version):
        raise ManifestError(f"{release}: needs edge_rt {manifest.minimum_runtime}; upgrade edge_rt")


def _checked(archive: zipfile.ZipFile, where: str, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, after all that can be said without unpacking one."""
    listed = archive.infolist()
    if len(listed) > MAX_FILES:
        raise ManifestError(f"{where}: {len(listed)} files; at most {MAX_FILES} are accepted")
    entries: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for entry in listed:
        # zipfile cuts names at a zero byte and turns separators: judge what stands in the file.
        name = entry.orig_filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ManifestError(f"{where}: {name!r} is a link or another thing that is no file")
        if not _plain(name):
            raise ManifestError(f"{where}: {name!r} is no plain file name")
        if name.casefold() in seen:
            raise ManifestError(f"{where}: {name!r} is there twice (or differs by case only)")
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _ALLOWED:
            raise ManifestError(f"{where}: {name!r} is packed in a way that is not accepted")
        seen.add(name.casefold())
        entries[name] = entry
    if MANIFEST_NAME not in entries:
        raise ManifestError(f"{where}: no {MANIFEST_NAME} in it")
    total = sum(entry.file_size for entry in listed)
    if total > min(MAX_BUNDLE_BYTES, MAX_RATIO * size):
        raise ManifestError(f"{where}: {size} bytes that would become {total}")
    # Entries that share packed bytes make a bomb of few bytes without a ratio that shows.
    if sum(entry.compress_size for entry in listed) > size:
        raise ManifestError(f"{where}: files that overlap in the zip")
    return entries


def _check_room(folder: Path, entries: Iterable[zipfile.ZipInfo], reserve_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    needed = sum(entry.file_size for entry in entries) + reserve_bytes
    if free < needed:
        raise StorageError(
            f"{folder.parent}: {free >> 20} MB free, {needed >> 20} MB are needed; free disk space"
        )


def _plain(name: str) -> bool:
    return (
        0 < len(name) <= 128
        and name.isascii()
        and (name[0].isalnum() or name[0] == "_")
        and all(character.isalnum() or character in "._-" for character in name)
    )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(entry) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ManifestError(f"{entry.filename}: over {limit} bytes; this is no manifest")
    return data


def _extract(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    path: Path,
    size: int,
    sha256: str,
    release: Release,
) -> None:
    digest, left = hashlib.sha256(), size
    with archive.open(entry) as source, path.open("xb") as target:
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                break
            digest.update(block)
            target.write(block)
    if left:
        raise ManifestError(f"{release}: {path.name} has not the {size} bytes of the manifest")
    if digest.hexdigest() != sha256:
        raise ManifestError(f"{release}: {path.name} has another sha256 than in the manifest")


def _sync(folder: Path) -> None:
    for path in [*folder.glob("*"), folder]:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
