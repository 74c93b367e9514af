"""Commands from afar through a real broker to a real daemon, by the tools that people use."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import Broker, Pki
from daemons import Running, daemon
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edge_rt.adapters.mqtt import Mqtt, Subscribed
from edge_rt.adapters.operations_key import PrivateKey, make_pair
from edge_rt.cli import main
from edge_rt.cli.face import read_images
from edge_rt.core.errors import InputError
from edge_rt.core.remote_command import Payload, decode_command
from edge_rt.core.twin import decode_desired
from edge_rt.core.uplink_wire import Topics, decode_receipt
from edge_rt.fleet.operations import Signer, make_payload
from edge_rt.fleet.receiver import Receiver
from edge_rt.fleet.store import Store

DEV1 = Topics("home", "dev1")
OK = "edge-rt/ok/home"
MEDIA = Path(str(files("edge_rt") / "demo_media"))

pytestmark = pytest.mark.usefixtures("factory")


@pytest.fixture
def factory(factory_bundle: Callable[[str], Path]) -> None:
    """The daemon's default bundles are needed."""
    for name in ("fall-waist", "face-detect", "face-embed"):
        factory_bundle(name)


def config(broker: Broker, scene: str = "sitting", **mqtt: Any) -> dict[str, Any]:
    """A daemon of `scene`; its pre-alarm waits for two minutes."""
    return {
        "device": {"fleet": "home", "name": "dev1"},
        "falls": {
            "source": {"driver": "simulated", "scene": scene, "seed": 3, "repeat": False},
            "alarm": {"cancel_window_s": 120.0, "escalated_window_s": 120.0},
        },
        "mqtt": {
            **broker.section("dev1"),
            **mqtt,
        },
    }


def options(broker: Broker, name: str = "@operator") -> list[str]:
    """Of a connection, for `edge-rt fleet`."""
    assert broker.pki is not None
    cert, key = broker.pki.client(name)
    ca = broker.pki.authority.folder / "ca.crt"
    place = ["--host", broker.host, "--port", str(broker.port)]
    return [*place, "--ca", str(ca), "--cert", str(cert), "--key", str(key)]


