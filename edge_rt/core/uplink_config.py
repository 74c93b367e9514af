"""The [mqtt] section of the configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_rt.core.manifest import Struct

_Text = Annotated[str, Meta(max_length=256)]


class HomeAssistantConfig(Struct, frozen=True):
    """Announce the device to Home Assistant; needs no access from there but to the broker.

    prefix    Home Assistant's discovery prefix
    ok_topic  where a press of "I'm OK" is sent, to be signed there by who holds the operations key
              (Home Assistant can sign nothing); empty: there is no such button
    """

    enabled: bool = False
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "homeassistant"
    ok_topic: Annotated[str, Meta(pattern=r"^[^+#\x00]*$", max_length=256)] = ""


class MqttConfig(Struct, frozen=True):
    """The way to the broker.

    version      "5" or "3.1.1" (no reason codes: refusals show only as missing receipts)
    insecure     plain TCP, for a broker on this machine; warned of at each start
    ca           file of the CAs that may vouch for the broker; empty: the system's
    cert, key    client certificate and its key; the key as a secret: see password
    password     with `username`. A secret is named, never written here: a systemd credential by its
                 name, else the path of a file of mode 0600
    client_id    empty: <fleet>-<device>; a broker throws out the older of two with one id
    session_s    for so long the broker keeps messages to a device that is away
    window       messages without PUBACK at once (the broker's Receive Maximum may lower it)
    resend_s     events without a receipt for so long are sent again
    telemetry_s  how often `dt/` reports are sent; 0: never
    operations_key   file of an Ed25519 public key (PEM); empty: no signed command is accepted
    signed_receipts  only receipts that are signed with the operations key count
    alarm_patience_s  an alarm without a receipt for so long sounds the local siren
    certificate_warn_days  so long before its end `cert` is a problem in the status, and an event
    """

    enabled: bool = False
    host: _Text = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8883
    version: Annotated[str, Meta(pattern=r"^(5|3\.1\.1)$")] = "5"
    insecure: bool = False
    ca: _Text = ""
    cert: _Text = ""
    key: _Text = ""
    username: _Text = ""
    password: _Text = ""
    client_id: Annotated[str, Meta(max_length=128)] = ""
    keepalive_s: Annotated[int, Meta(ge=5, le=600)] = 30
    session_s: Annotated[int, Meta(ge=0, le=30 * 86400)] = 86400
    window: Annotated[int, Meta(ge=1, le=100)] = 20
    resend_s: Annotated[float, Meta(ge=1, le=600)] = 15.0
    alarm_patience_s: Annotated[float, Meta(ge=1, le=600)] = 30.0
    telemetry_s: Annotated[float, Meta(ge=0, le=86400)] = 60.0
    certificate_warn_days: Annotated[int, Meta(ge=0, le=365)] = 30
    operations_key: _Text = ""
    signed_receipts: bool = False
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise ValueError("cert and key belong together; set both or neither")
        if self.password and not self.username:
            raise ValueError("a password needs a username")
        if self.insecure and (self.ca or self.cert):
            raise ValueError("insecure sends everything in the clear; remove it, or ca and cert")
        if self.signed_receipts and not self.operations_key:
            raise ValueError("signed_receipts needs operations_key; set both, or neither")
        if self.home_assistant.ok_topic and not self.operations_key:
            raise ValueError("home_assistant.ok_topic needs operations_key: presses are signed")
