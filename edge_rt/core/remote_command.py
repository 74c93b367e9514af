"""Commands from afar: what may be asked, of whom it is believed, and what is remembered of it.

The rules are the table RULES; what it does not hold is refused, and unlocking is not in it.

A signed command carries a counter, which only rises, and an Ed25519 signature (RFC 8032) over the
UTF-8 text of these lines, joined by line feeds, without one at the end:

    edge-rt command 1
    <fleet>
    <device>
    <name>
    <id>
    <counter>
    <expires, or an empty line>
    <key>=<value>        for each argument, sorted by key

No part may hold a control character (nor, but for the value, `=`), so that no two commands have one
text; the first line keeps a signature from counting for anything else.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from edge_rt.core.errors import DaemonError, InputError
from edge_rt.core.uplink_wire import Topics

# Eight arguments of 256 characters take 2.5 KiB, at most four bytes a character.
MAX_COMMAND_BYTES = 16 * 1024
# A repeat comes within minutes: a broker's redelivery, a person's second try. Past the last 256 a
# signed command is still stopped by its counter; an unsigned one would act again, which it may.
MAX_HANDLED = 256
# A fleet changes its operations key every few years.
MAX_KEYS = 16

_NAME = re.compile(r"[a-z][a-z_]{0,31}\Z")
_Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
_Key = Annotated[str, Meta(pattern=r"^[a-z][a-z_]{0,31}\Z")]
_Value = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]
_Time = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"


class Rule(NamedTuple):
    """One command.

    signed   it weakens the watch over a person: only with a signature
    announced  whoever is at the device is told, before it is done
    slow     it takes longer than a moment: runs beside the others, one of a name at a time
    every_s  not more often. Who can write to the topic may then cost the device, every minute, a
             window of fall detection, or a few seconds of a core
    """

    signed: bool = False
    announced: bool = False
    slow: bool = False
    every_s: float = 0.0


RULES: Mapping[str, Rule] = {
    "self_test": Rule(slow=True, every_s=30.0),
    "enrol_window": Rule(announced=True, slow=True, every_s=5.0),
    "restart_pipeline": Rule(every_s=60.0),
    "model_rollback": Rule(slow=True, every_s=60.0),
    "cancel": Rule(signed=True, announced=True),
    "resolve": Rule(signed=True, announced=True),
    "disarm": Rule(signed=True, announced=True),
}

# Why a command was refused or came to nothing; `reason` of the event.
REASONS = (
    *("unknown", "not_configured", "unsigned", "bad_signature", "replayed", "expired"),
    *("id_used", "too_soon", "busy", "bad_arguments", "storage"),
    *("not_possible", "not_available", "other_incident", "no_presence", "checks_failed"),
    *("failed", "interrupted"),
)


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `cmd/<name>`.

    id         chosen by the sender, new for each command: a repeat carries the old one
    args       all values are text; numbers in decimal
    expires    RFC 3339; judged only while the device's clock can be believed
    counter, signature  see above; signature: 128 lower-case hex digits
    """

    id: _Id
    args: Annotated[dict[_Key, _Value], Meta(max_length=8)] = {}
    expires: Annotated[str, Meta(pattern=rf"^{_Time}(Z|[+-][0-9]{{2}}:[0-9]{{2}})\Z")] | None = None
    counter: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    signature: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")] | None = None


class Asked(NamedTuple):
    """A command that came. text: what a signature is over; digest: sets it apart from others."""

    name: str
    payload: Payload
    expires_s: float
    text: bytes
    digest: str


class Handled(msgspec.Struct, frozen=True):
    """A command that was let through. outcome: done, refused, failed; empty: not known yet."""

    id: str
    digest: str
    name: str
    outcome: str = ""
    reason: str = ""


class Memory(msgspec.Struct, frozen=True):
    """What survives a restart: the newest commands, and the highest counter of each key."""

    handled: tuple[Handled, ...] = ()
    counters: dict[str, int] = {}

    def find(self, id: str) -> Handled | None:
        return next((known for known in self.handled if known.id == id), None)


class OperationsKey(NamedTuple):
    """The key that signatures are judged by. id: a digest of it; verify: text, signature (64)."""

    id: str
    verify: Callable[[bytes, bytes], bool]


class Refused(DaemonError):
    """A handler will not do it; `reason` is one of REASONS; result: what can be told even so."""

    def __init__(self, reason: str, message: str, **result: Any) -> None:
        super().__init__(message)
        self.reason = reason
        self.result = result


class Decision(NamedTuple):
    """What to do. memory, if any, is saved first, durably, whether or not it is acted on.

    outcome  what to tell without acting; empty: nothing, the outcome is still to come
    """

    act: bool
    outcome: str = ""
    reason: str = ""
    memory: Memory | None = None
    repeat: bool = False


