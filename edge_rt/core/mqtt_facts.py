"""What a connection to the broker reports: facts, in the order they came about."""

from __future__ import annotations

from typing import NamedTuple


class Connected(NamedTuple):
    """CONNACK success. The two limits are the broker's; 0: none given."""

    session_present: bool
    receive_maximum: int
    max_packet_bytes: int


class Closed(NamedTuple):
    """No connection any more, or none came about.

    refused  the broker said no, with this reason, in its own words
    remedy   what a person can do (core.mqtt_words); empty: nothing, it is tried again
    """

    refused: bool
    reason: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """Both, for a person."""
        said = f"the broker refuses the connection: {self.reason}" if self.refused else self.reason
        return f"{said}; {self.remedy}" if self.remedy else said


class Acked(NamedTuple):
    """PUBACK for a token. code >= 128: the broker refused the message (MQTT 5.0, 3.4.2.1)."""

    token: int
    code: int
    reason: str


class Subscribed(NamedTuple):
    """SUBACK; `refused` holds the topic filters that the broker did not grant, with reasons."""

    refused: tuple[tuple[str, str], ...]


class Received(NamedTuple):
    """A PUBLISH to us; `topic` is empty when it was not UTF-8."""

    topic: str
    payload: bytes
    retained: bool


Fact = Connected | Closed | Acked | Subscribed | Received
