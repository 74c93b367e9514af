"""Secrets from systemd or from files that only their owner reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_rt.adapters.credentials import credential_path, read_secret
from edge_rt.core.errors import CredentialError


def secret(path: Path, mode: int, text: bytes = b"word\n") -> str:
    path.write_bytes(text)
    path.chmod(mode)
    return str(path)


def test_a_private_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    assert read_secret(secret(tmp_path / "s", 0o600)) == b"word"


def test_a_file_that_others_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    name = secret(tmp_path / "s", 0o640)
    with pytest.raises(CredentialError, match=f"mode 0640.*chmod 600 {name}"):
        read_secret(name)


def test_a_bare_name_is_a_systemd_credential(tmp_path: Path) -> None:
    secret(tmp_path / "mqtt.key", 0o440)
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert credential_path("mqtt.key", environment) == tmp_path / "mqtt.key"
    assert read_secret("mqtt.key", environment) == b"word"
    with pytest.raises(CredentialError, match="not started by systemd"):
        read_secret("mqtt.key", {})


def test_absent_or_absurd_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="nowhere"):
        read_secret(str(tmp_path / "nowhere"))
    with pytest.raises(CredentialError, match="no secret"):
        read_secret(secret(tmp_path / "big", 0o600, b"x" * 100_000))
