"""Topics and payloads of the MQTT uplink: what both ends agree on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from edge_rt.core.errors import InputError
from edge_rt.core.wire import Lane

T = TypeVar("T")

ROOT = "edge-rt/v1"
QOS = 1
# A receipt of three lanes, each full and of 12-digit numbers, takes under 60 KiB.
MAX_CONTROL_BYTES = 64 * 1024
# More gaps than this, and `upto` ends before the next one.
MAX_MISSING = 256
MAX_ALSO = 1024

_Sequence = Annotated[int, Meta(ge=1, lt=10**12)]
Range = tuple[_Sequence, _Sequence]


class Topics(NamedTuple):
    """The topics of one device. `fleet` and `device` are plain words (core.config.TopicName)."""

    fleet: str
    device: str

    @property
    def base(self) -> str:
        return f"{ROOT}/{self.fleet}/{self.device}"

    @property
    def status(self) -> str:
        return f"{self.base}/status"

    @property
    def ack(self) -> str:
        return f"{self.base}/ack"

    def event(self, kind: str) -> str:
        return f"{self.base}/evt/{kind}"

    @staticmethod
    def parse(topic: str) -> tuple[Topics, str]:
        """A topic's device and what follows it. Raises InputError for a topic not of ours."""
        parts = topic.split("/", 4)
        if len(parts) != 5 or "/".join(parts[:2]) != ROOT:
            raise InputError(f"{topic!r} is no topic of a device")
        return Topics(parts[2], parts[3]), parts[4]


class LaneReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every event of the lane up to `upto` has been stored, but for those in `missing`.

    missing  closed ranges over all lanes' sequences: the receiver cannot know a lost event's lane
    also     stored too, though past `upto`: where there are more gaps than a receipt may name
    """

    upto: Annotated[int, Meta(ge=0, lt=10**12)]
    missing: Annotated[tuple[Range, ...], Meta(max_length=MAX_MISSING)] = ()
    also: Annotated[tuple[_Sequence, ...], Meta(max_length=MAX_ALSO)] = ()

    def holds(self) -> Callable[[int], bool]:
        """Whether a sequence of the lane has been stored, as a function."""
        gaps = sorted(self.missing)
        also = frozenset(self.also)

        def held(sequence: int) -> bool:
            if sequence > self.upto:
                return sequence in also
            place = bisect_right(gaps, (sequence, 10**12)) - 1
            return place < 0 or sequence > gaps[place][1]

        return held


class ReceiptMessage(msgspec.Struct, frozen=True):
    """Payload of `ack`."""

    logid: Annotated[str, Meta(max_length=64)]
    lanes: dict[Lane, LaneReceipt]


class Status(msgspec.Struct, frozen=True):
    """Payload of `status`, retained: online at every connect, stopped, or offline (last will)."""

    status: Annotated[str, Meta(pattern="^(online|stopped|offline)$")]
    bootid: Annotated[str, Meta(max_length=64)] = ""
    logid: Annotated[str, Meta(max_length=64)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""


class SignedReceipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `ack` where receipts are signed: a receipt as it is, and a signature over
    `receipt_text` of these very bytes, in 128 lower-case hex digits."""

    receipt: msgspec.Raw
    signature: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]


_signed_receipts = msgspec.json.Decoder(SignedReceipt)
_receipts = msgspec.json.Decoder(ReceiptMessage)
_statuses = msgspec.json.Decoder(Status)


def decode_receipt(payload: bytes) -> ReceiptMessage:
    """Raises InputError for what is no receipt."""
    return decode_payload(_receipts, payload, "receipt")


def receipt_text(topics: Topics, receipt: bytes) -> bytes:
    """What a receipt's signature is over: bound to its device, and good for nothing else. A replay
    says once more what is still true."""
    return "\n".join(("edge-rt receipt 1", *topics, "")).encode() + receipt


def sign_receipt(topics: Topics, receipt: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The payload of a signed receipt. sign: text to signature, 64 bytes."""
    signature = sign(receipt_text(topics, receipt)).hex()
    return msgspec.json.encode(SignedReceipt(msgspec.Raw(receipt), signature))


def open_receipt(
    topics: Topics, payload: bytes, verify: Callable[[bytes, bytes], bool]
) -> ReceiptMessage:
    """A signed receipt. Raises InputError for any other, or one that `verify` (text, signature)
    does not believe."""
    signed = decode_payload(_signed_receipts, payload, "signed receipt")
    receipt = bytes(signed.receipt)
    if not verify(receipt_text(topics, receipt), bytes.fromhex(signed.signature)):
        raise InputError("a receipt with a wrong signature")
    return decode_receipt(receipt)


def decode_status(payload: bytes) -> Status:
    """Raises InputError for what is no status."""
    return decode_payload(_statuses, payload, "status")


def decode_payload(
    decoder: msgspec.json.Decoder[T], payload: bytes, what: str, most_bytes: int = MAX_CONTROL_BYTES
) -> T:
    """A message of anybody's, bounded before it is read. Raises InputError that names `what`."""
    if len(payload) > most_bytes:
        raise InputError(f"{what} of {len(payload)} bytes; at most {most_bytes} are accepted")
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a {what}: {error}") from None
