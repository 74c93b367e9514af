"""From the configuration to a connection: names, secrets, last will."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edge_rt.adapters import mqtt
from edge_rt.adapters.credentials import credential_path, read_secret
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_wire import Status, Topics

log = logging.getLogger(__name__)


def connection(config: MqttConfig, topics: Topics, boot_id: str) -> mqtt.Mqtt:
    """The connection that the config describes. Raises CredentialError for its secrets."""
    if config.insecure:
        log.warning("mqtt: insecure = true: events travel unencrypted to an unverified broker")
    will = Status("offline", bootid=boot_id)
    message = mqtt.Message(topics.status, msgspec.json.encode(will))
    return mqtt.Mqtt(settings_of(config, topics), message)


def settings_of(config: MqttConfig, topics: Topics) -> mqtt.Settings:
    """Where and as whom the config says to connect. Raises CredentialError for its secrets."""
    return mqtt.Settings(
        config.host,
        config.port,
        config.client_id or f"{topics.fleet}-{topics.device}",
        version=config.version,
        insecure=config.insecure,
        ca=Path(config.ca) if config.ca else None,
        cert=Path(config.cert) if config.cert else None,
        key=credential_path(config.key) if config.key else None,
        username=config.username,
        password=read_secret(config.password) if config.password else b"",
        keepalive_s=config.keepalive_s,
        session_s=config.session_s,
    )
