"""The operator's side: counters that never come twice, and presses that become signed cancels."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_rt.adapters.operations_key import PublicKey, make_pair
from edge_rt.cli import main
from edge_rt.core.errors import CredentialError, InputError
from edge_rt.core.home_assistant import discovery_payload
from edge_rt.core.remote_command import Memory, OperationsKey, decide, decode_command
from edge_rt.core.telemetry import Vitals
from edge_rt.core.uplink_config import HomeAssistantConfig, MqttConfig
from edge_rt.core.uplink_wire import (
    LaneReceipt,
    ReceiptMessage,
    Topics,
    decode_receipt,
    open_receipt,
    sign_receipt,
)
from edge_rt.core.wire import Event, Lane, encode, make_event, source_of
from edge_rt.fleet.operations import Counter, Signer, make_payload
from edge_rt.fleet.presses import EVERY_S, EXPIRES_S, Presses

DEV1 = Topics("home", "dev1")
OK = "edge-rt/ok/home"
NOW_S = 1767225600.0


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_pair(tmp_path / "ops")
    return tmp_path / "ops"


def counted(key: Path, count: int) -> list[int]:
    counter = Counter(key)
    return [counter.next() for _ in range(count)]


def test_the_counter_only_rises_whatever_the_clock_does(key: Path) -> None:
    now_s = [1000.0]
    counter = Counter(key, lambda: now_s[0])
    assert [counter.next(), counter.next()] == [1_000_000, 1_000_001]
    now_s[0] = 0.0
    assert Counter(key, lambda: 0.0).next() == 1_000_002
    now_s[0] = 2000.0
    assert counter.next() == 2_000_000
    assert (key.parent / "ops.counter").stat().st_mode & 0o777 == 0o600
    (key.parent / "ops.counter").write_text("many\n")
    with pytest.raises(CredentialError, match="remove it"):
        counter.next()


def test_no_two_processes_get_one_counter(key: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap_async(counted, [(key, 40)] * 2).get(60)
    assert len({n for numbers in found for n in numbers}) == 80


def test_a_signed_payload_is_one_that_a_device_believes(key: Path) -> None:
    signer, public = Signer(key), PublicKey.read(key.with_name("ops.pub"))
    sent = signer.command(DEV1, "disarm", make_payload({"what": "falls"}, NOW_S + 5))
    asked = decode_command(DEV1, "disarm", msgspec.json.encode(sent))
    judge = OperationsKey(public.id, public.verify)
    assert decide(asked, Memory(), key=judge, now_s=NOW_S).act
    assert decide(asked, Memory(), key=judge, now_s=NOW_S + 6).reason == "expired"
    with pytest.raises(InputError, match="--arg"):
        make_payload({"What": "falls"}, None)


# ---- signed receipts ----

RECEIPT = msgspec.json.encode(ReceiptMessage("f" * 32, {Lane.ALARM: LaneReceipt(7, ((2, 3),))}))


def test_a_signed_receipt_is_bound_to_its_device_and_its_bytes(key: Path) -> None:
    signer, public = Signer(key), PublicKey.read(key.with_name("ops.pub"))
    signed = sign_receipt(DEV1, RECEIPT, signer.sign)
    assert open_receipt(DEV1, signed, public.verify) == decode_receipt(RECEIPT)
    with pytest.raises(InputError, match="wrong signature"):
        open_receipt(Topics("home", "dev2"), signed, public.verify)
    with pytest.raises(InputError, match="wrong signature"):
        open_receipt(DEV1, signed.replace(b'"upto":7', b'"upto":9'), public.verify)
    with pytest.raises(InputError, match="not a receipt"):
        decode_receipt(signed)  # who does not ask for signatures expects receipts as they are


@pytest.mark.parametrize(
    "payload",
    [
        RECEIPT,
        b"",
        b"[" * 10_000,
        b'{"receipt":' + b"[" * 30_000,
        b'{"receipt":{},"signature":"00"}',
        b'{"receipt":{},"signature":"' + b"0" * 128 + b'"}',
        b'{"signature":"' + b"0" * 128 + b'"}',
        b" " * 70_000,
    ],
)
def test_what_is_no_signed_receipt(key: Path, payload: bytes) -> None:
    public = PublicKey.read(key.with_name("ops.pub"))
    with pytest.raises(InputError):
        open_receipt(DEV1, payload, public.verify)


# ---- presses ----


def fall(what: str, sequence: int, incident: Any = "f00", logid: str = "a" * 32) -> Event:
    event = make_event(
        "fall",
        what,
        {"incident": incident},
        source=source_of(*DEV1),
        unix_s=NOW_S,
        random=bytes(10),
        boot_id="b" * 32,
        monotonic_s=1.0,
        clock_trusted=True,
    )
    return event.sealed(sequence, logid)


class Button:
    """What comes to the signer; `press` gives the arguments of the cancel, None for no cancel."""

    def __init__(self, key: Path) -> None:
        self.presses = Presses(Signer(key), "home", OK)
        self.now_s = 100.0

    def hear(self, event: Event) -> None:
        found = self.presses.take(DEV1.event("fall"), encode(event), False, self.now_s, NOW_S)
        assert found is None

    def press(self, payload: bytes | None = None, retained: bool = False) -> Any:
        self.now_s += 10
        home = HomeAssistantConfig(ok_topic=OK)
        config = MqttConfig(operations_key="ops.pub", home_assistant=home)
        told = discovery_payload(DEV1, config, Vitals(), "1")
        shown = msgspec.json.decode(told)["components"]["ok"]
        assert shown["command_topic"] == OK
        body = shown["payload_press"].encode() if payload is None else payload
        order = self.presses.take(OK, body, retained, self.now_s, NOW_S)
        if order is None:
            return None
        assert order.topics == DEV1 and order.name == "cancel"
        asked = decode_command(DEV1, "cancel", msgspec.json.encode(order.payload))
        assert asked.expires_s == NOW_S + EXPIRES_S
        return order.payload.args


def test_a_press_cancels_the_incident_at_hand_and_no_later_one(key: Path) -> None:
    button = Button(key)
    assert button.press() == {}
    button.hear(fall("prealarm", 4, "f04"))
    assert button.press() == {"incident": "f04"}
    button.hear(fall("cancelled", 6, "f04"))
    button.hear(fall("suspected", 5, "f04"))  # sent again, for its receipt was lost
    assert button.press() == {}
    button.hear(fall("prealarm", 1, "f01", logid="c" * 32))  # a log begun anew
    assert button.press() == {"incident": "f01"}
    button.now_s -= 10 - EVERY_S / 2
    assert button.press() is None, "the same finger"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"PRESS",
        b"[" * 900,
        b" " * 2000,
        b'{"fleet":"home","device":"dev1"}',
        b'{"fleet":"home","device":"dev1","command":"resolve"}',
        b'{"fleet":"home","device":"+","command":"cancel"}',
        b'{"fleet":"home","device":"dev1\\n","command":"cancel"}',
        b'{"fleet":"other","device":"dev1","command":"cancel"}',
        b'{"fleet":"home","device":"dev1","command":"cancel","args":{}}',
    ],
)
def test_what_is_no_press(key: Path, payload: bytes) -> None:
    with pytest.raises(InputError):
        Button(key).press(payload)


def test_nobodys_finger(key: Path) -> None:
    button = Button(key)
    with pytest.raises(InputError, match="retained"):
        button.press(retained=True)
    for event in (fall("prealarm", 1, 5), fall("prealarm", 1, "x" * 65)):
        with pytest.raises(InputError):
            button.hear(event)
    with pytest.raises(InputError, match="is no topic"):
        Presses(Signer(key), "home", "a/#")


# ---- the command line ----


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["command", "a/b", "cancel"], 2, "a/b"),
        (["command", "+", "cancel"], 2, "'+'"),
        (["command", "dev1", "#"], 2, "'#'"),
        (["command", "dev1", "self_test", "--arg", "what"], 2, "KEY=VALUE"),
        (["command", "dev1", "self_test", "--arg", "What=x"], 2, "--arg"),
        (["command", "dev1", "cancel", "--sign-key", "nowhere"], 2, "nowhere"),
        (["command", "dev1", "cancel", "--cert", "nowhere"], 2, "belong together"),
        (["command", "dev1", "self_test", "--wait-s", "1", "--port", "1"], 5, "no connection"),
        (["sign-presses", "a/#", "--sign-key", "ops"], 2, "is no topic"),
        (["keygen", "ops"], 2, "exists"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(key.parent)
    more = [] if words[0] == "keygen" else ["--insecure", "--host", "127.0.0.1"]
    assert main(["fleet", *words, *more]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert len(said) == 1 and complaint in said[0]
