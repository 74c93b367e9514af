"""Commands from afar and signed receipts, put together from the configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.remote_command import Memory, OperationsKey
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_wire import ReceiptMessage, Topics, decode_receipt, open_receipt
from edge_rt.runtime.clock import clock_trusted
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.control import Command
from edge_rt.runtime.places import COMMANDS_NAME
from edge_rt.runtime.remote_commands import Facts, RemoteCommands

log = logging.getLogger(__name__)


def make_remote_commands(
    place: Place, topics: Topics, table: Mapping[str, Command]
) -> RemoteCommands:
    """The service, not started. Raises CredentialError for an unusable operations key."""

    def warn(name: str) -> None:
        log.warning("%s is about to be done, by a command from afar", name)
        place.siren.notice()

    return RemoteCommands(
        topics,
        StateFile(place.folder / COMMANDS_NAME, Memory),
        table,
        announcer(place.recorder, None),
        warn,
        operations_key(place.config.mqtt),
        Facts(clock_trusted=clock_trusted),
    )


def operations_key(config: MqttConfig) -> OperationsKey | None:
    """None where none is configured. Raises CredentialError for one that cannot be used."""
    if not config.operations_key:
        return None
    # cryptography takes memory that a device without the key need not spend.
    from edge_rt.adapters.operations_key import PublicKey

    key = PublicKey.read(Path(config.operations_key))
    return OperationsKey(key.id, key.verify)


def receipts(topics: Topics, config: MqttConfig) -> Callable[[bytes], ReceiptMessage]:
    """What opens the payloads of `ack`. Raises CredentialError like operations_key."""
    key = operations_key(config)
    if key is None or not config.signed_receipts:
        return decode_receipt
    return lambda payload: open_receipt(topics, payload, key.verify)