def decode_command(topics: Topics, name: str, payload: bytes) -> Asked:
    """Raises InputError for what is no command; nobody is told of it, for it has no id."""
    if not _NAME.match(name):
        raise InputError(f"{name!r:.60} is no name of a command")
    if len(payload) > MAX_COMMAND_BYTES:
        raise InputError(f"command of {len(payload)} bytes; at most {MAX_COMMAND_BYTES}")
    try:
        given = msgspec.json.decode(payload, type=Payload)
        expires_s = _unix_s(given.expires) if given.expires is not None else math.inf
        text = signed_text(topics, name, given)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise InputError(f"not a command: {error}") from None
    return Asked(name, given, expires_s, text, hashlib.sha256(text).hexdigest())


def signed_text(topics: Topics, name: str, payload: Payload) -> bytes:
    """The text that the signature of a command is over."""
    counter = "" if payload.counter is None else str(payload.counter)
    lines = ["edge-rt command 1", *topics, name, payload.id, counter, payload.expires or ""]
    lines += [f"{key}={value}" for key, value in sorted(payload.args.items())]
    return "\n".join(lines).encode()


def decide(
    asked: Asked,
    memory: Memory,
    *,
    key: OperationsKey | None,
    now_s: float | None,
    since_s: float = math.inf,
    busy: bool = False,
) -> Decision:
    """Whether to act.

    now_s    Unix time; None while the clock cannot be believed: nothing is expired then
    since_s  how long ago a command of this name was acted on
    busy     one of this name is still running
    """
    rule, payload = RULES.get(asked.name), asked.payload
    if rule is None:
        return Decision(False, "refused", "unknown")
    signed = rule.signed or payload.signature is not None
    if signed and (fault := _signature_fault(asked, key)):
        return Decision(False, "refused", fault)
    known = memory.find(payload.id)
    if known is not None:
        if known.digest != asked.digest:
            return Decision(False, "refused", "id_used")
        return Decision(False, known.outcome, known.reason, repeat=True)
    used: Memory | None = None
    if signed:
        assert key is not None and payload.counter is not None
        if payload.counter <= memory.counters.get(key.id, 0):
            return Decision(False, "refused", "replayed")
        # Used up whatever becomes of it: a command that has expired must not come to life again
        # at a start without a clock.
        used = memory = _counted(memory, key.id, payload.counter)
    if now_s is not None and now_s >= asked.expires_s:
        return Decision(False, "refused", "expired", used)
    if busy:
        return Decision(False, "refused", "busy", used)
    if since_s < rule.every_s:
        return Decision(False, "refused", "too_soon", used)
    begun = Handled(payload.id, asked.digest, asked.name)
    return Decision(True, memory=_with(memory, (*memory.handled, begun)[-MAX_HANDLED:]))


def finish(memory: Memory, id: str, outcome: str, reason: str) -> Memory:
    """The memory with what became of a command."""
    ended = tuple(
        msgspec.structs.replace(known, outcome=outcome, reason=reason) if known.id == id else known
        for known in memory.handled
    )
    return _with(memory, ended)


def interrupted(memory: Memory) -> list[Handled]:
    """After a restart: those that were begun and of which nobody knows whether they were done.

    They are not done again.
    """
    return [known for known in memory.handled if not known.outcome]


def merged(newer: Memory, older: Memory) -> Memory:
    """The memory after a backup was restored: nothing that was handled at either time is new."""
    known = {handled.id: handled for handled in (*older.handled, *newer.handled)}
    counters = older.counters | newer.counters
    highest = {
        key: max(memory.counters.get(key, 0) for memory in (newer, older)) for key in counters
    }
    kept = dict([*highest.items()][-MAX_KEYS:])
    return Memory(tuple(known.values())[-MAX_HANDLED:], kept)


def _signature_fault(asked: Asked, key: OperationsKey | None) -> str:
    if key is None:
        return "not_configured"
    signature = asked.payload.signature
    if signature is None or asked.payload.counter is None:
        return "unsigned"
    return "" if key.verify(asked.text, bytes.fromhex(signature)) else "bad_signature"


def _counted(memory: Memory, key_id: str, counter: int) -> Memory:
    counters = {name: highest for name, highest in memory.counters.items() if name != key_id}
    counters = dict([*counters.items()][1 - MAX_KEYS :])
    return msgspec.structs.replace(memory, counters={**counters, key_id: counter})


def _with(memory: Memory, handled: tuple[Handled, ...]) -> Memory:
    return msgspec.structs.replace(memory, handled=handled)


def _unix_s(stamp: str) -> float:
    """Raises ValueError for a day or hour that does not exist."""
    return datetime.fromisoformat(stamp).timestamp()


class Allowance:
    """Lets `burst` through at once and one more every `each_s`: what strangers cause is told, but
    may not fill the log. Time in seconds, monotonic."""

    def __init__(self, burst: int, each_s: float) -> None:
        self._burst = burst
        self._each_s = each_s
        self._left = float(burst)
        self._at_s = -math.inf

    def take(self, now_s: float) -> bool:
        """Whether one more may pass."""
        self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) / self._each_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
