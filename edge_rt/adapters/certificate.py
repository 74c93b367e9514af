"""When a certificate ends (RFC 5280, section 4.1; DER: ITU-T X.690).

Six nested fields are walked by hand: `cryptography.x509` reads any certificate, and costs a daemon
with 130 MB for everything 7 MB of them. The certificate is our own; TLS judges it, not this.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from edge_rt.core.errors import CredentialError

# A chain of a few certificates.
MAX_BYTES = 64 * 1024
_SEQUENCE, _CONTEXT_0, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_END = "-----END CERTIFICATE-----"


def not_after(path: Path) -> datetime:
    """The end of the first certificate in a PEM file. Raises CredentialError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("ascii")
        first, mark, _ = text.partition(_END)
        der = ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN") :] + mark)
        return _not_after(der)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}") from None
    except (ValueError, IndexError) as error:
        raise CredentialError(f"{path}: no certificate in PEM ({error})") from None


def _not_after(der: bytes) -> datetime:
    _, certificate, _ = _field(der)
    _, body, _ = _field(certificate)
    tag, _, rest = _field(body)
    if tag == _CONTEXT_0:  # the version, which version 1 leaves out
        _, _, rest = _field(rest)  # the serial number
    for _ in ("algorithm", "issuer"):
        _, _, rest = _field(rest)
    tag, validity, _ = _field(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity where it has to be")
    _, _, rest = _field(validity)
    tag, value, _ = _field(rest)
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
