"""The doctor's look at the way to the broker: the certificate, and whether it lets us in."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_rt.adapters.certificate import read_certificate
from edge_rt.adapters.credentials import credential_path
from edge_rt.core.config import Config
from edge_rt.core.uplink_wire import Topics
from edge_rt.runtime.check import Check, failed
from edge_rt.runtime.clock import FIRST_YEAR

# Longer than the adapter waits for TCP and TLS.
WAIT_S = 15.0
RENEW = "renew it: edge-rt provision renew"


def check_certificate(
    config: Config, now: datetime | None = None, environment: Mapping[str, str] = os.environ
) -> Iterator[Check]:
    """The certificate is this device's, its key fits, nobody else reads that, and it lasts.

    Raises CredentialError for a file that cannot be read, or a key that others may read.
    """
    mqtt, name = config.mqtt, "certificate"
    if not mqtt.enabled or not mqtt.cert:
        return
    path, now = Path(mqtt.cert), now or datetime.now(UTC)
    found = read_certificate(path)
    if not _out_of_reach(config, environment):
        key = credential_path(mqtt.key, environment)
        if problem := _pair(path, key):
            yield problem
            return
    end = f"{found.not_after:%Y-%m-%d}"
    if now.year < FIRST_YEAR:
        yield Check(name, "ok", f"{path} ends on {end}; the clock cannot say when that is")
    elif now >= found.not_after:
        yield Check(name, "failed", f"{path} ended on {end}", RENEW)
    elif now < found.not_before:
        said = f"{path} begins on {found.not_before:%Y-%m-%d}"
        yield Check(name, "failed", said, "correct the clock, or have it signed anew")
    elif found.name != config.device.name:
        said = f"{path} is for {found.name or 'nobody'}, and this device is {config.device.name}"
        remedy = "the shipped access list refuses that: bring its own, or correct device.name"
        yield Check(name, "warning", said, remedy)
    elif (days := (found.not_after - now).days) < mqtt.certificate_warn_days:
        yield Check(name, "warning", f"{path} ends on {end}, in {days} days", RENEW)
    else:
        yield Check(name, "ok", f"{path} is for {found.name} and ends on {end}")


def _pair(cert: Path, key: Path) -> Check | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            found, remedy = f"{cert} belongs to another key than {key}", "bring the two that do"
        else:
            found, remedy = f"{key}: no readable key ({error.reason})", "bring the one made here"
        return Check("certificate", "failed", found, remedy)
    except OSError as error:
        return Check("certificate", "failed", f"{key}: {error.strerror}", "give it to this user")
    return None


def check_broker(
    config: Config, status: dict[str, Any] | None, environment: Mapping[str, str] = os.environ
) -> Iterator[Check]:
    """The broker lets this device in: as a running daemon says, else by a connection of our own.

    Raises CredentialError for a file or a secret that cannot be used.
    """
    name, mqtt = "broker", config.mqtt
    place = f"{mqtt.host}:{mqtt.port}"
    if not mqtt.enabled:
        yield Check(name, "ok", "mqtt is off")
    elif status is not None:
        yield _as_the_daemon_says(place, status["mqtt"])
    elif _out_of_reach(config, environment):
        found = "its key or password is a credential, which only the systemd service is given"
        yield Check(name, "warning", found, "start the service, then run doctor again")
    else:
        yield _connect(config, place)


def _as_the_daemon_says(place: str, mqtt: dict[str, Any] | None) -> Check:
    if mqtt is None:
        found = "the daemon runs without it"
        return Check("broker", "failed", found, "restart it, and see the service's log")
    if mqtt["error"]:
        return failed("broker", mqtt["error"], "see the service's log")
    good = mqtt["state"] == "online"
    found = f"the daemon is {mqtt['state']} at {place}"
    return Check("broker", "ok" if good else "warning", found, "look again in a minute")


def _connect(config: Config, place: str) -> Check:
    from edge_rt.adapters.mqtt import Closed, Connected, Mqtt
    from edge_rt.runtime.uplink_connection import settings_of

    settings = settings_of(config.mqtt, Topics(config.device.fleet, config.device.name))
    # A name of its own: with the device's, the broker would throw out a daemon that serves another
    # socket, and end the session in which it keeps messages for the device.
    link = Mqtt(settings._replace(client_id=f"{settings.client_id}-doctor", session_s=0))
    try:
        link.open()
        end = time.monotonic() + WAIT_S
        while (left := end - time.monotonic()) > 0:
            for fact in link.poll(left):
                if isinstance(fact, Connected):
                    link.disconnect()
                    how = "unencrypted" if config.mqtt.insecure else "TLS"
                    return Check("broker", "ok", f"{place} lets this device in ({how})")
                if isinstance(fact, Closed):
                    return failed("broker", fact.line, "it is tried again; see the broker's log")
    finally:
        link.close()
    found = f"{place} takes the connection and says nothing for {WAIT_S:g} s"
    return Check("broker", "failed", found, "see that it is a broker, and its log")


def _out_of_reach(config: Config, environment: Mapping[str, str]) -> bool:
    """A secret is a systemd credential, and we are not the service."""
    secrets = (config.mqtt.key, config.mqtt.password)
    named = any(secret and "/" not in secret for secret in secrets)
    return named and "CREDENTIALS_DIRECTORY" not in environment
