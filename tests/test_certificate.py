"""When a certificate ends, read without a certificate library, against one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.adapters.certificate import not_after, read_certificate
from edge_rt.core.errors import CredentialError
from edge_rt.fleet.certificates import Authority, make_request

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca") / "ca", "home", NOW)


# Before and after 2050 the time is written in two different ways.
@pytest.mark.parametrize("days", [1, 730, 365 * 23, 365 * 24, 365 * 40])
@pytest.mark.parametrize("name", ["dev1", "x" * 63])
def test_the_end_is_that_of_the_certificate(
    authority: Authority, tmp_path: Path, days: int, name: str
) -> None:
    pem = authority.sign_device(make_request(name, "home").csr, name, NOW, days)
    path = tmp_path / "crt"
    path.write_bytes(b"# a word before\n" + pem + (authority.folder / "ca.crt").read_bytes())
    assert not_after(path) == NOW + timedelta(days=days)
    read, found = read_certificate(path), x509.load_pem_x509_certificate(pem)
    assert not_after(path) == read.not_after == found.not_valid_after_utc
    assert (read.name, read.not_before) == (name, found.not_valid_before_utc)


@given(st.data())
def test_what_is_no_certificate_is_an_error(authority: Authority, data: st.DataObject) -> None:
    good = (authority.folder / "ca.crt").read_bytes()
    der = x509.load_pem_x509_certificate(good).public_bytes(serialization.Encoding.DER)
    cut = der[: data.draw(st.integers(0, 180))]
    at = data.draw(st.integers(0, max(0, len(cut) - 1)))
    bad = cut[:at] + data.draw(st.binary(max_size=3)) + cut[at + 1 :]
    import ssl

    path = authority.folder / "bad"
    path.write_text(ssl.DER_cert_to_PEM_cert(bad))
    with pytest.raises(CredentialError, match="bad: no certificate in PEM"):
        not_after(path)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----END CERTIFICATE-----", b"\xff"])
def test_what_is_no_pem_is_an_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(text)
    with pytest.raises(CredentialError, match="bad: no certificate in PEM"):
        not_after(path)
    with pytest.raises(CredentialError, match="No such file"):
        not_after(tmp_path / "absent")
