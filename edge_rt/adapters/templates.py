"""Face templates on disk: AES-256-GCM, bound to embedding space, camera and format.

Layout: MAGIC, header length (4 bytes, big-endian), header (JSON), nonce (12), ciphertext with tag
(16), SHA-256 of all before (32). The header is authenticated, not secret. The checksum tells a
damaged file from a wrong key; it protects nothing. GCM: NIST SP 800-38D, random 96-bit nonces.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from edge_rt.core.errors import CredentialError, InputError, StorageError
from edge_rt.core.types import Float32Array

STORE_NAME = "templates.bin"
# Two, as there are two slots of models: while one embedding space takes the place of another, each
# has its own, so that the way back needs nothing but the former model.
STORE_NAMES = (STORE_NAME, "templates-b.bin")
KEY_NAME = "templates.key"
MAGIC = b"edge-rt\x01"
KEY_BYTES, NONCE_BYTES, TAG_BYTES, CHECKSUM_BYTES = 32, 12, 16, 32

# A household and its carers. Every person more is one more chance for a stranger to be taken for
# somebody; 32 persons with 16 templates of 128 numbers are 256 KiB.
MAX_PERSONS = 32
MAX_TEMPLATES = 16
MAX_NAME = 64
MAX_HEADER_BYTES = 4096


class Person(NamedTuple):
    """One enrolled person.

    id          pseudonym, p- and 16 hex digits, random; the only thing that events tell
    name        for display on the device
    created_s   Unix seconds
    embeddings  float32 (m, size), one template a row
    """

    id: str
    name: str
    created_s: float
    embeddings: Float32Array


class File(Protocol):
    """Bytes that are replaced whole (adapters/statefile.py: AtomicFile)."""

    path: Path

    def read(self) -> bytes | None: ...

    def write(self, data: bytes) -> None: ...


class Bound(NamedTuple):
    """What templates are made for: another embedding space or camera makes them worthless.

    size  numbers a template
    """

    embedding_space: str
    camera: str
    size: int = 128


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    embedding_space: str
    camera: str
    size: int
    key_id: str
    sealed_bytes: int


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    name: str
    created_s: float
    templates: bytes  # little-endian float32, row after row


class SealedFile:
    """Bytes in a file, sealed with `key` (32 bytes, see load_key) and bound to `bound`.

    Both methods raise CredentialError (wrong key, wrong mode), StorageError (damaged, truncated,
    disk) or InputError (bound to something else), each in one line.
    """

    def __init__(
        self,
        file: File,
        key: bytes,
        bound: Bound,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if len(key) != KEY_BYTES:
            raise CredentialError(f"template key has {len(key)} bytes; it needs {KEY_BYTES}")
        self._file = file
        self._key = key
        self._bound = bound
        self._random = random

    def read(self) -> bytes | None:
        """What was written last; None if there is no such file."""
        path = self._file.path
        if path.exists():
            _check_mode(path)
        data = self._file.read()
        return None if data is None else self._open(data)

    def write(self, plain: bytes) -> None:
        """Replace it; durable when this returns."""
        header = msgspec.json.encode(
            _Header(*self._bound, _key_id(self._key), len(plain) + TAG_BYTES)
        )
        front = MAGIC + len(header).to_bytes(4, "big") + header
        nonce = self._random(NONCE_BYTES)
        data = front + nonce + _seal(self._key, nonce, plain, front)
        self._file.write(data + hashlib.sha256(data).digest())

    def _open(self, data: bytes) -> bytes:
        path = self._file.path
        header, front = _split(path, data)
        if header.key_id != _key_id(self._key):
            raise CredentialError(f"{path}: sealed with another key; give the key it was made with")
        theirs = (header.embedding_space, header.camera, header.size)
        for what, its, ours in zip(
            ("embedding space", "camera", "template size"),
            theirs,
            self._bound,
            strict=True,
        ):
            if its != ours:
                raise InputError(f"{path}: made for {what} {its}, not {ours}; enrol anew")
        nonce_end = len(front) + NONCE_BYTES
        sealed = data[nonce_end:-CHECKSUM_BYTES]
        plain = _unseal(self._key, data[len(front) : nonce_end], sealed, front)
        if plain is None:
            raise CredentialError(f"{path}: not written by this key's owner; restore a backup")
        return plain


class TemplateStore:
    """The enrolled persons. Nothing is written unless what is there could be read.

    key              32 bytes, see load_key
    embedding_space  of the embedder in use; size: numbers a template
    camera           identity of the camera: another one sees other faces

    Every method raises what SealedFile's do.
    """

    def __init__(
        self,
        file: File,
        key: bytes,
        *,
        embedding_space: str,
        camera: str,
        size: int = 128,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._file = SealedFile(file, key, Bound(embedding_space, camera, size), random)
        self._size = size
        self._random = random

    def persons(self) -> list[Person]:
        """All enrolled persons, oldest first; empty if there is no store yet."""
        plain = self._file.read()
        return [] if plain is None else self._decode(plain)

    def add(self, name: str, embeddings: Float32Array, created_s: float) -> Person:
        """Enrol a person with templates float32 (m, size); durable when this returns.

        Raises InputError too: a name that is empty, too long or taken, no room, wrong shape.
        """
        persons = self.persons()
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
            raise InputError(f"{name!r:.80} is no name; use 1 to {MAX_NAME} printable characters")
        if any(person.name.casefold() == name.casefold() for person in persons):
            raise InputError(f"{name} is enrolled already; remove the old entry first")
        if len(persons) >= MAX_PERSONS:
            raise InputError(f"{MAX_PERSONS} persons are enrolled; remove one first")
        rows = np.ascontiguousarray(embeddings, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self._size or not np.isfinite(rows).all():
            raise InputError(f"templates of shape {rows.shape}; (m, {self._size}) finite is needed")
        if not 1 <= len(rows) <= MAX_TEMPLATES:
            raise InputError(f"{len(rows)} templates for {name}; 1 to {MAX_TEMPLATES} are kept")
        person = Person(f"p-{self._random(8).hex()}", name, created_s, rows)
        self.replace([*persons, person])
        return person

    def remove(self, name_or_id: str) -> Person:
        """Forget a person; durable when this returns. Raises InputError if nobody is called so."""
        persons = self.persons()
        found = [p for p in persons if name_or_id in (p.id, p.name)]
        if not found:
            names = ", ".join(p.name for p in persons) or "nobody"
            raise InputError(f"{name_or_id!r:.80} is not enrolled; enrolled: {names}")
        self.replace([p for p in persons if p is not found[0]])
        return found[0]

    def replace(self, persons: Sequence[Person]) -> None:
        """Have these persons enrolled and nobody else; durable when this returns."""
        plain = msgspec.msgpack.encode(
            [
                _Stored(p.id, p.name, p.created_s, p.embeddings.astype("<f4").tobytes())
                for p in persons
            ]
        )
        self._file.write(plain)

    def _decode(self, plain: bytes) -> list[Person]:
        return [
            Person(
                stored.id,
                stored.name,
                stored.created_s,
                np.frombuffer(stored.templates, "<f4").reshape(-1, self._size).astype(np.float32),
            )
            for stored in msgspec.msgpack.decode(plain, type=list[_Stored])
        ]


def bound_of(path: Path) -> Bound | None:
    """What the file is bound to, by its header alone; None if there is none that can be read.

    Not authenticated: it tells which file to open, and opening it proves it.
    """
    try:
        header, _ = _split(path, path.read_bytes())
    except (OSError, StorageError):
        return None
    return Bound(header.embedding_space, header.camera, header.size)


def load_key(name: str, folder: Path, environment: Mapping[str, str]) -> bytes:
    """The 32-byte template key: raw, or as 64 hex digits.

    name    a path (with a slash): a file of mode 0600; a plain name: a systemd credential, found
            in $CREDENTIALS_DIRECTORY of `environment`; empty: KEY_NAME in `folder`, made at first
            use, unless templates are there that need an older one
    Raises CredentialError naming the file and the remedy, StorageError if a key cannot be made.
    """
    if name and "/" not in name:
        credentials = environment.get("CREDENTIALS_DIRECTORY")
        if credentials is None:
            raise CredentialError(
                f"credential {name!r}: $CREDENTIALS_DIRECTORY is not set;"
                " start by systemd with LoadCredential=, or name a file"
            )
        return _read_key(Path(credentials) / name, private=False)
    path = Path(name) if name else folder / KEY_NAME
    if not name and not path.exists():
        for store in STORE_NAMES:
            if (folder / store).exists():
                raise CredentialError(f"{path}: gone, but {store} needs it; restore a backup")
        _make_key(path)
    return _read_key(path, private=True)


def _read_key(path: Path, *, private: bool) -> bytes:
    try:
        if private:
            _check_mode(path)
        with path.open("rb") as file:
            text = file.read(1024)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}; the template key is needed") from None
    if len(text) == KEY_BYTES:
        return text
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise CredentialError(f"{path}: no key; 32 bytes or 64 hex digits are needed")
    return key


def _make_key(path: Path) -> None:
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"{path}: cannot be made ({error.strerror}); mend the disk") from None


def _check_mode(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise CredentialError(f"{path}: mode {mode:04o} lets others in; chmod 600 {path}")


def _split(path: Path, data: bytes) -> tuple[_Header, bytes]:
    """Header and everything before the nonce, once length and checksum are right."""
    start = len(MAGIC) + 4
    if not data.startswith(MAGIC):
        raise StorageError(f"{path}: no template store of this format; restore a backup")
    length = int.from_bytes(data[len(MAGIC) : start], "big")
    try:
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"header of {length} bytes")
        if len(data) < start + length:
            raise StorageError(f"{path}: cut off after {len(data)} bytes; restore a backup")
        header = msgspec.json.decode(data[start : start + length], type=_Header)
    except (ValueError, msgspec.DecodeError) as error:
        raise StorageError(f"{path}: damaged ({error}); restore a backup") from None
    whole = start + length + NONCE_BYTES + header.sealed_bytes + CHECKSUM_BYTES
    if len(data) < whole:
        raise StorageError(f"{path}: cut off after {len(data)} bytes; restore a backup")
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if len(data) > whole or hashlib.sha256(body).digest() != checksum:
        raise StorageError(f"{path}: damaged (checksum is wrong); restore a backup")
    return header, data[: start + length]


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"edge-rt template key id\0" + key).hexdigest()[:16]


def _seal(key: bytes, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(nonce, plain, bound)


def _unseal(key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, sealed, bound)
    except InvalidTag:
        return None
