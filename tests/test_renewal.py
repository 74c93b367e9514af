"""A certificate is renewed on the device that has it, and used from the next connection on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from broker import Broker, Pki
from test_uplink_service import Device, Make, config_for, make, wait_for  # noqa: F401

from edge_rt.cli import main
from edge_rt.core.errors import CredentialError, InputError
from edge_rt.fleet.certificates import make_request
from edge_rt.fleet.renewal import install, renew, waiting_key

NOW = datetime.now(UTC)


@pytest.fixture
def old(pki: Pki, tmp_path: Path) -> tuple[Path, Path]:
    """dev1's certificate and key, ended long ago."""
    theirs, key = pki.client("dev1")
    request = make_request("dev1", "home")
    pair = tmp_path / "dev1.crt", tmp_path / "dev1.key"
    shutil.copy(key, pair[1])
    _, csr = renew(theirs, pair[1], new_key=False)
    assert csr != request.csr
    pair[0].write_bytes(
        pki.authority.sign_device(csr, "dev1", datetime(2020, 1, 1, tzinfo=UTC), 30)
    )
    pair[0].chmod(0o640)
    return pair


@pytest.mark.parametrize("new_key", [False, True])
def test_the_uplink_connects_with_the_new_one_without_a_restart(
    make_broker: Callable[..., Broker],
    pki: Pki,
    make: Make,  # noqa: F811
    tmp_path: Path,
    old: tuple[Path, Path],
    new_key: bool,
) -> None:
    cert, key = old
    before = key.read_bytes()
    broker = make_broker(pki)
    config = config_for(broker)
    pair = {"cert": str(cert), "key": str(key)}
    device = make(Device, tmp_path / "device", type(config)(host=config.host, port=config.port,
                                                            ca=config.ca, **pair))  # fmt: skip
    device.uplink.start()
    wait_for(lambda: device.uplink.status()["tries"] >= 2)
    assert device.uplink.status()["state"] != "online"
    assert main(["provision", "renew", *map(str, old), "--out", str(tmp_path),
                 *(["--new-key"] if new_key else [])]) == 0  # fmt: skip
    words = ["provision", "sign", str(pki.authority.folder), str(tmp_path / "dev1.csr")]
    assert main([*words, "--name", "dev1", "--out", str(tmp_path / "signed")]) == 0
    assert main(["provision", "install", str(tmp_path / "signed/dev1.crt"), *map(str, old)]) == 0
    assert (key.read_bytes() != before) is new_key
    assert not waiting_key(key).exists()
    modes = [path.stat().st_mode & 0o777 for path in old]
    assert modes == [0o640, 0o600]
    wait_for(lambda: device.uplink.status()["state"] == "online")
    assert device.uplink.status()["error"] == ""


def test_what_does_not_belong_here_is_not_installed(
    pki: Pki, tmp_path: Path, old: tuple[Path, Path]
) -> None:
    before = [path.read_bytes() for path in old]
    signed = tmp_path / "signed"

    def refused(csr: bytes, name: str, kind: type[Exception], match: str) -> None:
        signed.write_bytes(pki.authority.sign_device(csr, name, NOW))
        with pytest.raises(kind, match=match):
            install(signed, *old, NOW)

    refused(make_request("dev1", "home").csr, "dev1", CredentialError, "another key")
    refused(make_request("dev2", "home").csr, "dev2", InputError, "for dev2, not for dev1")
    with pytest.raises(InputError, match="ended on 2020"):
        install(old[0], *old, NOW)
    with pytest.raises(CredentialError, match="no readable certificate"):
        install(old[1], *old, NOW)
    renew(*old, new_key=True)
    with pytest.raises(InputError, match="exists"):
        renew(*old, new_key=True)
    with pytest.raises(CredentialError, match="another key"):
        renew(pki.client("dev2")[0], old[1], new_key=False)
    assert [path.read_bytes() for path in old] == before
