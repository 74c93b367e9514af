"""Publish models to a fleet: keys, signed releases, rollouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_rt.cli import options, output
from edge_rt.core.errors import InputError

if TYPE_CHECKING:
    from edge_rt.core.catalog import Release
    from edge_rt.fleet.publisher import Passphrase, Publisher

ENDING_DAYS = 60

_folder = click.option(
    "--in",
    "folder",
    type=options.FILE,
    envvar="EDGE_RT_FLEET_DIR",
    default=Path(),
    show_default="this folder",
    show_envvar=True,
    help="The publisher's folder, as `init` made it.",
)
_passphrase = click.option(
    "--passphrase-file",
    help="What opens the keys: file of mode 0600 (with a slash), or a systemd credential's name. "
    "Asked for without.",
)
_keys = click.option(
    "--keys", multiple=True, type=options.FILE, help="Another folder with keys, as a USB stick."
)
_offline = click.option("--offline", is_flag=True, help="Sign only; send with `fleet upload`.")


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (options.as_json, _offline, _keys, _passphrase, _folder):
        command = option(command)
    return command


@click.command()
@click.argument("folder", type=options.FILE)
@click.option("--fleet", "name", default="home", show_default=True)
@click.option("--host", default="localhost", show_default=True, help="The broker.")
@click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True)
@click.option("--ca", default="", help="CAs that may vouch for the broker.")
@click.option("--cert", default="", help="Certificate of @operator.")
@click.option("--key", default="", help="Its key: file of mode 0600, or a credential's name.")
@click.option("--insecure", is_flag=True, help="Plain TCP, for a broker on this machine.")
@click.option("--root-keys", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--root-threshold", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--targets-keys", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--targets-threshold", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--separate-keys", is_flag=True, help="A passphrase for each key, and more keys.")
@_passphrase
def init(
    folder: Path,
    name: str,
    host: str,
    port: int,
    ca: str,
    cert: str,
    key: str,
    insecure: bool,
    root_keys: int,
    root_threshold: int,
    targets_keys: int,
    targets_threshold: int,
    separate_keys: bool,
    passphrase_file: str | None,
) -> None:
    """Make a publisher in the new folder FOLDER: keys, first metadata, root.json for devices.

    One passphrase for one person; with --separate-keys one is asked for each key.
    """
    from datetime import UTC, datetime

    import msgspec

    from edge_rt.fleet import publisher

    broker = {"host": host, "port": port, "insecure": insecure}
    broker |= {"ca": _absolute(ca), "cert": _absolute(cert), "key": _absolute(key)}
    plan = {
        "root": (root_keys, root_threshold),
        "targets": (targets_keys, targets_threshold),
        "separate": separate_keys,
    }
    try:
        config = msgspec.convert({"fleet": name, "broker": broker}, publisher.FleetConfig)
        chosen = msgspec.convert(plan, publisher.KeyPlan)
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from None
    ask = _asker(passphrase_file, each=separate_keys, new=True)
    publisher.init(folder, config, chosen, ask, datetime.now(UTC))
    click.echo(
        f"{folder}: give {folder / publisher.ROOT_NAME} to each device (/etc/edge-rt/root.json); "
        f"keep {folder / publisher.KEYS}/root*.pem offline"
    )


@click.command()
@click.argument("bundle")
@click.option(
    "--rollout",
    "percent",
    type=click.FloatRange(0, 100),
    required=True,
    help="Percentage of the fleet that takes it.",
)
@click.option("--unproved", is_flag=True, help="Do not run the model here first.")
@_common
def publish(bundle: str, percent: float, unproved: bool, **common: Any) -> None:
    """Put BUNDLE (a folder, or a factory bundle's name) on offer, and send it."""
    from edge_rt.adapters.probe import probe
    from edge_rt.bundle import locate

    path = locate(bundle)
    if not unproved:
        probe(path)
    _act(lambda publisher: publisher.publish(path, percent), **common)


@click.group()
def rollout() -> None:
    """Widen, pause or end the rollout of a release."""


@rollout.command("set")
@click.argument("name")
@click.argument("version")
@click.argument("percent", type=click.FloatRange(0, 100))
@_common
def set_(name: str, version: str, percent: float, **common: Any) -> None:
    """Have NAME VERSION taken by PERCENT of the fleet; a paused one goes on."""
    _act(lambda publisher: publisher.roll_out(name, version, percent), **common)


@rollout.command()
@click.argument("name")
@click.argument("version")
@_common
def pause(name: str, version: str, **common: Any) -> None:
    """Nobody else takes NAME VERSION; who has it keeps it."""
    _act(lambda publisher: publisher.pause(name, version), **common)


@rollout.command()
@click.argument("name")
@click.argument("version")
@_common
def abort(name: str, version: str, **common: Any) -> None:
    """Who has NAME VERSION on trial goes back to the model before."""
    _act(lambda publisher: publisher.abort(name, version), **common)


@click.command()
@click.argument("name")
@click.argument("version")
@_common
def withdraw(name: str, version: str, **common: Any) -> None:
    """Who has NAME VERSION at all goes back to the model before."""
    _act(lambda publisher: publisher.withdraw(name, version), **common)


@click.command()
@click.argument("name")
@click.argument("version")
@_common
def forget(name: str, version: str, **common: Any) -> None:
    """Strike NAME VERSION from the catalog; who has it keeps it."""
    _act(lambda publisher: publisher.forget(name, version), **common)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Catalog and snapshot too, for a year.")
@_common
def refresh(everything: bool, **common: Any) -> None:
    """Sign the timestamp for another 30 days, so that devices go on believing the broker.

    For a timer: its key opens with keys/timestamp.passphrase, no other is needed.
    """
    # A timer's computer has no bundles: the chunks stay on the broker as they are.
    _act(lambda publisher: publisher.refresh(everything=everything), chunks=False, **common)


@click.command("rotate-key")
@click.argument("role", type=click.Choice(["root", "targets", "snapshot", "timestamp"]))
@click.option("--new-passphrase-file", help="What opens the new keys; asked for without.")
@_common
def rotate_key(role: str, new_passphrase_file: str | None, **common: Any) -> None:
    """Put new keys in the place of those of ROLE; needs the root keys."""
    ask = _asker(new_passphrase_file, each=False, new=True)

    def rotate(publisher: Publisher) -> None:
        for path in publisher.rotate(role, ask):
            output.warn(f"{path} opens nothing any more; remove it, and every copy")

    _act(rotate, **common)


@click.command()
@click.option("--again", is_flag=True, help="Everything, whatever the broker seems to have.")
@_folder
@options.as_json
def upload(again: bool, folder: Path, as_json: bool) -> None:
    """Send what is signed and not on the broker yet."""
    with _locked(folder):
        publisher = _publisher(folder, _asker(None, each=True, new=False), ())

        def catch_up(publisher: Publisher) -> None:
            if publisher.repository.outrun:  # a timer has signed since, for what was there then
                publisher.refresh()

        _send(publisher, catch_up, again=again, chunks=True, as_json=as_json)


@click.command()
@click.option("--offline", is_flag=True, help="Ask no broker who runs what.")
@_folder
@options.as_json
def status(offline: bool, folder: Path, as_json: bool) -> None:
    """Releases, how far each is out, who runs what, and when signatures end."""
    from edge_rt.fleet.running import running, share

    publisher = _publisher(folder, None, ())
    rows = [] if offline else running(_settings(publisher), publisher.config.fleet)
    releases = [
        {
            "name": release.name,
            "version": release.version,
            "task": release.task,
            "state": release.state,
            "percent": release.rollout.percent,
            "bytes": release.size,
            **({} if offline else share(rows, release.name, release.version)),
        }
        for release in publisher.catalog.releases
    ]
    devices = [
        {"device": row.device, "status": row.status, "task": row.task, **_model(row.model)}
        for row in rows
    ]
    ends = {role: end.isoformat() for role, end in publisher.repository.expiries.items()}
    if as_json:
        output.print_json({"releases": releases, "devices": devices, "ends": ends})
        return
    columns = ["name", "version", "task", "state", "percent", "bytes"]
    columns += [] if offline else ["devices"]
    output.print_table(columns, [[row[column] for column in columns] for row in releases])
    if not releases:
        click.echo("no releases")
    if devices:
        click.echo()
        output.print_table(list(devices[0]), [list(row.values()) for row in devices])
    click.echo()
    output.print_tree({"signed until": ends})
    _warn_of_ends(publisher)


COMMANDS = (init, publish, rollout, refresh, withdraw, forget, rotate_key, upload, status)


# ---- helpers ----


def _act(
    act: Callable[[Publisher], Release | None],
    folder: Path,
    passphrase_file: str | None,
    keys: tuple[Path, ...],
    offline: bool,
    as_json: bool,
    chunks: bool = True,
) -> None:
    """Sign something, then send it."""
    with _locked(folder):
        publisher = _publisher(folder, _asker(passphrase_file, each=True, new=False), keys)
        if offline:
            release = act(publisher)
            _tell(release, {"sent": 0}, as_json)
        else:
            _send(publisher, act, again=False, chunks=chunks, as_json=as_json)
        _warn_of_ends(publisher)


def _send(
    publisher: Publisher,
    act: Callable[[Publisher], Release | None],
    *,
    again: bool,
    chunks: bool,
    as_json: bool,
) -> None:
    from edge_rt.fleet.upload import Upload

    with (
        output.progress("sending") as advance,
        Upload(publisher, _settings(publisher), progress=advance) as upload,
    ):
        upload.catch_up(again=again)
        release = act(publisher)
        done = upload.run(again=again, chunks=chunks)
    _tell(release, done._asdict(), as_json)


def _tell(release: Release | None, done: dict[str, Any], as_json: bool) -> None:
    what: dict[str, Any] = {}
    if release is not None:
        what = {"name": release.name, "version": release.version, "state": release.state}
        what |= {"percent": release.rollout.percent, "sha256": release.sha256}
    if as_json:
        output.print_json({**what, **done})
    else:
        # Whether chunks were taken for sent is for programs; a person would think it failed.
        output.print_tree({**what, **{k: v for k, v in done.items() if k != "complete"}})


def _publisher(folder: Path, ask: Passphrase | None, keys: tuple[Path, ...]) -> Publisher:
    from edge_rt.fleet.publisher import Publisher

    return Publisher(folder, ask or _never, keys)


def _never(path: Path) -> bytes:
    raise AssertionError(f"{path}: nothing is to be signed here")


def _locked(folder: Path) -> Any:
    """The folder for ourselves: two acts at once would sign one version twice."""
    from edge_rt.adapters.statedir import StateDir
    from edge_rt.fleet.publisher import SETTINGS_NAME

    if not (folder / SETTINGS_NAME).is_file():
        raise InputError(
            f"{folder}: no publisher here; make one with `fleet init`, or name it: --in"
        )
    return StateDir(folder)


def _settings(publisher: Publisher) -> Any:
    from edge_rt.adapters.credentials import credential_path
    from edge_rt.adapters.mqtt import Settings

    broker = publisher.config.broker
    if broker.insecure:
        output.warn("insecure = true: models are signed, but who reads them along is not known")
    return Settings(
        broker.host,
        broker.port,
        f"{publisher.config.fleet}-operator",
        insecure=broker.insecure,
        ca=Path(broker.ca) if broker.ca else None,
        cert=Path(broker.cert) if broker.cert else None,
        key=credential_path(broker.key) if broker.key else None,
    )


def _asker(file: str | None, *, each: bool, new: bool) -> Passphrase:
    """How passphrases are come by. each: one for each key; new: twice, to be sure."""
    from edge_rt.adapters.credentials import read_secret

    known: dict[str, bytes] = {}

    def ask(path: Path) -> bytes:
        if file is not None:
            return read_secret(file)
        name = path.name if each else ""
        if name not in known:
            what = f"Passphrase of {name}" if each else "Passphrase"
            answer: str = click.prompt(what, hide_input=True, confirmation_prompt=new, err=True)
            known[name] = answer.encode()
        return known[name]

    return ask


def _absolute(name: str) -> str:
    """A file by its full path; a credential's name (no slash, no such file) as it is."""
    return str(Path(name).absolute()) if name and ("/" in name or Path(name).exists()) else name


def _model(model: Any) -> dict[str, str]:
    return {"name": model.name, "version": model.version, "state": model.state}


def _warn_of_ends(publisher: Publisher) -> None:
    for role, end in publisher.ending(ENDING_DAYS).items():
        if role != "timestamp":  # it lives for 30 days, a timer's business
            command = "rotate-key root" if role == "root" else "refresh --all"
            output.warn(f"the signature of {role} ends {end:%Y-%m-%d}: edge-rt fleet {command}")
