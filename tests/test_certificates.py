"""The fleet's own authority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edge_rt.core.errors import CredentialError, InputError
from edge_rt.fleet.certificates import EPOCH, Authority, make_request, write_private

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", "home", NOW)


def test_certificates_begin_in_1970_and_are_for_their_purpose_only(authority: Authority) -> None:
    device = make_request("dev1", "home")
    broker = make_request("broker", "home")
    one = x509.load_pem_x509_certificate(authority.sign_device(device.csr, "dev1", NOW))
    two = x509.load_pem_x509_certificate(
        authority.sign_broker(broker.csr, "broker", ["hub.local", "10.0.0.1"], NOW)
    )
    for certificate, purpose in ((one, "clientAuth"), (two, "serverAuth")):
        assert certificate.not_valid_before_utc == EPOCH
        assert certificate.not_valid_after_utc > NOW
        certificate.verify_directly_issued_by(authority.certificate)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [oid._name for oid in usage] == [purpose]
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert not basic.ca
    names = two.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.local"]
    assert b"PRIVATE" not in device.csr


def test_a_request_for_another_name_is_refused(authority: Authority) -> None:
    request = make_request("dev1", "home")
    with pytest.raises(InputError, match="for dev1, not for dev2"):
        authority.sign_device(request.csr, "dev2", NOW)
    lines = request.csr.splitlines()
    lines[3] = lines[3][::-1]
    for nonsense in (b"", b"x" * 20_000, b"\n".join(lines), request.key):
        with pytest.raises(InputError):
            authority.sign_device(nonsense, "dev1", NOW)
    assert authority.issued == []


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "@", "a b", "x" * 65, "*"])
def test_a_name_that_would_be_a_wildcard_gets_no_request(name: str) -> None:
    with pytest.raises(InputError, match="no device name"):
        make_request(name, "home")


def test_revoked_certificates_are_listed_and_stay_so(authority: Authority) -> None:
    for name in ("dev1", "dev2", "dev1"):
        authority.sign_device(make_request(name, "home").csr, name, NOW)
    assert authority.revoke("dev1", NOW) == 2
    with pytest.raises(InputError, match="no valid certificate"):
        authority.revoke("dev1", NOW)
    again = Authority(authority.folder)
    again.revoke("dev2", NOW)
    listed = x509.load_pem_x509_crl((authority.folder / "crl.pem").read_bytes())
    assert len(list(listed)) == 3
    assert {str(entry.serial_number) for entry in listed} == {i.serial for i in again.issued}


def test_what_expires_soon_is_named(authority: Authority) -> None:
    authority.sign_device(make_request("old", "home").csr, "old", NOW, days=30)
    authority.sign_device(make_request("new", "home").csr, "new", NOW)
    assert [i.name for i in authority.expiring(NOW)] == ["old"]
    late = NOW + timedelta(days=720)
    assert [i.name for i in authority.expiring(late)] == ["old", "new"]
    authority.sign_device(make_request("old", "home").csr, "old", NOW, days=800)
    assert authority.expiring(NOW) == [], "it was renewed"
    authority.revoke("old", NOW)
    assert [i.name for i in authority.expiring(late)] == ["new"]


def test_keys_are_private_and_never_overwritten(authority: Authority, tmp_path: Path) -> None:
    assert (authority.folder / "ca.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="already holds"):
        Authority.make(authority.folder, "home", NOW)
    write_private(tmp_path / "key", b"1")
    with pytest.raises(InputError, match="exists"):
        write_private(tmp_path / "key", b"2")
    assert (tmp_path / "key").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "index.json"])
def test_a_damaged_authority_is_an_error(authority: Authority, name: str) -> None:
    (authority.folder / name).write_bytes(b"nonsense")
    with pytest.raises(CredentialError, match="no readable authority"):
        Authority(authority.folder)
