"""The doctor at a real broker, and over certificates made ill on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Pki, free_port

from edge_rt.adapters.mqtt import Connected, Mqtt
from edge_rt.core.config import Config, parse_config
from edge_rt.runtime.check import Check, run_checks
from edge_rt.runtime.doctor import examine
from edge_rt.runtime.doctor_mqtt import check_broker, check_certificate

NOW = datetime.now(UTC)
# paho leaves the socket of a failed handshake to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def config_for(section: dict[str, object], name: str = "dev1") -> Config:
    lines = [
        f"{key} = {str(v).lower() if v in (True, False) else repr(v)}" for key, v in section.items()
    ]
    return parse_config(f'device.name = "{name}"\n[mqtt]\n' + "\n".join(lines), "test")


def broker_line(config: Config, status: dict[str, Any] | None = None) -> Check:
    (check,) = run_checks([("broker", lambda: check_broker(config, status, {}))])
    return check


def certificate_line(config: Config, now: datetime = NOW) -> Check:
    (check,) = run_checks([("certificate", lambda: check_certificate(config, now, {}))])
    return check


def online(link: Mqtt) -> Connected:
    link.open()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        for fact in link.poll(1.0):
            assert isinstance(fact, Connected), fact
            return fact
    raise AssertionError("no connection")


def test_a_broker_that_lets_us_in_throws_out_nobody_and_keeps_the_session(
    make_broker: Callable[..., Broker], pki: Pki
) -> None:
    broker = make_broker(pki)
    settings = broker.settings("dev1")._replace(client_id="home-dev1", session_s=600)
    daemon = Mqtt(settings)
    assert not online(daemon).session_present
    check = broker_line(config_for(broker.section("dev1")))
    assert (check.state, check.found) == (
        "ok",
        f"127.0.0.1:{broker.port} lets this device in (TLS)",
    )
    assert daemon.poll(0.3) == [], "the daemon is where it was"
    daemon.disconnect()
    broker_line(config_for(broker.section("dev1")))
    assert online(daemon).session_present
    daemon.close()


def test_a_broker_that_does_not_let_us_in_is_failed_with_its_reason(
    make_broker: Callable[..., Broker], pki: Pki
) -> None:
    tls, closed = make_broker(pki), make_broker(None, more="allow_anonymous false")
    plain = {"enabled": True, "host": "127.0.0.1", "insecure": True}
    for section, found, remedy in (
        ({**plain, "host": "broker.invalid"}, "the name was not found", "correct it"),
        ({**plain, "port": free_port()}, "refuses TCP connections", "start the broker"),
        ({**plain, "port": closed.port}, "Not authorized", "check user and password"),
        ({**plain, "port": tls.port}, "hung up before it answered", "if it is a port for TLS"),
        ({**tls.section("dev1"), "ca": ""}, "does not vouch for", "name the file of the CA"),
        ({**tls.section("dev1"), "cert": "/no", "key": "/no"}, "/no: No such file", "mend"),
    ):
        check = broker_line(config_for(section))
        assert check.state == "failed"
        assert found in check.found and check.remedy.startswith(remedy), check


def test_a_running_daemon_is_asked(pki: Pki) -> None:
    config = config_for({"enabled": True, "host": "127.0.0.1", "port": free_port()})
    online = {"mqtt": {"state": "online", "error": ""}}
    assert broker_line(config, online).state == "ok"
    waiting = {"mqtt": {"state": "connecting", "error": ""}}
    assert broker_line(config, waiting).state == "warning"
    refused = {"mqtt": {"state": "waiting", "error": "refused: Not authorized; check the user"}}
    check = broker_line(config, refused)
    assert (check.state, check.remedy) == ("failed", "check the user")
    assert broker_line(config, {"mqtt": None}).state == "failed"


def test_without_mqtt_and_with_a_credential_nothing_is_tried(pki: Pki) -> None:
    assert broker_line(config_for({"enabled": False})).state == "ok"
    cert, _ = pki.client("dev1")
    section = {"enabled": True, "cert": str(cert), "key": "mqtt-key"}
    check = broker_line(config_for(section))
    assert check.state == "warning" and "credential" in check.found
    assert certificate_line(config_for(section)).state == "ok", "its dates can be read all the same"


def test_a_certificate_is_judged_by_name_dates_key_and_mode(pki: Pki, tmp_path: Path) -> None:
    cert, key = pki.client("dev1")
    other, other_key = pki.client("dev2")
    loose = tmp_path / "loose.key"
    loose.write_bytes(key.read_bytes())
    loose.chmod(0o644)
    broken = tmp_path / "broken.key"
    broken.touch(0o600)

    def line(cert: Path, key: Path, after_days: float = 0, name: str = "dev1") -> Check:
        section: dict[str, object] = {"enabled": True, "cert": str(cert), "key": str(key)}
        return certificate_line(config_for(section, name), NOW + timedelta(days=after_days))

    good = line(cert, key)
    assert good.state == "ok" and "is for dev1 and ends on" in good.found
    for check, state, found, remedy in (
        (line(cert, key, 340), "warning", " days", "edge-rt provision renew"),
        (line(cert, key, 366), "failed", "ended on", "edge-rt provision renew"),
        (line(cert, key, -60 * 365), "ok", "the clock cannot say", ""),
        (line(other, other_key), "warning", "is for dev2, and this device is dev1", "its own"),
        (line(cert, other_key), "failed", "belongs to another key than", "bring the two"),
        (line(cert, loose), "failed", "mode 0644 lets others read it", "chmod 600"),
        (line(cert, broken), "failed", "no readable key", "bring the one"),
        (line(tmp_path / "no", key), "failed", "No such file", "mend"),
        (line(key, key), "failed", "no certificate in PEM", "bring the one signed"),
    ):
        assert check.state == state and found in check.found and remedy in check.remedy, check


def test_the_doctor_looks_at_them(make_broker: Callable[..., Broker], tmp_path: Path) -> None:
    broker = make_broker(None)
    text = f'runtime.state_dir = "{tmp_path}/state"\nruntime.run_dir = "{tmp_path}"\n[mqtt]\n'
    more = f'enabled = true\nhost = "127.0.0.1"\nport = {broker.port}\ninsecure = true\n'
    found = {check.name: check for check in examine(parse_config(text + more, "test"))}
    assert found["broker"].state == "ok" and "unencrypted" in found["broker"].found
    assert found["update root"].found == "model updates are off"
