"""When a certificate begins and ends, and for whom (RFC 5280, section 4.1; DER: ITU-T X.690).

A few nested fields are walked by hand: `cryptography.x509` reads any certificate, and costs a
daemon with 130 MB for everything 7 MB of them. The certificate is our own; TLS judges it, not this.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from edge_rt.core.errors import CredentialError

# A chain of a few certificates.
MAX_BYTES = 64 * 1024
_SEQUENCE, _CONTEXT_0, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_END = "-----END CERTIFICATE-----"
_COMMON_NAME = bytes((0x06, 3, 0x55, 4, 3))  # 2.5.4.3


class Certificate(NamedTuple):
    """name: the subject's common name, empty if it has none."""

    not_before: datetime
    not_after: datetime
    name: str


def not_after(path: Path) -> datetime:
    """The end of the first certificate in a PEM file. Raises CredentialError."""
    return read_certificate(path).not_after


def read_certificate(path: Path) -> Certificate:
    """The first certificate in a PEM file. Raises CredentialError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("ascii")
        first, mark, _ = text.partition(_END)
        der = ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN") :] + mark)
        return _parse(der)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}") from None
    except (ValueError, IndexError):
        raise CredentialError(
            f"{path}: no certificate in PEM; bring the one signed for it"
        ) from None


def _parse(der: bytes) -> Certificate:
    _, certificate, _ = _field(der)
    _, body, _ = _field(certificate)
    tag, _, rest = _field(body)
    if tag == _CONTEXT_0:  # the version, which version 1 leaves out
        _, _, rest = _field(rest)  # the serial number
    for _ in ("algorithm", "issuer"):
        _, _, rest = _field(rest)
    tag, validity, rest = _field(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity where it has to be")
    _, subject, _ = _field(rest)
    begin, end = _time(validity), _time(_field(validity)[2])
    return Certificate(begin, end, _common_name(subject))


def _common_name(subject: bytes) -> str:
    """Of a sequence of sets of (object identifier, text)."""
    while subject:
        _, names, subject = _field(subject)
        _, pair, _ = _field(names)
        if pair.startswith(_COMMON_NAME):
            return _field(pair[len(_COMMON_NAME) :])[1].decode()
    return ""


def _time(data: bytes) -> datetime:
    tag, value, _ = _field(data)
    # 4.1.2.5: seconds and Z always; two digits of a year are 1950 to 2049.
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time where it has to be")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _field(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, contents and what follows."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        count = length & 0x7F
        start += count
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("cut off")
    return tag, data[start : start + length], data[start + length :]