class Fleet:
    """`edge-rt fleet command` to dev1, and what it printed."""

    def __init__(
        self, broker: Broker, key: Path | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.words = options(broker)
        self.key = key
        self.capsys = capsys

    def __call__(
        self, name: str, *args: str, sign: bool = True, more: tuple[str, ...] = ()
    ) -> tuple[int, dict[str, Any]]:
        """Exit code and outcome."""
        pairs = [word for arg in args for word in ("--arg", arg)]
        signed = ["--sign-key", str(self.key)] if self.key is not None and sign else []
        self.capsys.readouterr()
        words = ["fleet", "command", "dev1", name, *pairs, *signed, *self.words, *more]
        code = main([*words, "--json"])
        said = self.capsys.readouterr()
        assert said.out, said.err
        return code, json.loads(said.out)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert main(["fleet", "keygen", str(tmp_path / "ops.key")]) == 0
    assert main(["fleet", "keygen", str(tmp_path / "ops.key")]) == 2
    return tmp_path / "ops.key"


def publisher(broker: Broker, name: str) -> Mqtt:
    """A connected client."""
    client = Mqtt(broker.settings(name))
    client.open()
    end_s = time.monotonic() + 20
    client_ready = False
    while not client_ready:
        assert time.monotonic() < end_s
        for fact in client.poll(0.2):
            if isinstance(fact, Subscribed):
                client_ready = True
        client.subscribe(["edge-rt/v1/home/+/status"])
    return client


def while_serving(client: Mqtt, condition: Callable[[], Any]) -> Callable[[], Any]:
    """The condition, with the client's connection served in between."""

    def look() -> Any:
        client.poll(0.01)
        return condition()

    return look


def falls(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = running.status()["falls"]
    return found


def test_signed_commands_end_an_alarm_and_nothing_else_does(
    make_broker: Callable[..., Broker],
    pki: Pki,
    tmp_path: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = make_broker(pki)
    fleet = Fleet(broker, key, capsys)
    make_pair(tmp_path / "other.key")
    stranger = Fleet(broker, tmp_path / "other.key", capsys)
    sent = config(broker, "fall-walking", operations_key=f"{key}.pub")
    sent["falls"]["source"]["speed"] = 5.0
    with daemon(tmp_path, sent) as running:
        running.wait(lambda: falls(running)["state"] == "prealarm", "the pre-alarm")
        incident = falls(running)["incident"]
        for name in ("cancel", "resolve", "disarm"):
            code, told = fleet(name, sign=False)
            assert (code, told["outcome"], told["reason"]) == (5, "refused", "unsigned")
            code, told = stranger(name)
            assert (code, told["reason"]) == (5, "bad_signature")
        for name in ("unlock", "face_remove", "arm"):
            code, told = fleet(name)
            assert (code, told["reason"]) == (5, "unknown")
        assert fleet("cancel", "incident=f00")[1]["reason"] == "other_incident"
        assert fleet("resolve")[1]["reason"] == "not_possible"
        assert fleet("disarm", "what=falls")[1]["reason"] == "not_possible"
        assert falls(running)["state"] == "prealarm"
        # A new start of the detector keeps the incident.
        code, told = fleet("restart_pipeline", "what=falls", sign=False)
        assert (code, told["outcome"], told["state"]) == (0, "done", "prealarm")
        assert fleet("restart_pipeline", "what=falls", sign=False)[1]["reason"] == "too_soon"
        assert falls(running)["incident"] == incident
        code, told = fleet("cancel", f"incident={incident}")
        assert (code, told["outcome"]) == (0, "done")
        log = running.log
        assert "siren: notice" in log
        assert log.index("siren: notice") < log.index("prealarm -> cancelled")
        cancelled = [e for e in running.events() if e["type"] == "edge_rt.fall.cancelled"]
        assert [e["data"]["why"]["by"] for e in cancelled] == ["operator"]
        assert fleet("disarm", "what=falls")[0] == 0
        assert falls(running)["state"] == "disarmed"
        assert running.status()["problems"] == []


def test_a_replay_does_nothing_also_after_a_kill(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path, key: Path
) -> None:
    broker = make_broker(pki)
    client = publisher(broker, "@operator")
    signer = Signer(key)
    older, newer = (
        msgspec.json.encode(signer.command(DEV1, "disarm", make_payload({"what": "falls"}, None)))
        for _ in range(2)
    )

    def outcomes(running: Running) -> list[tuple[str, str, bool]]:
        told = [e["data"] for e in running.events() if e["type"] == "edge_rt.device.command"]
        return [(t["outcome"], t["reason"], t.get("repeat", False)) for t in told]

    def send(running: Running, body: bytes, count: int) -> None:
        assert client.publish(f"{DEV1.base}/cmd/disarm", body) is not None
        heard = while_serving(client, lambda: len(outcomes(running)) == count)
        running.wait(heard, "the outcome")

    sent = config(broker, operations_key=f"{key}.pub")
    with daemon(tmp_path, sent) as running:
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the connection")
        send(running, newer, 1)
        assert falls(running)["state"] == "disarmed"
        running.stop(signal.SIGKILL)
    with daemon(tmp_path, sent) as running:
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the connection")
        running.call("arm", what="falls")
        send(running, newer, 2)
        assert outcomes(running) == [("done", "", False), ("done", "", True)]
        assert falls(running)["state"] == "monitoring"
        # One that never came before, but is of an older counter.
        send(running, older, 3)
        assert outcomes(running)[-1] == ("refused", "replayed", False)
        assert falls(running)["state"] == "monitoring"
    client.close()


def test_a_command_cut_off_by_a_kill_is_told_as_such_and_not_done_again(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path
) -> None:
    broker = make_broker(pki)
    client = publisher(broker, "@operator")
    body = msgspec.json.encode(Payload("i1"))

    def commands(running: Running) -> list[dict[str, Any]]:
        return [e["data"] for e in running.events() if e["type"] == "edge_rt.device.command"]

    with daemon(tmp_path, config(broker)) as running:
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the connection")
        assert client.publish(f"{DEV1.base}/cmd/self_test", body) is not None
        begun = "command from afar: self_test i1"
        running.wait(while_serving(client, lambda: begun in running.log), "its start")
        running.stop(signal.SIGKILL)
    with daemon(tmp_path, config(broker)) as running:
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the connection")
        assert client.publish(f"{DEV1.base}/cmd/self_test", body) is not None
        told = while_serving(client, lambda: len(commands(running)) == 2)
        running.wait(told, "both outcomes")
        cut_off = {"id": "i1", "name": "self_test", "outcome": "failed", "reason": "interrupted"}
        assert commands(running) == [cut_off, {**cut_off, "repeat": True}]
        assert running.log.count(f"{begun}\n") == 1
    client.close()


def test_a_broker_keeps_no_command_past_its_time_for_a_device_that_is_away(
    make_broker: Callable[..., Broker],
    pki: Pki,
    tmp_path: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = make_broker(pki)
    fleet = Fleet(broker, key, capsys)
    sent = config(broker, operations_key=f"{key}.pub")
    with daemon(tmp_path, sent) as running:
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the connection")
        running.stop(signal.SIGKILL)
    code, told = fleet("disarm", "what=falls", more=("--expires-s", "1", "--wait-s", "2"))
    assert (code, told["outcome"], told["status"]) == (75, "unheard", "offline")
    code, told = fleet("cancel", more=("--expires-s", "60", "--wait-s", "1"))
    assert (code, told["outcome"]) == (75, "unheard")
    with daemon(tmp_path, sent) as running:
        # The broker delivers in order: had it kept the first one, that would have come before.
        running.wait(lambda: "device.command" in running.kinds(), "the outcome of the second")
        outcomes = [e["data"] for e in running.events() if e["type"] == "edge_rt.device.command"]
        assert [(o["name"], o["reason"]) for o in outcomes] == [("cancel", "not_possible")]
        assert falls(running)["state"] == "monitoring"


def test_without_a_key_only_harmless_commands_are_taken(
    make_broker: Callable[..., Broker],
    pki: Pki,
    tmp_path: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = make_broker(pki)
    fleet = Fleet(broker, key, capsys)
    with daemon(tmp_path, config(broker)) as running:
        assert fleet("disarm", "what=falls")[1]["reason"] == "not_configured"
        assert fleet("model_rollback", "task=fall", sign=False)[1]["reason"] == "not_possible"
        assert fleet("enrol_window", "name=Ada", sign=False)[1]["reason"] == "not_available"
        assert fleet("self_test", "what=x", sign=False)[1]["reason"] == "bad_arguments"
        hops = falls(running)["hops"]
        running.wait(lambda: falls(running)["hops"] > hops, "falls to go on")
        assert falls(running)["state"] == "monitoring"


def test_the_self_test_tries_models_and_leaves_falls_alone(
    make_broker: Callable[..., Broker],
    pki: Pki,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = make_broker(pki)
    fleet = Fleet(broker, None, capsys)
    with daemon(tmp_path, config(broker)) as running:
        running.wait(lambda: falls(running)["hops"] > 0, "the first decision")
        code, told = fleet("self_test")
        assert (code, told["outcome"]) == (0, "done"), told
        assert told["checks"]["model fall-waist"] == "ok"
        assert {"accelerometer", "camera", "state", "disk", "clock"} <= set(told["checks"])
        assert falls(running)["blocks_dropped"] == 0
        assert running.status()["problems"] == []


@pytest.mark.native("pictures come at their own pace")
def test_a_face_worker_is_replaced_and_a_new_person_enrolled_when_somebody_is_there(
    make_broker: Callable[..., Broker],
    pki: Pki,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = make_broker(pki)
    fleet = Fleet(broker, None, capsys)
    sent = config(broker)
    rules = {"attempt_s": 4.0, "gone_s": 0.7, "hold_s": 1.5, "pause_s": 0.7}
    camera = {"driver": "demo", "speed": 3.0}
    sent["faces"] = {"enabled": True, "armed": False, "camera": camera, "rules": rules}

    def worker(running: Running) -> Any:
        faces = running.status()["faces"]
        return faces["worker"] == "running" and faces

    with daemon(tmp_path, sent) as running:
        first = running.wait(lambda: worker(running), "a face worker")
        images = read_images((MEDIA / "owner_1.jpg",))
        owner = running.call("face_enrol", name="owner", images=images)["enrolled"]
        assert fleet("restart_pipeline", "what=faces")[0] == 0
        second = running.wait(lambda: worker(running), "another face worker")
        assert second["pid"] != first["pid"] and second["persons"] == 1
        # While the camera is closed nobody is seen and nobody is there.
        code, told = fleet("enrol_window", "name=Guest", "window_s=5")
        assert (code, told["reason"]) == (5, "no_presence")
        # The owner is let in, which is the sign; the stranger who comes next is the new person.
        running.call("arm", what="faces")
        code, told = fleet("enrol_window", "name=Guest", "window_s=60")
        assert (code, told["outcome"]) == (0, "done"), (told, running.log)
        persons = running.call("face_list")["persons"]
        assert [p["name"] for p in persons] == ["owner", "Guest"]
        assert len({p["id"] for p in persons} | {owner}) == 2

        def is_guest(picture: Path) -> bool:
            answer = running.call("face_verify", images=read_images((picture,)))
            return bool(answer["name"] == "Guest")

        # The owner was not enrolled a second time, under the guest's name.
        assert [p.stem[:-2] for p in sorted(MEDIA.glob("*.jpg")) if is_guest(p)] == ["stranger"]
        assert "Guest" not in str(running.events())
        assert "enrol_window is about to be done" in running.log


@contextmanager
def signing(broker: Broker, key: Path) -> Iterator[subprocess.Popen[str]]:
    words = ["fleet", "sign-presses", OK, *options(broker), "--sign-key", str(key)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "edge_rt", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert "waiting" in process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()


def test_the_button_im_ok_cancels_by_a_signature(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path, key: Path
) -> None:
    broker = make_broker(pki)
    home = publisher(broker, "@homeassistant")
    press = {"fleet": "home", "device": "dev1", "command": "cancel"}
    sent = config(broker, "fall-walking", operations_key=f"{key}.pub")
    sent["falls"]["source"]["speed"] = 5.0
    sent["mqtt"]["home_assistant"] = {"enabled": True, "ok_topic": OK}
    with signing(broker, key) as process, daemon(tmp_path, sent) as running:
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the connection")
        running.wait(lambda: falls(running)["state"] == "prealarm", "the pre-alarm")
        assert home.publish(f"{DEV1.base}/cmd/cancel", b"{}") is not None  # refused by the ACL
        assert home.publish(OK, msgspec.json.encode(press)) is not None
        home.poll(0.2)
        assert process.stdout is not None
        assert process.stdout.readline() == "dev1: cancel signed\n"
        running.wait(lambda: falls(running)["state"] != "prealarm", "the cancel")
        running.wait(lambda: "fall.cancelled" in running.kinds(), "its event")
        assert running.status()["mqtt"]["bad_input"] == 0
    home.close()


@pytest.mark.parametrize("sign", [True, False])
def test_where_receipts_must_be_signed_others_do_not_count(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path, key: Path, sign: bool
) -> None:
    broker = make_broker(pki)
    receiver = Receiver(
        broker.settings("@receiver"),
        "home",
        Store(tmp_path / "site"),
        sign=PrivateKey.read(key).sign if sign else None,
    )
    while not receiver.subscribed:
        receiver.turn(1.0)
        assert not receiver.error
    sent = config(broker, operations_key=f"{key}.pub", signed_receipts=True)
    with daemon(tmp_path, sent) as running:

        def mqtt() -> dict[str, Any]:
            receiver.turn(0.05)
            found: dict[str, Any] = running.status()["mqtt"]
            return found

        if sign:
            running.wait(lambda: mqtt()["receipts"] > 0, "a signed receipt")
            running.wait(lambda: not any(mqtt()["awaiting_receipt"].values()), "every receipt")
            assert mqtt()["bad_input"] == 0
        else:
            running.wait(lambda: mqtt()["bad_input"] > 0, "a receipt")
            status = mqtt()
            assert status["receipts"] == 0 and any(status["awaiting_receipt"].values())
    receiver.close()


# ---- what nobody should send ----

# The broker hangs up on who sends a packet of more than 128 KiB.
LARGEST = 120 * 1024

_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_json = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "args", "version", "settings", "lanes", "logid", "signature"])
            | st.text(max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
).map(msgspec.json.encode)
_deep = st.builds(
    lambda opening, count, end: (opening * count)[:LARGEST] + end,
    st.sampled_from([b"[", b'{"a":', b'{"settings":', b'{"id":"a","args":', b'{"receipt":[']),
    st.integers(100, 8000),
    st.sampled_from([b"", b"1", b"]" * 50]),
)
_large = st.builds(
    lambda start, count: start + b"x" * count,
    st.sampled_from([b"", b'{"id":"', b'{"version":1,"settings":{"', b'{"logid":"']),
    st.sampled_from([16 * 1024, 64 * 1024, LARGEST]),
)
_bodies = st.one_of(st.binary(max_size=200), _json, _deep, _large)
_topics = st.sampled_from(["ack", "cmd/self_test", "cmd/cancel", "cmd/Über", "twin/desired"])


def is_bad(topic: str, body: bytes) -> bool:
    """Whether the daemon is to count it."""
    try:
        if topic == "ack":
            decode_receipt(body)
        elif topic == "twin/desired":
            if body:  # taken back: nothing is desired
                decode_desired(body)
        else:
            decode_command(DEV1, topic.partition("/")[2], body)
    except InputError:
        return True
    return False


@pytest.mark.parametrize(
    "examples", [8, pytest.param(60, marks=pytest.mark.release)], ids=["few", "many"]
)
def test_nonsense_on_every_topic_is_counted_and_ends_nothing(
    make_broker: Callable[..., Broker], pki: Pki, tmp_path: Path, examples: int
) -> None:
    broker = make_broker(pki, more="log_type subscribe")
    clients = {name: publisher(broker, name) for name in ("@operator", "@receiver")}
    with daemon(tmp_path, config(broker)) as running:
        running.wait(lambda: running.status()["mqtt"]["state"] == "online", "the connection")
        broker.wait_for_log(f"{DEV1.base}/cmd/+")
        log = (broker.folder / "log").read_text()
        heard = set(re.findall(rf"{DEV1.base}/(\S+)", log))
        assert heard == {"ack", "cmd/+", "twin/desired"}, "send to every topic that is subscribed"
        expected = 0

        def counted() -> bool:
            for client in clients.values():
                client.poll(0.0)
            bad = running.status()["mqtt"]["bad_input"]
            assert bad <= expected
            return bool(bad == expected)

        @settings(
            max_examples=examples,
            phases=[Phase.generate],  # each batch is sent once; a failure names it whole
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            deadline=None,
        )
        @given(st.lists(st.tuples(_topics, _bodies), min_size=10, max_size=15))
        def send(batch: list[tuple[str, bytes]]) -> None:
            nonlocal expected
            for topic, body in batch:
                expected += is_bad(topic, body)
                client = clients["@receiver" if topic == "ack" else "@operator"]
                assert client.publish(f"{DEV1.base}/{topic}", body) is not None
            running.wait(counted, f"{expected} bad inputs")

        send()
        assert expected >= examples * 5, "hardly anything bad was sent"
        # All is well: a desired version is taken, falls are watched, nothing is wrong.
        wanted = msgspec.json.encode({"version": 1, "settings": {"falls": {"threshold": 0.65}}})
        assert clients["@operator"].publish(f"{DEV1.base}/twin/desired", wanted) is not None
        taken = while_serving(clients["@operator"], lambda: "settings of version 1" in running.log)
        running.wait(taken, "the settings")
        hops = falls(running)["hops"]
        running.wait(lambda: falls(running)["hops"] > hops, "falls to go on")
        assert running.status()["mqtt"]["connects"] == 1
        assert running.status()["problems"] == []
    for client in clients.values():
        client.close()


def test_a_payload_is_small() -> None:
    """What the bounds promise: a full command fits the bound of its payload."""
    args = {f"{'k' * 31}{letter}": "\U0001f600" * 256 for letter in "abcdefgh"}
    whole = Payload("i" * 64, args, "2026-01-01T00:00:00.000000+00:00", 2**53, "0" * 128)
    assert decode_command(DEV1, "self_test", msgspec.json.encode(whole)).payload == whole
