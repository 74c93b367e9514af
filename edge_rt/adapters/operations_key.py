"""The operations key: Ed25519 (RFC 8032), PEM, signs commands and receipts."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_rt.core.errors import CredentialError, InputError

# A PEM public key takes 113 bytes, a private one 119.
MAX_KEY_BYTES = 4096


class PublicKey:
    """Judges signatures. id: first 32 hex digits of the SHA-256 of the raw key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """Raises CredentialError for what is no readable Ed25519 public key in PEM."""
        try:
            key = serialization.load_pem_public_key(_read(path))
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise CredentialError(
                f"{path}: no Ed25519 public key (PEM); name the .pub of edge-rt fleet keygen"
            )
        return cls(key)

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether `signature` (64 bytes) over `text` was made with the private key."""
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """Signs; `public` judges."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def read(cls, path: Path) -> PrivateKey:
        """Raises CredentialError for no Ed25519 private key, or one that others may read."""
        data = _read(path)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            raise CredentialError(f"{path}: {error.strerror}") from None
        if mode & 0o077:
            raise CredentialError(f"{path}: mode {mode:04o} lets others read it; chmod 600 {path}")
        try:
            key = serialization.load_pem_private_key(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise CredentialError(
                f"{path}: no Ed25519 private key (PEM); make one with edge-rt fleet keygen"
            )
        return cls(key)

    def sign(self, text: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(text)


def make_pair(path: Path) -> Path:
    """A new private key (mode 0600) at `path` and its public one beside it, which is returned.

    Raises InputError when there is either already, or the folder cannot be written to.
    """
    public_path = path.with_name(path.name + ".pub")
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public_path.exists():
        raise InputError(f"{public_path} exists; move it away first")
    _write_new(path, private, 0o600)
    _write_new(public_path, public, 0o644)
    return public_path


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise InputError(f"{path} exists; move it away first") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name another folder") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise CredentialError(
            f"{path}: {error.strerror}; edge-rt fleet keygen makes keys, and .pub files for devices"
        ) from None
