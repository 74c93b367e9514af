"""Operating a fleet: keys, commands, and presses of "I'm OK"."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_rt.cli import options, output
from edge_rt.cli.stopping import until_stopped
from edge_rt.core.errors import EdgeRtError, InputError

if TYPE_CHECKING:
    from edge_rt.adapters.mqtt import Settings

F = TypeVar("F", bound=Callable[..., Any])


def _broker(function: F) -> F:
    """The options of a connection, as `fleet listen` spells them."""
    for option in (
        click.option("--insecure", is_flag=True, help="Plain TCP, for a broker on this machine."),
        click.option("--key", help="Its key: file of mode 0600, or a systemd credential's name."),
        click.option("--cert", type=options.FILE, help="Our certificate, that of @operator."),
        click.option("--ca", type=options.FILE, help="CAs that may vouch for the broker."),
        click.option("--fleet", "fleet", default="home", show_default=True, help="Whose device."),
        click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True),
        click.option("--host", default="localhost", show_default=True, help="The broker."),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("path", type=options.FILE, metavar="FILE")
def keygen(path: Path) -> None:
    """Make an operations key: FILE (mode 0600) to sign with, FILE.pub for the devices.

    A key that is there is never written over.
    """
    from edge_rt.adapters.operations_key import make_pair

    public = make_pair(path)
    click.echo(f"{path} signs: keep it; {public} goes to each device: mqtt.operations_key")


@click.command()
@click.argument("device")
@click.argument("name")
@_broker
@click.option("--arg", "pairs", multiple=True, metavar="KEY=VALUE", help="An argument; repeatable.")
@click.option("--sign-key", type=options.FILE, help="Sign with this operations key.")
@click.option(
    "--expires-s",
    type=click.FloatRange(0, 86400),
    default=300.0,
    show_default=True,
    help="So long the broker keeps it, and a device whose clock is set does it; 0: for ever.",
)
@click.option("--wait-s", type=click.FloatRange(1, 3600), default=60.0, show_default=True)
@options.as_json
def command(
    device: str,
    name: str,
    pairs: tuple[str, ...],
    sign_key: Path | None,
    expires_s: float,
    wait_s: float,
    as_json: bool,
    fleet: str,
    **broker: Any,
) -> None:
    """Send DEVICE the command NAME and wait for what comes of it.

    NAME: self_test, enrol_window, restart_pipeline, model_rollback; with --sign-key also cancel,
    resolve, disarm. Exit code: 0 done, 1 failed, 5 refused, 75 nothing heard in time.
    """
    from edge_rt.core.uplink_wire import Topics
    from edge_rt.core.wire import source_of
    from edge_rt.fleet.commanding import Code, details, judged, send
    from edge_rt.fleet.operations import Signer, make_payload

    source_of(fleet, device)  # a wildcard in a name would reach others
    source_of(fleet, name)
    args: dict[str, str] = {}
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not mark:
            raise InputError(f"--arg {pair}: write KEY=VALUE")
        args[key] = value
    topics = Topics(fleet, device)
    settings = _settings(fleet, **broker)
    payload = make_payload(args, time.time() + expires_s if expires_s else None)
    if sign_key is not None:
        payload = Signer(sign_key).command(topics, name, payload)
    event, status = send(settings, topics, name, payload, wait_s, expires_s)
    if event is None:
        if as_json:
            output.print_json({"id": payload.id, "outcome": "unheard", "status": status})
        state = f"is {status}" if status else "has never been here"
        output.warn(f"no outcome in {wait_s:g} s: {device} {state}; it may still come to it")
        raise click.exceptions.Exit(Code.UNHEARD)
    code, line = judged(event)
    if as_json:
        output.print_json({**event.data, "time": event.time})
    else:
        click.echo(f"{device}: {name} {line}")
        output.print_tree(details(event), indent=2)
    if code:
        raise click.exceptions.Exit(code)


@click.command("sign-presses")
@click.argument("topic")
@_broker
@click.option("--sign-key", type=options.FILE, required=True, help="The operations key.")
def sign_presses(topic: str, sign_key: Path, fleet: str, **broker: Any) -> None:
    """Turn presses of Home Assistant's "I'm OK" into signed cancels, until Ctrl-C.

    TOPIC: the devices' mqtt.home_assistant.ok_topic.
    """
    import msgspec

    from edge_rt.fleet.operations import Line, Signer
    from edge_rt.fleet.presses import EXPIRES_S, Presses

    presses = Presses(Signer(sign_key), fleet, topic)
    line = Line(_settings(fleet, **broker), presses.filters)
    stopping = until_stopped(line.wake)
    error, ready = "", False
    while not stopping:
        for fact in line.turn(1.0):
            try:
                now_s, unix_s = time.monotonic(), time.time()
                order = presses.take(fact.topic, fact.payload, fact.retained, now_s, unix_s)
            except EdgeRtError as problem:  # of one press; the next one may be what counts
                output.warn(str(problem))
                continue
            if order is None:
                continue
            body = msgspec.json.encode(order.payload)
            sent = line.publish(f"{order.topics.base}/cmd/{order.name}", body, EXPIRES_S)
            result = "cancel signed" if sent else "lost: no connection; press again"
            output.say(f"{order.topics.device}: {result}")
        if line.error != error:
            error = line.error
            if error:
                output.warn(error)
        if line.ready and not ready:
            output.say(f"waiting for presses on {topic}")
        ready = line.ready
    line.close()


COMMANDS = (keygen, command, sign_presses)


def _settings(
    fleet: str,
    host: str,
    port: int,
    ca: Path | None,
    cert: Path | None,
    key: str | None,
    insecure: bool,
) -> Settings:
    import secrets

    from edge_rt.adapters.credentials import credential_path
    from edge_rt.adapters.mqtt import Settings

    if bool(cert) != bool(key):
        raise InputError("--cert and --key belong together; give both or neither")
    if insecure:
        output.warn("--insecure: commands travel unencrypted to an unverified broker")
    # Of a name of its own: two with one throw each other out.
    return Settings(
        host,
        port,
        f"{fleet}-operator-{secrets.token_hex(4)}",
        insecure=insecure,
        ca=ca,
        cert=cert,
        key=credential_path(key) if key else None,
    )
