"""The button "I'm OK" of Home Assistant: a press becomes a signed cancel."""

from __future__ import annotations

import logging
import re
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from edge_rt.core.errors import InputError
from edge_rt.core.remote_command import Payload
from edge_rt.core.uplink_wire import ROOT, Topics, decode_payload
from edge_rt.core.wire import decode, source_of
from edge_rt.fleet.operations import Signer, make_payload

log = logging.getLogger(__name__)

# A press is about now: what comes later must not end a later incident.
EXPIRES_S = 60.0
# A finger is not faster; what comes in between is the same press.
EVERY_S = 2.0
MAX_PRESS_BYTES = 1024
MAX_DEVICES = 10_000

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class Press(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What core.home_assistant lets the button send."""

    fleet: _Name
    device: _Name
    command: Literal["cancel"]


_presses = msgspec.json.Decoder(Press)


class Order(NamedTuple):
    """A signed command for a device."""

    topics: Topics
    name: str
    payload: Payload


class Presses:
    """take() with everything that comes on `filters`.

    topic  where presses come; whoever may write there may cancel a pre-alarm
    """

    def __init__(self, signer: Signer, fleet: str, topic: str) -> None:
        if not topic or re.search(r"[+#\x00]", topic):
            raise InputError(f"{topic!r} is no topic; name the ok_topic of the devices' config")
        self.filters = [topic, f"{ROOT}/{fleet}/+/evt/fall"]
        self._signer = signer
        self._fleet = fleet
        self._topic = topic
        # The incident at hand and where in the log it stands: an event may be sent again late.
        self._incidents: dict[str, tuple[str, int, str]] = {}
        self._pressed_s: dict[str, float] = {}

    def take(
        self, topic: str, payload: bytes, retained: bool, now_s: float, unix_s: float
    ) -> Order | None:
        """What to send. Raises InputError for what is neither a press nor a fall event."""
        if topic != self._topic:
            self._follow(topic, payload)
            return None
        if retained:  # a press that the broker remembers is nobody's finger
            raise InputError("a retained press; let the button send without retain")
        press = decode_payload(_presses, payload, "press", MAX_PRESS_BYTES)
        if press.fleet != self._fleet:
            raise InputError(f"a press for fleet {press.fleet}, not {self._fleet}")
        if now_s - self._pressed_s.get(press.device, float("-inf")) < EVERY_S:
            return None
        if len(self._pressed_s) >= MAX_DEVICES:
            self._pressed_s.clear()
        self._pressed_s[press.device] = now_s
        topics = Topics(press.fleet, press.device)
        _, _, incident = self._incidents.get(press.device, ("", 0, ""))
        args = {"incident": incident} if incident else {}
        unsigned = make_payload(args, unix_s + EXPIRES_S)
        return Order(topics, "cancel", self._signer.command(topics, "cancel", unsigned))

    def _follow(self, topic: str, payload: bytes) -> None:
        topics, _ = Topics.parse(topic)
        event = decode(payload)
        if event.source != source_of(topics.fleet, topics.device) or event.kind != "fall":
            raise InputError(f"{topics.device} sent an event of {event.source!r:.100}")
        incident, place = event.data.get("incident"), event.sequence[:12]
        if not isinstance(incident, str) or len(incident) > 64 or not place.isdecimal():
            raise InputError(f"{topics.device} sent a fall without incident or place")
        logid, newest, _ = self._incidents.get(topics.device, ("", 0, ""))
        if event.logid == logid and int(place) <= newest:
            return
        if topics.device not in self._incidents and len(self._incidents) >= MAX_DEVICES:
            return
        over = event.what in ("cancelled", "resolved")
        self._incidents[topics.device] = (event.logid, int(place), "" if over else incident)
