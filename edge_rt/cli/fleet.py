"""The other side of MQTT: receive a fleet's events, see what has come, publish models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_rt.cli import fleet_operate, fleet_report, options, output, publish
from edge_rt.cli.stopping import until_stopped
from edge_rt.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_rt.adapters.mqtt import Settings
    from edge_rt.fleet.notifier import Notifier
    from edge_rt.fleet.notify_config import NotifyConfig
    from edge_rt.fleet.store import Arrived, Store


@click.group()
def fleet() -> None:
    """Receive a fleet's events and see what has come; send it commands and models."""


for command in (*publish.COMMANDS, fleet_report.report, *fleet_operate.COMMANDS):
    fleet.add_command(command)


@fleet.command()
@click.option("--host", default="localhost", show_default=True, help="The broker.")
@click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True)
@click.option("--fleet", "name", default="home", show_default=True, help="Whose events.")
@click.option("--ca", type=options.FILE, help="CAs that may vouch for the broker.")
@click.option("--cert", type=options.FILE, help="Our certificate.")
@click.option("--key", help="Its key: file of mode 0600, or a systemd credential's name.")
@click.option("--insecure", is_flag=True, help="Plain TCP, for a broker on this machine.")
@click.option("--store", type=options.FILE, required=True, help="Folder to keep events in.")
@click.option("--silent-after", type=click.FloatRange(1), default=60.0, show_default=True)
@click.option(
    "--unheard-after",
    type=click.FloatRange(0),
    default=0.0,
    help="A device is silent after so many seconds without a word, too; 0: never.",
)
@click.option("--notify", "people", help="Who is told: file of mode 0600, or a credential's name.")
@click.option("--sign-key", type=options.FILE, help="Sign receipts with this operations key.")
@options.as_json
def listen(
    host: str,
    port: int,
    name: str,
    ca: Path | None,
    cert: Path | None,
    key: str | None,
    insecure: bool,
    store: Path,
    silent_after: float,
    unheard_after: float,
    people: str | None,
    sign_key: Path | None,
    as_json: bool,
) -> None:
    """Keep every event of a fleet and receipt it, until Ctrl-C.

    On a terminal a live table shows the devices; into a pipe each event is a line, with --json
    its JSON. An event is in STORE, as SQLite and as JSON lines, before its device hears that it
    has come.
    """
    from edge_rt.adapters.credentials import credential_path
    from edge_rt.adapters.mqtt import Settings
    from edge_rt.fleet.store import Store

    if bool(cert) != bool(key):
        raise InputError("--cert and --key belong together; give both or neither")
    config = _people(people) if people else None
    if insecure:
        output.warn("--insecure: events travel unencrypted from an unverified broker")
    settings = Settings(
        host,
        port,
        f"{name}-receiver",
        insecure=insecure,
        ca=ca,
        cert=cert,
        key=credential_path(key) if key else None,
        session_s=86400,
        receive_maximum=1000,
    )
    sign = None
    if sign_key is not None:
        from edge_rt.adapters.operations_key import PrivateKey

        sign = PrivateKey.read(sign_key).sign
    kept = Store(store)
    try:
        _listen(settings, name, kept, silent_after, unheard_after, config, sign, as_json)
    finally:
        kept.close()


def _listen(
    settings: Settings,
    name: str,
    store: Store,
    silent_s: float,
    unheard_s: float,
    people: NotifyConfig | None,
    sign: Callable[[bytes], bytes] | None,
    as_json: bool,
) -> None:
    import time

    from edge_rt.cli.fleet_view import make_fleet_view
    from edge_rt.core.uplink_link import State
    from edge_rt.core.uplink_wire import Topics
    from edge_rt.fleet.receiver import Listeners, Receiver

    def show(arrived: Arrived) -> None:
        if notifier:
            notifier.take(arrived)
        view.event(arrived)

    def say(what: str, topics: Topics) -> None:
        output.warn(f"device {topics.device} {what}")

    listeners = Listeners(show, lambda t: say("is silent", t), lambda t: say("is back", t))
    receiver = Receiver(
        settings,
        name,
        store,
        silent_s=silent_s,
        unheard_s=unheard_s,
        listeners=listeners,
        sign=sign,
    )
    notifier = _notifier(people, store, receiver.wake) if people else None
    stopping = until_stopped(receiver.wake)
    error = ""
    with make_fleet_view(store, live=sys.stdout.isatty(), as_json=as_json) as view:
        while not stopping:
            receiver.turn(1.0)
            if notifier:
                online = receiver.state is State.ONLINE and receiver.subscribed
                notifier.turn(time.time(), receiver.devices, online)
            view.turn(receiver)
            if receiver.error != error:
                error = receiver.error
                if error:
                    output.warn(error)
    receiver.close()
    if notifier:
        notifier.close()


