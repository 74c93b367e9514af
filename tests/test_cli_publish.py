"""The publisher's commands, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from broker import Broker, Pki

from edge_rt.cli import main


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery\n")
    path.chmod(0o600)
    return str(path)


def test_one_person_with_one_device(
    make_broker: Callable[..., Broker],
    pki: Pki,
    tmp_path: Path,
    secret: str,
    factory_bundle: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factory_bundle("fall-waist")
    broker = make_broker(pki)
    cert, key = pki.client("@operator")
    folder = tmp_path / "fleet"
    place = ["--host", broker.host, "--port", str(broker.port)]
    place += ["--ca", str(pki.authority.folder / "ca.crt"), "--cert", str(cert), "--key", str(key)]
    assert main(["fleet", "init", str(folder), *place, "--passphrase-file", secret]) == 0
    assert "root.json" in capsys.readouterr().out
    monkeypatch.setenv("EDGE_RT_FLEET_DIR", str(folder))
    signed = ["--passphrase-file", secret, "--json"]

    def told(*arguments: str, code: int = 0) -> dict[str, object]:
        assert main(["fleet", *arguments]) == code
        captured = capsys.readouterr()
        answer: dict[str, object] = json.loads(captured.err if code else captured.out)
        return answer

    first = told("publish", "fall-waist", "--rollout", "10", "--unproved", *signed)
    assert (first["percent"], first["state"], first["complete"]) == (10, "active", True)
    wider = told("rollout", "set", "fall-waist", "1.0.0", "50", *signed)
    assert (wider["percent"], wider["complete"]) == (50, False)
    assert "only grows" in str(told("rollout", "set", "fall-waist", "1.0.0", "9", *signed, code=2))
    assert told("rollout", "pause", "fall-waist", "1.0.0", *signed)["state"] == "paused"
    assert told("refresh", "--json")["cleared"] == 0
    status = told("status", "--json")
    assert status["releases"][0]["state"] == "paused"  # type: ignore[index]
    assert main(["fleet", "status", "--offline"]) == 0
    assert "signed until" in capsys.readouterr().out
    assert main(["fleet", "refresh"]) == 0
    text = capsys.readouterr().out
    assert "sent" in text and "complete" not in text
    new = ["--new-passphrase-file", secret]
    told("rotate-key", "timestamp", *new, *signed)
    offline = told("withdraw", "fall-waist", "1.0.0", "--offline", *signed)
    assert (offline["state"], offline["sent"]) == ("withdrawn", 0)
    assert told("upload", "--json")["cleared"] != 0


def test_what_is_missing_is_named(
    tmp_path: Path, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "refresh", "--in", str(tmp_path / "nowhere")]) == 2
    assert "fleet init" in capsys.readouterr().err
    assert main(["fleet", "status", "--in", str(tmp_path / "nowhere")]) == 2
    assert "with --in, or make one with: edge-rt fleet init" in capsys.readouterr().err
    folder = str(tmp_path / "fleet")
    assert main(["fleet", "init", folder, "--passphrase-file", secret]) == 0
    assert main(["fleet", "init", folder, "--passphrase-file", secret]) == 2
    assert "already" in capsys.readouterr().err
    plan = ["--targets-threshold", "2", "--passphrase-file", secret]
    assert main(["fleet", "init", str(tmp_path / "other"), *plan]) == 2
    assert "2 of 1 keys cannot be" in capsys.readouterr().err
