"""What is let through of commands from afar, what is refused, and what is remembered."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rt.core.errors import InputError
from edge_rt.core.remote_command import (
    MAX_HANDLED,
    MAX_KEYS,
    RULES,
    Allowance,
    Asked,
    Memory,
    OperationsKey,
    Payload,
    decide,
    decode_command,
    finish,
    interrupted,
    signed_text,
)
from edge_rt.core.uplink_wire import Topics

DEV1 = Topics("home", "dev1")
SOON = "2026-01-01T00:00:00Z"
SOON_S = 1767225600.0


def fake_sign(text: bytes) -> bytes:
    """Stands for Ed25519 where only who signed what matters; its own file has the real one."""
    return hashlib.sha512(b"secret" + text).digest()


KEY = OperationsKey("k1", lambda text, signature: signature == fake_sign(text))


def ask(name: str, topics: Topics = DEV1, **fields: Any) -> Asked:
    """An unsigned command."""
    payload = {"id": "i1", **fields}
    return decode_command(topics, name, msgspec.json.encode(payload))


def signed(name: str, counter: int, id: str = "i1", at: Topics = DEV1, **fields: Any) -> Asked:
    """A command that was signed for the device `at`, and came to dev1."""
    payload = Payload(id, counter=counter, **fields)
    signature = fake_sign(signed_text(at, name, payload)).hex()
    whole = msgspec.structs.replace(payload, signature=signature)
    return decode_command(DEV1, name, msgspec.json.encode(whole))


def forged(asked: Asked, **change: Any) -> Asked:
    """Another content under the old signature."""
    payload = msgspec.structs.replace(asked.payload, **change)
    return decode_command(DEV1, asked.name, msgspec.json.encode(payload))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (ask("unlock"), "unknown"),
        (signed("unlock", 1), "unknown"),
        (signed("face_unlock", 1), "unknown"),
        (signed("help_now", 1), "unknown"),
        (ask("arm", args={"what": "falls"}), "unknown"),
        (ask("face_remove", args={"name": "Ada"}), "unknown"),
        (ask("cancel"), "unsigned"),
        (ask("resolve"), "unsigned"),
        (ask("disarm", args={"what": "falls"}), "unsigned"),
        (ask("cancel", signature="0" * 128), "unsigned"),  # of no counter
        (ask("cancel", counter=7, signature="0" * 128), "bad_signature"),
        (ask("self_test", counter=7, signature="0" * 128), "bad_signature"),
        (forged(signed("cancel", 7), counter=8), "bad_signature"),
        (forged(signed("cancel", 7), id="i2"), "bad_signature"),
        (forged(signed("cancel", 7, expires=SOON), expires=None), "bad_signature"),
        (forged(signed("disarm", 7, args={"what": "faces"}), args={"what": "falls"}), "bad_sig"),
        (signed("cancel", 7)._replace(name="resolve"), "accepted by mistake"),
        (signed("cancel", 7, at=Topics("home", "dev2")), "bad_signature"),
        (signed("cancel", 7, at=Topics("other", "dev1")), "bad_signature"),
        (signed("cancel", 5), "replayed"),
        (signed("cancel", 4), "replayed"),
        (ask("self_test", expires=SOON), "expired"),
        (signed("cancel", 7, expires=SOON), "expired"),
    ],
)
def test_what_is_refused(asked: Asked, reason: str) -> None:
    if reason == "accepted by mistake":  # the name is in the text, which is made from the topic
        asked = decode_command(DEV1, "resolve", msgspec.json.encode(asked.payload))
        reason = "bad_signature"
    memory = Memory(counters={"k1": 5})
    decision = decide(asked, memory, key=KEY, now_s=SOON_S)
    assert not decision.act and decision.outcome == "refused" and not decision.repeat
    assert decision.reason.startswith(reason)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.signed])
def test_without_a_key_no_signature_counts(name: str) -> None:
    decision = decide(signed(name, 1), Memory(), key=None, now_s=None)
    assert not decision.act and decision.reason == "not_configured"


@pytest.mark.parametrize("name", RULES)
def test_every_command_is_let_through_once_and_repeats_tell_the_same(name: str) -> None:
    asked = signed(name, 6) if RULES[name].signed else ask(name)
    first = decide(asked, Memory(counters={"k1": 5}), key=KEY, now_s=SOON_S)
    assert first.act and first.memory is not None
    assert first.memory.counters["k1"] == (6 if RULES[name].signed else 5)
    running = decide(asked, first.memory, key=KEY, now_s=SOON_S)
    assert not running.act and running.repeat and not running.outcome
    memory = finish(first.memory, "i1", "failed", "checks_failed")
    again = decide(asked, memory, key=KEY, now_s=SOON_S)
    assert not again.act and again.repeat and again.memory is None
    assert (again.outcome, again.reason) == ("failed", "checks_failed")
    other = ask(name, args={"what": "x"}) if not RULES[name].signed else signed(name, 7)
    assert decide(other, memory, key=KEY, now_s=SOON_S).reason == "id_used"


def test_the_highest_counter_of_each_key_is_kept() -> None:
    memory = Memory()
    for n in range(MAX_KEYS + 3):
        key = KEY._replace(id=f"k{n}")
        memory = (
            decide(signed("cancel", 9, id=f"i{n}"), memory, key=key, now_s=None).memory or 1 / 0
        )
    assert len(memory.counters) == MAX_KEYS
    assert memory.counters["k5"] == 9
    old = decide(signed("cancel", 9, id="new"), memory, key=KEY._replace(id="k5"), now_s=None)
    assert old.reason == "replayed"


def test_a_signed_command_is_used_up_by_its_first_sight() -> None:
    """Held back until it has expired, it must not work at a later start without a clock."""
    asked = signed("cancel", 6, expires=SOON)
    late = decide(asked, Memory(), key=KEY, now_s=SOON_S)
    assert late.reason == "expired" and late.memory is not None
    assert decide(asked, late.memory, key=KEY, now_s=None).reason == "replayed"


def test_a_clock_that_is_not_believed_expires_nothing() -> None:
    assert decide(ask("self_test", expires=SOON), Memory(), key=None, now_s=None).act
    assert decide(ask("self_test", expires=SOON), Memory(), key=None, now_s=SOON_S - 1).act


def test_who_may_write_may_not_keep_the_device_busy() -> None:
    asked = ask("restart_pipeline")
    assert decide(asked, Memory(), key=None, now_s=None, since_s=59.0).reason == "too_soon"
    assert decide(asked, Memory(), key=None, now_s=None, since_s=60.0).act
    assert decide(asked, Memory(), key=None, now_s=None, busy=True).reason == "busy"
    assert all(rule.every_s for rule in RULES.values() if not rule.signed)


def test_the_memory_is_bounded_and_knows_what_was_cut_off() -> None:
    memory = Memory()
    for n in range(MAX_HANDLED + 1):
        memory = decide(ask("self_test", id=f"i{n}"), memory, key=None, now_s=None).memory or 1 / 0
    assert len(memory.handled) == MAX_HANDLED and memory.find("i0") is None
    memory = finish(memory, "i5", "done", "")
    assert len(interrupted(memory)) == MAX_HANDLED - 1
    # 256 of the largest fit into a state file with ease.
    assert len(msgspec.json.encode(memory)) < 64 * 1024


@pytest.mark.parametrize(
    ("name", "payload", "complaint"),
    [
        ("self_test", b"", "not a command"),
        ("self_test", b"\xff", "not a command"),
        ("self_test", b"[" * 10_000, "not a command"),
        ("self_test", b'{"id":"a","args":' + b'{"a":' * 3000, "not a command"),
        ("self_test", b" " * 20_000, "at most"),
        ("self_test", b"{}", "id"),
        ("self_test", b'{"id":""}', "id"),
        ("self_test", b'{"id":"a\\n"}', "id"),
        ("self_test", b'{"id":"a","more":1}', "more"),
        ("self_test", b'{"id":"a","args":{"a":1}}', "args"),
        ("self_test", b'{"id":"a","args":{"A":"1"}}', "regex"),
        ("self_test", b'{"id":"a","args":{"a":"1\\nb=2"}}', "args"),
        ("self_test", b'{"id":"a","args":{"a":"1\\n"}}', "args"),
        ("self_test", b'{"id":"a","expires":"tomorrow"}', "expires"),
        ("self_test", b'{"id":"a","expires":"2026-02-30T00:00:00Z"}', "day"),
        ("self_test", b'{"id":"a","expires":"2026-02-03T00:00:00"}', "expires"),
        ("self_test", b'{"id":"a","counter":0}', "counter"),
        ("self_test", b'{"id":"a","counter":1e3}', "counter"),
        ("self_test", b'{"id":"a","signature":"00"}', "signature"),
        ("Self", b'{"id":"a"}', "no name"),
        ("self_test\n", b'{"id":"a"}', "no name"),
        ("", b'{"id":"a"}', "no name"),
    ],
)
def test_what_is_no_command(name: str, payload: bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        decode_command(DEV1, name, payload)


@given(st.text(max_size=8) | st.sampled_from(sorted(RULES)), st.binary(max_size=64))
def test_any_bytes_are_a_command_or_refused(name: str, payload: bytes) -> None:
    try:
        asked = decode_command(DEV1, name, payload)
    except InputError:
        return
    assert asked.payload.id


values = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)
payloads = st.builds(
    Payload,
    st.text("ab-", min_size=1, max_size=4),
    args=st.dictionaries(st.text("ab_", min_size=1, max_size=3).filter(str.isalpha), values),
    expires=st.sampled_from([None, SOON]),
    counter=st.none() | st.integers(1, 2**53),
)
places = st.sampled_from([DEV1, Topics("home", "dev2"), Topics("a", "b")])
spots = st.tuples(places, st.sampled_from(sorted(RULES)), payloads)


@given(spots, spots)
def test_no_two_commands_have_one_text(
    one: tuple[Topics, str, Payload], other: tuple[Topics, str, Payload]
) -> None:
    assert (signed_text(*one) == signed_text(*other)) == (one == other)


def test_the_text_is_as_documented() -> None:
    args = {"what": "falls", "a": "ä=b"}
    payload = Payload("i-1", args=args, counter=3, expires=SOON)
    assert signed_text(DEV1, "disarm", payload).decode() == (
        "edge-rt command 1\nhome\ndev1\ndisarm\ni-1\n3\n2026-01-01T00:00:00Z\na=ä=b\nwhat=falls"
    )
    assert signed_text(DEV1, "cancel", Payload("i")) == (
        b"edge-rt command 1\nhome\ndev1\ncancel\ni\n\n"
    )


def test_an_allowance_lets_a_burst_through_and_then_a_trickle() -> None:
    allowance = Allowance(3, 10.0)
    assert [allowance.take(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [allowance.take(t) for t in (9.0, 10.0, 11.0, 20.0)] == [False, True, False, True]
    assert [allowance.take(1e6) for _ in range(4)] == [True, True, True, False]
    assert not allowance.take(0.0), "a clock that goes back gives nothing"


def test_time_without_end() -> None:
    assert ask("self_test").expires_s == math.inf
    assert ask("self_test", expires=SOON).expires_s == SOON_S
    ask_type: Callable[..., Asked] = ask
    assert ask_type("self_test", expires="2026-01-01T01:00:00.5+01:00").expires_s == SOON_S + 0.5