def _notifier(people: NotifyConfig, store: Store, wake: Callable[[], None]) -> Notifier:
    from edge_rt.fleet.notifier import Notifier, Said

    def say(said: Said) -> None:
        result = f"failed ({said.error}), try {said.tries}" if said.error else "told"
        output.warn(f"{said.title}: {said.person} by {said.service}: {result}")

    return Notifier(people, store, said=say, wake=wake)


def _people(name: str) -> NotifyConfig:
    from edge_rt.adapters.credentials import read_secret
    from edge_rt.fleet.notify_config import parse_notify_config

    return parse_notify_config(read_secret(name), name)


@fleet.command()
@click.argument("people")
@click.option("--test", is_flag=True, help="Send everybody a test message.")
@options.as_json
def notify(people: str, test: bool, as_json: bool) -> None:
    """Who is told when something happens; with --test, whether it reaches them.

    PEOPLE is a file of mode 0600 (with a slash, as in ./fleet.toml), or a systemd credential's
    name. Exit code 1 if a service did not take the test.
    """
    from edge_rt.fleet.services import digest, services_of, try_out

    config = _people(people)
    _, labels = services_of(config)
    rows: list[dict[str, Any]] = [
        {"person": person.name, "service": labels[digest(url)], "after_s": person.after_s}
        for person in config.people
        for url in person.urls
    ]
    if test:
        for row, error in zip(rows, try_out(config), strict=True):
            row["result"] = f"failed: {error}" if error else "ok"
    if as_json:
        output.print_json(rows)
    else:
        output.print_table(list(rows[0]), [list(row.values()) for row in rows])
    if any(row.get("result", "ok") != "ok" for row in rows):
        raise click.exceptions.Exit(1)


@fleet.command()
@click.argument("store", type=options.FILE)
@options.as_json
def notices(store: Path, as_json: bool) -> None:
    """What is open in STORE, and who was told of it: by which service, how often, with success."""
    from edge_rt.fleet.notices import FILE, Notices

    if not (store / FILE).is_file():
        raise InputError(f"{store}: nobody was ever told; start fleet listen with --notify")
    kept = Notices(store)
    rows: list[dict[str, Any]] = [
        {
            "kind": row.matter.kind,
            "device": row.matter.device,
            "what": row.matter.what,
            "end": row.matter.end,
            "person": row.person,
            "service": row.label,
            "round": row.told.round + 1,
            "tries": row.told.tries,
            "result": "told" if row.told.done else row.told.error,
        }
        for row in kept.rows()
    ]
    kept.close()
    if as_json:
        output.print_json(rows)
    elif rows:
        output.print_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        click.echo("nothing is open")


@fleet.command()
@click.argument("store", type=options.FILE)
@options.as_json
def devices(store: Path, as_json: bool) -> None:
    """What STORE holds, log by log: how far, what is missing, how often something came twice."""
    from edge_rt.fleet.store import read_logs

    rows: list[dict[str, Any]] = []
    for (source, logid), state in read_logs(store).items():
        newest = max(state.lanes.values(), default=0)
        rows.append(
            {
                "device": source.rsplit("/", 1)[-1],
                "log": logid,
                "newest": newest,
                "missing": state.gaps(),
                "repeats": state.repeats,
                "conflicts": state.conflicts,
            }
        )
    if as_json:
        output.print_json(rows)
        return
    shown = [
        (
            row["device"],
            str(row["log"])[:8],
            row["newest"],
            ", ".join(f"{a}-{b}" for a, b in row["missing"][:5]) or "-",
            row["repeats"],
            row["conflicts"],
        )
        for row in rows
    ]
    output.print_table(("device", "log", "newest", "missing", "repeats", "conflicts"), shown)
