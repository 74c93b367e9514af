"""A certificate before its end: a request with the name that it has, and the new one put in place.

Runs on the device. With the same key only the certificate is replaced. With a new one the key goes
first: who connects in between finds no pair, and comes again.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_rt.core.errors import CredentialError, InputError
from edge_rt.fleet.certificates import make_request, write_private


def waiting_key(key: Path) -> Path:
    """Where the new key lies until its certificate has come."""
    return key.with_name(key.name + ".new")


def renew(cert: Path, key: Path, *, new_key: bool) -> tuple[str, bytes]:
    """Name and request (PEM) for the subject of `cert`, with its key or, new_key, a new one.

    Raises CredentialError for files that are no pair, InputError if a new key waits already.
    """
    old, pair = _certificate(cert), _key(key)
    _check_pair(old, cert, pair, key)
    name = _name(old, cert)
    if new_key:
        (fleet,) = old.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) or (None,)
        made = make_request(name, str(fleet.value).rpartition(" ")[2] if fleet else "home")
        write_private(waiting_key(key), made.key)
        return name, made.csr
    builder = x509.CertificateSigningRequestBuilder().subject_name(old.subject)
    csr = builder.sign(pair, hashes.SHA256())
    return name, csr.public_bytes(serialization.Encoding.PEM)


def install(signed: Path, cert: Path, key: Path, now: datetime) -> datetime:
    """Put the certificate `signed` in the place of `cert`, and its key if a new one waits.

    Returns when it ends. Raises CredentialError if it belongs to no key here, InputError if it is
    for another name or has ended.
    """
    new, old = _certificate(signed), _certificate(cert)
    if _name(new, signed) != _name(old, cert):
        raise InputError(f"{signed} is for {_name(new, signed)}, not for {_name(old, cert)}")
    if new.not_valid_after_utc <= now:
        raise InputError(f"{signed} ended on {new.not_valid_after_utc.date()}; have it signed anew")
    waiting = waiting_key(key)
    fresh = waiting.exists() and _key(waiting).public_key() == new.public_key()
    if not fresh:
        _check_pair(new, signed, _key(key), key)
    stat = cert.stat()
    temporary = cert.with_name(cert.name + ".new")
    temporary.write_bytes(signed.read_bytes())
    temporary.chmod(stat.st_mode & 0o777)
    if fresh:
        owner = key.stat()
        os.chown(waiting, owner.st_uid, owner.st_gid)  # the daemon's user reads it
        os.replace(waiting, key)
    os.chown(temporary, stat.st_uid, stat.st_gid)
    os.replace(temporary, cert)
    return new.not_valid_after_utc


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CredentialError(f"{path}: no readable certificate ({error})") from None


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialError(f"{path}: no readable key ({error})") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise CredentialError(f"{path}: not an elliptic curve key")
    return loaded


def _check_pair(
    certificate: x509.Certificate, cert: Path, pair: ec.EllipticCurvePrivateKey, key: Path
) -> None:
    if certificate.public_key() != pair.public_key():
        raise CredentialError(f"{cert} belongs to another key than {key}")


def _name(certificate: x509.Certificate, path: Path) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1:
        raise CredentialError(f"{path}: a certificate without one common name")
    return str(found[0].value)
