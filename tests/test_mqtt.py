"""The MQTT adapter and the shipped broker configuration, on a real mosquitto."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from broker import Broker, Pki, free_port

from edge_rt.adapters import mqtt
from edge_rt.adapters.mqtt import Acked, Closed, Connected, Message, Mqtt, Received, Subscribed
from edge_rt.core.errors import CredentialError
from edge_rt.fleet.certificates import Authority, make_request, write_private

F = TypeVar("F", bound=mqtt.Fact)
MakeBroker = Callable[..., Broker]
NOT_AUTHORIZED = 0x87
# `pytest -k 3.1.1` is the smoke suite of the older version.
VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


class Client:
    """An open connection that collects facts until the one that is waited for."""

    def __init__(self, settings: mqtt.Settings, will: Message | None = None) -> None:
        self.mqtt = Mqtt(settings, will)
        self.facts: list[mqtt.Fact] = []
        self.mqtt.open()

    def wait(self, kind: type[F], timeout_s: float = 10.0) -> F:
        """The next fact of this kind; those before it are dropped."""
        deadline = time.monotonic() + timeout_s
        while True:
            while self.facts:
                fact = self.facts.pop(0)
                if isinstance(fact, kind):
                    return fact
            assert time.monotonic() < deadline, f"no {kind.__name__} in {timeout_s} s"
            self.facts = self.mqtt.poll(0.5)

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int:
        """Send; the reason code of the PUBACK."""
        token = self.mqtt.publish(topic, payload, retain=retain)
        assert token is not None
        while (acked := self.wait(Acked)).token != token:
            pass
        return acked.code

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.close()


def connected(settings: mqtt.Settings, will: Message | None = None) -> Client:
    client = Client(settings, will)
    client.wait(Connected)
    return client


@pytest.fixture
def broker(make_broker: MakeBroker, pki: Pki) -> Broker:
    return make_broker(pki)


@VERSIONS
def test_a_message_goes_round(make_broker: MakeBroker, pki: Pki, version: str) -> None:
    broker = make_broker(pki)
    device = Client(broker.settings("dev1", version=version))
    limits = device.wait(Connected)
    # 3.1.1 has no properties: no limit is known.
    assert limits == Connected(False, *((1000, 131072) if version == "5" else (0, 0)))
    receiver = connected(broker.settings("@receiver", version=version))
    receiver.mqtt.subscribe(["edge-rt/v1/home/+/evt/+"])
    assert receiver.wait(Subscribed) == Subscribed(())
    assert device.publish("edge-rt/v1/home/dev1/evt/fall", b"hello") == 0
    assert receiver.wait(Received) == Received("edge-rt/v1/home/dev1/evt/fall", b"hello", False)
    device.close()
    receiver.close()


def test_qos_0_is_sent_and_has_no_answer(broker: Broker) -> None:
    device, receiver = (connected(broker.settings(name)) for name in ("dev1", "@receiver"))
    receiver.mqtt.subscribe(["edge-rt/v1/home/+/dt/+", "edge-rt/v1/home/+/evt/+"])
    receiver.wait(Subscribed)
    # More than the sockets hold: some are written from within publish(), some later.
    count = 120
    assert broker._process is not None
    broker._process.send_signal(signal.SIGSTOP)
    for _ in range(count):
        assert device.mqtt.publish("edge-rt/v1/home/dev1/dt/x", bytes(100_000), qos=0) is not None
    broker._process.send_signal(signal.SIGCONT)
    assert device.mqtt._client.want_write()  # type: ignore[union-attr]
    token = device.mqtt.publish("edge-rt/v1/home/dev1/evt/fall", b"x")
    assert token is not None
    facts: list[mqtt.Fact] = []
    deadline = time.monotonic() + 10
    while Acked(token, 0, "Success") not in facts:
        assert time.monotonic() < deadline
        facts += device.mqtt.poll(0.5)
    assert facts == [Acked(token, 0, "Success")]
    # At most once: a broker may drop what its queue does not take, and what comes keeps its order.
    got = [receiver.wait(Received)]
    while not got[-1].topic.endswith("evt/fall"):
        got.append(receiver.wait(Received))
    assert 1 <= len(got) - 1 <= count
    device.close()
    receiver.close()


def test_small_messages_are_not_held_back(broker: Broker) -> None:
    device = connected(broker.settings("dev1"))
    sock = device.mqtt._client.socket()  # type: ignore[union-attr]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # type: ignore[union-attr]
    assert sock.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[union-attr]
    device.close()


def test_a_device_writes_only_its_own_topics(broker: Broker) -> None:
    device = connected(broker.settings("dev1"))
    base = "edge-rt/v1/home"
    for topic in ("status", "evt/fall", "dt/health", "twin/reported", "ha/state"):
        assert device.publish(f"{base}/dev1/{topic}") < 128, topic
    forbidden = [f"{base}/dev1/{t}" for t in ("ack", "cmd/x", "twin/desired", "evt/a/b", "x")]
    forbidden += [f"{base}/dev2/evt/fall", f"{base}/dev2/status", f"{base}/models/blob/a/0"]
    forbidden += ["edge-rt/v1/other/dev1/evt/fall", "homeassistant/device/dev2/config", "x"]
    for topic in forbidden:
        assert device.publish(topic) == NOT_AUTHORIZED, topic
    device.close()


def test_a_device_reads_only_its_own_topics(broker: Broker) -> None:
    base = "edge-rt/v1/home"
    device, other = connected(broker.settings("dev1")), connected(broker.settings("dev2"))
    device.mqtt.subscribe(["#", f"{base}/dev2/ack", "edge-rt/v1/+/+/ack"])
    device.wait(Subscribed)
    receiver, operator = (connected(broker.settings(n)) for n in ("@receiver", "@operator"))
    assert other.publish(f"{base}/dev2/evt/fall") < 128
    assert other.publish(f"{base}/dev2/status", b"{}", retain=True) < 128
    assert receiver.publish(f"{base}/dev2/ack") < 128
    assert operator.publish(f"{base}/dev2/cmd/resolve") < 128
    assert operator.publish(f"{base}/dev1/cmd/resolve", b"mine") < 128
    assert operator.publish(f"{base}/models/metadata/root.json", b"all") < 128
    assert device.wait(Received) == Received(f"{base}/dev1/cmd/resolve", b"mine", False)
    # What comes next is next in the broker's order: of dev2's nothing came before or between.
    assert device.wait(Received).topic == f"{base}/models/metadata/root.json"
    # And who may receipt may not command; Home Assistant may neither.
    home = connected(broker.settings("@homeassistant"))
    for name in ("dev1/cmd/resolve", "dev1/ha/state", "dev1/ack", "dev1/twin/desired"):
        assert home.publish(f"{base}/{name}") == NOT_AUTHORIZED, name
    assert home.publish("homeassistant/device/dev1/config", b"") == NOT_AUTHORIZED
    assert home.publish("homeassistant/status", b"online") < 128
    home.close()
    assert receiver.publish(f"{base}/dev1/cmd/resolve") == NOT_AUTHORIZED
    assert receiver.publish(f"{base}/dev1/evt/fall") == NOT_AUTHORIZED
    for client in (device, other, receiver, operator):
        client.close()


@VERSIONS
def test_another_fleet_is_out_of_reach(make_broker: MakeBroker, pki: Pki, version: str) -> None:
    broker = make_broker(pki, start=False)
    with (broker.folder / "edge-rt.acl").open("a") as acl:
        acl.write("\nuser @away\ntopic readwrite edge-rt/v1/away/#\n")
    broker.start()
    there, here = "edge-rt/v1/away/dev1", "edge-rt/v1/home/dev1"
    device = connected(broker.settings("dev1", version=version))
    away, receiver = connected(broker.settings("@away")), connected(broker.settings("@receiver"))
    watcher = connected(broker.settings("@away", client_id="watcher"))
    device.mqtt.subscribe([f"{there}/#", "edge-rt/v1/+/dev1/ack"])
    watcher.mqtt.subscribe(["edge-rt/v1/away/#"])
    for client in (device, watcher):
        client.wait(Subscribed)
    assert away.publish(f"{there}/ack", b"theirs") < 128
    assert watcher.wait(Received).payload == b"theirs"
    assert away.publish(f"{here}/ack", b"forged") == NOT_AUTHORIZED
    assert receiver.publish(f"{there}/ack", b"forged") == NOT_AUTHORIZED
    assert receiver.publish(f"{here}/ack", b"ours") < 128
    assert device.wait(Received).payload == b"ours"
    # 3.1.1 cannot say no: what is refused is acknowledged, and goes nowhere.
    code = device.publish(f"{there}/evt/fall", b"forged")
    assert code == (NOT_AUTHORIZED if version == "5" else 0)
    assert away.publish(f"{there}/evt/fall", b"real") < 128
    assert watcher.wait(Received).payload == b"real"
    for client in (device, away, watcher, receiver):
        client.close()


def refusal(settings: mqtt.Settings) -> str:
    client = Client(settings)
    closed = client.wait(Closed)
    client.mqtt.close()
    return closed.line


# paho leaves the socket of a failed handshake to the garbage collector.
LEAVES_SOCKET = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEAVES_SOCKET
def test_wrong_certificates_are_refused(make_broker: MakeBroker, pki: Pki, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old = pki.client("expired", datetime(2020, 1, 1, tzinfo=UTC), days=1)
    gone = pki.client("revoked")
    pki.authority.revoke("revoked", now)
    broker = make_broker(pki)
    good = broker.settings("dev1")
    connected(good).close()
    mine = "hung up before it answered; check our certificate: its CA, its end"
    for cert, key in (old, gone, (None, None)):
        assert mine in refusal(good._replace(cert=cert, key=key))
    stranger = Authority.make(tmp_path / "other", "home", now)
    request = make_request("dev1", "home")
    write_private(tmp_path / "key", request.key)
    (tmp_path / "crt").write_bytes(stranger.sign_device(request.csr, "dev1", now))
    assert mine in refusal(good._replace(cert=tmp_path / "crt", key=tmp_path / "key"))
    # And a broker that cannot prove itself is refused by us.
    wrong_ca = good._replace(ca=tmp_path / "other" / "ca.crt")
    said = refusal(wrong_ca)
    assert f"{wrong_ca.ca} does not vouch for the broker" in said
    assert said.endswith("; name the file of the CA that signed its certificate")
    elsewhere = make_broker(pki, host="127.0.0.2")  # not a name in its certificate
    assert "the broker's certificate is for another name; " in refusal(elsewhere.settings("dev1"))


@LEAVES_SOCKET
def test_why_there_is_no_connection_is_one_line_with_the_remedy(
    make_broker: MakeBroker, pki: Pki
) -> None:
    plain, tls = make_broker(None), make_broker(pki)
    closed = make_broker(None, more="allow_anonymous false")
    open_ = plain.settings("dev1")
    for settings, said in (
        (open_._replace(host="broker.invalid"), "the name was not found; correct it"),
        (open_._replace(port=free_port()), " refuses TCP connections; start the broker"),
        (open_._replace(port=tls.port), "hung up before it answered; if it is a port for TLS"),
        (tls.settings("dev1")._replace(port=plain.port), "; use the port on which the broker"),
        (closed.settings("dev1"), "the broker refuses the connection: Not authorized; check user"),
    ):
        line = refusal(settings)
        assert said in line
        assert "\n" not in line and "Error" not in line and "MQTT_ERR" not in line


@LEAVES_SOCKET
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_broker_that_only_speaks_old_tls_is_refused(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.load_cert_chain(pki.folder / "broker.crt", pki.folder / "broker.key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_shake, args=(server, context))
        thread.start()
        port = server.getsockname()[1]
        ca = pki.authority.folder / "ca.crt"
        reason = refusal(mqtt.Settings("localhost", port, "dev1", ca=ca))
        thread.join(10)
    assert "TLS" in reason or "SSL" in reason


def _shake(server: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = server.accept()
    try:
        context.wrap_socket(connection, server_side=True)
    except OSError:
        connection.close()


@VERSIONS
def test_the_last_will_comes_after_a_lost_connection_not_after_a_goodbye(
    broker: Broker, version: str
) -> None:
    status = "edge-rt/v1/home/dev1/status"
    receiver = connected(broker.settings("@receiver"))
    receiver.mqtt.subscribe([status])
    receiver.wait(Subscribed)
    device = connected(broker.settings("dev1", version=version), Message(status, b"offline"))
    device.mqtt.abort()
    assert receiver.wait(Received).payload == b"offline"
    device.mqtt.open()
    device.wait(Connected)
    device.close()
    again = connected(broker.settings("dev1", version=version))
    assert again.publish(status, b"online") < 128
    assert receiver.wait(Received).payload == b"online"
    again.close()
    receiver.close()


@VERSIONS
def test_the_broker_keeps_messages_for_a_session(broker: Broker, version: str) -> None:
    command = "edge-rt/v1/home/dev1/cmd/selftest"
    settings = broker.settings("dev1", session_s=600, version=version)
    device = connected(settings)
    device.mqtt.subscribe(["edge-rt/v1/home/dev1/cmd/+"])
    device.wait(Subscribed)
    device.close()
    operator = connected(broker.settings("@operator"))
    assert operator.publish(command) == 0
    back = Client(settings)
    assert back.wait(Connected).session_present
    assert back.wait(Received).topic == command
    back.close()
    operator.close()


def test_an_absent_broker_is_a_fact_not_an_exception(make_broker: MakeBroker) -> None:
    broker = make_broker(None, start=False)
    assert "refuses TCP" in refusal(broker.settings("dev1"))
    assert refusal(broker.settings("dev1")._replace(host="no-such-host.invalid"))


@VERSIONS
def test_a_killed_broker_is_noticed(broker: Broker, version: str) -> None:
    device = connected(broker.settings("dev1", version=version))
    broker.kill()
    device.wait(Closed)
    assert device.mqtt.publish("edge-rt/v1/home/dev1/evt/fall", b"x") is None
    broker.start()
    device.mqtt.open()
    device.wait(Connected)
    device.close()


def test_a_wake_up_ends_the_wait(make_broker: MakeBroker) -> None:
    idle = Mqtt(make_broker(None, start=False).settings("dev1"))
    thread = threading.Timer(0.05, idle.wake)
    start = time.monotonic()
    thread.start()
    assert idle.poll(30.0) == []
    assert time.monotonic() - start < 10
    idle.close()
    idle.wake()  # harmless


@pytest.mark.parametrize("what", ["ca", "cert", "key"])
def test_a_useless_tls_file_is_named(pki: Pki, tmp_path: Path, what: str) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense")
    cert, key = pki.client("dev1")
    ca = pki.authority.folder / "ca.crt"
    good = mqtt.Settings("localhost", 1, "dev1", ca=ca, cert=cert, key=key)
    with pytest.raises(CredentialError, match="bad.pem" if what != "key" else "dev1.crt"):
        Mqtt(good._replace(**{what: bad}))
