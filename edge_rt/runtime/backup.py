"""Backup, restore and factory reset of the state folder.

A backup is a .tar.gz: `manifest.json` first (format, version, SHA-256 and size of each file), then
the files. It holds the template key, if that is in the state folder: keep it as you keep the key.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

from edge_rt import __version__
from edge_rt.adapters.eventreader import (
    EventReader,
    check_database,
    copy_database,
    mark_restored,
)
from edge_rt.adapters.statedir import LOCK_NAME, StateDir
from edge_rt.adapters.statefile import StateFile
from edge_rt.adapters.templates import KEY_NAME
from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.remote_command import Memory, merged
from edge_rt.runtime.places import (
    COMMANDS_NAME,
    EVENTS_NAME,
    FACES_NAME,
    FALL_NAME,
    STATE_FILES,
    UNLOCK_NAME,
)
from edge_rt.runtime.restoring import (
    MANIFEST_NAME,
    READY,
    Entry,
    Manifest,
    finish_restore,
    sync_folder,
)

FORMAT = 1
JSON_FILES = (FALL_NAME, UNLOCK_NAME, FACES_NAME, COMMANDS_NAME)
MAX_MANIFEST_BYTES = 64 * 1024
# The event log's own upper bound (runtime.event_log_max_mb) and some slack.
MAX_FILE_BYTES = 4200 * 1024 * 1024
_STAGING = "restore.new"
_CHUNK = 1024 * 1024


Report = dict[str, Any]  # goes to the person or to a program as JSON


def backup(state: Path, target: Path) -> Report:
    """Save the state to `target` (mode 0600), also while the daemon runs: {file, files}.

    The event log is copied by SQLite; every other file is replaced whole by its writer, so each is
    consistent. `target` appears complete or not at all.
    Raises InputError when there is no state or the target exists, StorageError from the disk.
    """
    if not (state / EVENTS_NAME).exists():
        raise InputError(f"{state}: no state to save; start the daemon once")
    if target.exists():
        raise InputError(f"{target}: exists already; name a new file")
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as work:
            folder = Path(work)
            copy_database(state / EVENTS_NAME, folder / EVENTS_NAME)
            for name in STATE_FILES:
                if name != EVENTS_NAME and (state / name).exists():
                    shutil.copyfile(state / name, folder / name)
            files = {path.name: _entry(path) for path in sorted(folder.iterdir())}
            manifest = msgspec.json.encode(Manifest(FORMAT, __version__, files))
            new = folder / "archive"
            with open(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
                with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
                    _add(archive, MANIFEST_NAME, io.BytesIO(manifest), len(manifest))
                    for name, entry in files.items():
                        with (folder / name).open("rb") as content:
                            _add(archive, name, content, entry.size)
                file.flush()
                os.fsync(file.fileno())
            os.link(new, target)  # unlike a rename it never replaces a file
            sync_folder(target.parent)
            return {"file": str(target), "files": list(files)}
    except OSError as error:
        raise StorageError(f"{target}: {error.strerror}; name another place") from None


def restore(archive: Path, state: Path) -> Report:
    """Bring a backup back: {files, kept_in}, the folder where the old state is, or None.

    The daemon must be stopped. Everything is verified before anything is touched; a kill at any
    moment leaves the old state or a restore that finish_restore completes.
    Raises InputError for an archive that is damaged or no backup of ours, DaemonError if the state
    is in use, StorageError from the disk.
    """
    with StateDir(state):
        finish_restore(state)  # an earlier one that was cut off
        staging = state / _STAGING
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(mode=0o700)
            files = _unpack(archive, staging)
            _verify(archive, staging)
            mark_restored(staging / EVENTS_NAME, _reached(state / EVENTS_NAME))
            files = _keep_counters(state, staging, files)
            sync_folder(staging)
            os.rename(staging, state / READY)  # from here on it will be done
            sync_folder(state)
        except OSError as error:
            raise StorageError(f"{state}: {error.strerror}; free or mend the disk") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        kept = finish_restore(state)
        return {"files": files, "kept_in": None if kept is None else str(kept)}


def factory_reset(state: Path, *, confirmed: bool) -> Report:
    """Forget events, faces, keys and counters: {removed}. /etc stays as it is.

    The daemon must be stopped. `confirmed`: the person has said yes to exactly this.
    Raises InputError without that, DaemonError if the state is in use, StorageError.
    """
    if not confirmed:
        raise InputError("a factory reset forgets all events and faces; confirm it")
    with StateDir(state):
        # The key first: without it the templates are noise, should we be cut off.
        entries = sorted(state.iterdir(), key=lambda path: (path.name != KEY_NAME, path.name))
        removed = [path for path in entries if path.name != LOCK_NAME]
        try:
            for path in removed:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                if path.name == KEY_NAME:
                    sync_folder(state)
            sync_folder(state)
        except OSError as error:
            raise StorageError(f"{state}: {error.strerror}; mend the disk") from None
        return {"removed": [path.name for path in removed]}


def _unpack(archive: Path, target: Path) -> list[str]:
    """The archive's files into `target`, their names; kinds, sizes and hashes are checked."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            first = tar.next()
            if first is None or first.name != MANIFEST_NAME or not first.isreg():
                raise InputError(f"{archive}: no backup of edge_rt; name another file")
            if first.size > MAX_MANIFEST_BYTES:
                raise InputError(f"{archive}: manifest of {first.size} bytes; not a backup of ours")
            text = _content(tar, first)
            manifest = msgspec.json.decode(text, type=Manifest)
            if manifest.format != FORMAT:
                raise InputError(
                    f"{archive}: format {manifest.format}; this edge_rt reads {FORMAT}"
                )
            (target / MANIFEST_NAME).write_bytes(text)
            missing = dict(manifest.files)
            if EVENTS_NAME not in missing:
                raise InputError(f"{archive}: holds no {EVENTS_NAME}; not a backup of ours")
            while (member := tar.next()) is not None:
                entry = missing.pop(member.name, None)
                if entry is None or member.name not in STATE_FILES or not member.isreg():
                    raise InputError(f"{archive}: {member.name[:80]!r} does not belong there")
                if member.size != entry.size or entry.size > MAX_FILE_BYTES:
                    raise InputError(f"{archive}: {member.name} has {member.size} bytes; damaged")
                if _extract(tar, member, target / member.name) != entry.sha256:
                    raise InputError(f"{archive}: {member.name} is damaged (SHA-256 differs)")
            if missing:
                raise InputError(f"{archive}: {', '.join(missing)} missing; the file is cut off")
            return list(manifest.files)
    except FileNotFoundError:
        raise InputError(f"{archive}: no such file") from None
    except (tarfile.TarError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise InputError(f"{archive}: damaged or no backup ({error})") from None
    except OSError as error:
        # gzip reports damage as OSError without a number; the disk's own errors have one.
        if error.errno is None or error.filename == str(archive):
            raise InputError(f"{archive}: damaged or no backup ({error})") from None
        raise


def _verify(archive: Path, folder: Path) -> None:
    """Each file is what its name says. Raises InputError."""
    try:
        check_database(folder / EVENTS_NAME)
        for name in JSON_FILES:
            if (folder / name).exists():
                StateFile[dict[str, Any]](folder / name, dict[str, Any]).load()
    except StorageError as error:
        raise InputError(f"{archive}: {error}") from None


def _reached(events: Path) -> int:
    """The last place of the log that is there now; 0 where none can be read."""
    reader = EventReader(events)
    try:
        return reader.last_sequence()
    except StorageError:  # none yet, or damaged: that may be why a backup is brought back
        return 0
    finally:
        reader.close()


def _keep_counters(state: Path, staging: Path, files: list[str]) -> list[str]:
    """Signed commands of the time since the backup may not come to life again: of each key the
    higher counter counts. Returns the names of the files, COMMANDS_NAME among them if need be."""
    try:
        now = StateFile(state / COMMANDS_NAME, Memory).load()
    except StorageError:  # damaged: that may be why a backup is brought back
        now = None
    if now is None:
        return files
    file = StateFile(staging / COMMANDS_NAME, Memory)
    then = file.load() or Memory()
    file.save(merged(now, then))
    manifest = msgspec.json.decode((staging / MANIFEST_NAME).read_bytes(), type=Manifest)
    entry = _entry(staging / COMMANDS_NAME)
    manifest = msgspec.structs.replace(manifest, files={**manifest.files, COMMANDS_NAME: entry})
    (staging / MANIFEST_NAME).write_bytes(msgspec.json.encode(manifest))
    return list(manifest.files)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    digest = hashlib.sha256()
    content = tar.extractfile(member)
    assert content is not None  # a regular file, which the caller made sure of
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None
    return content.read()


def _add(archive: tarfile.TarFile, name: str, content: Any, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    archive.addfile(member, content)


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        return Entry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
