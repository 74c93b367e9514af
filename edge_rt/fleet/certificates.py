"""A small fleet's own certificate authority: signs requests, revokes, keeps an index.

Keys are made where they are used and never travel: a device hands over a request (CSR, RFC 2986).
Certificates (RFC 5280) begin in 1970, so that a clock without a battery can still connect.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_rt.core.errors import CredentialError, InputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AUTHORITY_DAYS = 30 * 365
DEVICE_DAYS = 2 * 365
# A broker refuses everybody once its revocation list has run out.
REVOCATIONS_DAYS = 10 * 365
# A device name as core.config has it; people and programs begin with @, so that no device can
# be named like one of them.
_NAME = re.compile(r"@?[A-Za-z0-9_-]{1,63}")
MAX_REQUEST_BYTES = 16 * 1024


class Issued(msgspec.Struct, frozen=True):
    """One line of the index. serial: decimal, because JSON numbers end at 2^53."""

    serial: str
    name: str
    kind: str
    expires: str
    revoked: str = ""


class Request(NamedTuple):
    """A new key (PEM, PKCS 8) and the request to sign."""

    key: bytes
    csr: bytes


def make_request(name: str, fleet: str) -> Request:
    """A P-256 key and a CSR for it. Raises InputError for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no device name; use letters, digits, - and _")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name, fleet))
    request = builder.sign(key, hashes.SHA256())
    return Request(_key_pem(key), request.public_bytes(serialization.Encoding.PEM))


class Authority:
    """The CA in a folder: ca.crt, ca.key (0600), crl.pem, index.json.

    Raises CredentialError when the folder holds no CA or one that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
            loaded = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            index = (folder / "index.json").read_bytes()
            self.issued = msgspec.json.decode(index, type=list[Issued])
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CredentialError(f"{folder}: no readable authority ({error})") from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise CredentialError(f"{folder}/ca.key: not an elliptic curve key")
        self._key = loaded

    @classmethod
    def make(cls, folder: Path, fleet: str, now: datetime) -> Authority:
        """A new CA. Raises InputError if the folder already holds one."""
        if (folder / "ca.key").exists():
            raise InputError(f"{folder} already holds an authority; choose another folder")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(f"{fleet} authority", fleet)
        usage = _key_usage(signs_certificates=True)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(EPOCH)
            .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        write_private(folder / "ca.key", _key_pem(key))
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / "index.json").write_bytes(b"[]\n")
        authority = cls(folder)
        authority.write_revocations(now)
        return authority

    def sign_device(self, csr: bytes, name: str, now: datetime, days: int = DEVICE_DAYS) -> bytes:
        """The certificate (PEM) for a device's request.

        Raises InputError if the request is not one, is not signed with its own key, or is for
        another name.
        """
        return self._sign(_checked(csr, name), name, "device", now, days, ())

    def sign_broker(
        self, csr: bytes, name: str, hosts: Sequence[str], now: datetime, days: int = DEVICE_DAYS
    ) -> bytes:
        """The same for a broker that is reached by these host names and addresses."""
        if not hosts:
            raise InputError("a broker's certificate needs the names that clients reach it by")
        return self._sign(_checked(csr, name), name, "broker", now, days, hosts)

    def revoke(self, name: str, now: datetime) -> int:
        """Revoke every certificate of a name; how many. Raises InputError if there is none."""
        stamp = now.isoformat(timespec="seconds")
        found = [i for i in self.issued if i.name == name and not i.revoked]
        if not found:
            raise InputError(f"no valid certificate of {name!r}; see {self.folder}/index.json")
        self.issued = [
            msgspec.structs.replace(i, revoked=stamp) if i in found else i for i in self.issued
        ]
        self._save_index()
        self.write_revocations(now)
        return len(found)

    def expiring(self, now: datetime, days: int = 60) -> list[Issued]:
        """Certificates in use that end within so many days: renew them."""
        end = now + timedelta(days=days)
        return [i for i in self.current() if datetime.fromisoformat(i.expires) < end]

    def current(self) -> list[Issued]:
        """The last certificate of each name that was not revoked; those before it are replaced."""
        last: dict[tuple[str, str], Issued] = {}
        for entry in self.issued:
            if not entry.revoked:
                key = (entry.name, entry.kind)
                last[key] = max(entry, last.get(key, entry), key=lambda i: i.expires)
        return list(last.values())

    def write_revocations(self, now: datetime) -> None:
        """Write crl.pem (RFC 5280, section 5) anew; the broker has to load it again."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(EPOCH)
            .next_update(now + timedelta(days=REVOCATIONS_DAYS))
        )
        for entry in self.issued:
            if entry.revoked:
                builder = builder.add_revoked_certificate(
                    x509.RevokedCertificateBuilder()
                    .serial_number(int(entry.serial))
                    .revocation_date(datetime.fromisoformat(entry.revoked))
                    .build()
                )
        revocations = builder.sign(self._key, hashes.SHA256())
        _replace(self.folder / "crl.pem", revocations.public_bytes(serialization.Encoding.PEM))

    # ---- helpers ----

    def _sign(
        self,
        csr: x509.CertificateSigningRequest,
        name: str,
        kind: str,
        now: datetime,
        days: int,
        hosts: Sequence[str],
    ) -> bytes:
        serial = x509.random_serial_number()
        expires = now + timedelta(days=days)
        purpose = (
            ExtendedKeyUsageOID.SERVER_AUTH if kind == "broker" else ExtendedKeyUsageOID.CLIENT_AUTH
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        # Nothing but key and name is taken from the request: it cannot ask for more.
        builder = (
            x509.CertificateBuilder()
            .subject_name(csr.subject)
            .issuer_name(self.certificate.subject)
            .public_key(csr.public_key())
            .serial_number(serial)
            .not_valid_before(EPOCH)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        entry = Issued(str(serial), name, kind, expires.isoformat(timespec="seconds"))
        self.issued = [*self.issued, entry]
        self._save_index()
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _save_index(self) -> None:
        text = msgspec.json.format(msgspec.json.encode(self.issued), indent=1)
        _replace(self.folder / "index.json", text + b"\n")


def write_private(path: Path, data: bytes) -> None:
    """A new file of mode 0600. Raises InputError if there is one already."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InputError(f"{path} exists; move it away first") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    os.replace(new, path)


def _checked(csr: bytes, name: str) -> x509.CertificateSigningRequest:
    if len(csr) > MAX_REQUEST_BYTES:
        raise InputError(f"request of {len(csr)} bytes; at most {MAX_REQUEST_BYTES} are accepted")
    try:
        request = x509.load_pem_x509_csr(csr)
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InputError(f"not a certificate request: {error}") from None
    if not valid:
        raise InputError("the request is not signed with its own key")
    found = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if found != [name] or not _NAME.fullmatch(name):
        raise InputError(f"the request is for {', '.join(found) or 'nobody'}, not for {name}")
    return request


def _subject(name: str, fleet: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"edge-rt fleet {fleet}"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
