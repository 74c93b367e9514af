"""Certificates for a small fleet: an authority, requests, signatures, revocations."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_rt.cli import options, output
from edge_rt.core.errors import InputError

if TYPE_CHECKING:
    from edge_rt.fleet.certificates import Issued

_folder = click.argument("authority", type=options.FILE)
_out = click.option(
    "--out", type=options.FILE, default=Path(), show_default="this folder", help="Where to write."
)


@click.group()
def provision() -> None:
    """Make a fleet's certificates.

    On a computer of yours: `authority`. On each device: `request`. Bring NAME.csr over, `sign` it,
    take NAME.crt and ca.crt back. Keys stay where they were made.
    """


@provision.command()
@_folder
@click.option("--fleet", default="home", show_default=True)
def authority(authority: Path, fleet: str) -> None:
    """Make a certificate authority in the folder AUTHORITY; keep it offline."""
    from edge_rt.fleet.certificates import Authority

    Authority.make(authority, fleet, datetime.now(UTC))
    click.echo(f"{authority}: ca.crt for everyone, crl.pem for the broker, ca.key for nobody")


@provision.command()
@click.argument("name")
@click.option("--fleet", default="home", show_default=True)
@_out
def request(name: str, fleet: str, out: Path) -> None:
    """Make a key and a request. NAME: device, broker, @receiver, @operator or @homeassistant."""
    from edge_rt.fleet.certificates import make_request, write_private

    made = make_request(name, fleet)
    out.mkdir(parents=True, exist_ok=True)
    write_private(out / f"{name}.key", made.key)
    (out / f"{name}.csr").write_bytes(made.csr)
    click.echo(f"{out / name}.key stays here; have {out / name}.csr signed")


@provision.command()
@click.argument("cert", type=options.FILE)
@click.argument("key", type=options.FILE)
@click.option("--new-key", is_flag=True, help="Make a new key too; it waits beside KEY.")
@_out
def renew(cert: Path, key: Path, new_key: bool, out: Path) -> None:
    """Make a request for a certificate in the place of CERT, on the device that has it.

    Have it signed as the first one was, then `install` what comes back.
    """
    from edge_rt.fleet.renewal import renew, waiting_key

    name, csr = renew(cert, key, new_key=new_key)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.csr").write_bytes(csr)
    kept = f"; the new key waits in {waiting_key(key)}" if new_key else ""
    click.echo(f"have {out / name}.csr signed{kept}")


@provision.command()
@click.argument("signed", type=options.FILE)
@click.argument("cert", type=options.FILE)
@click.argument("key", type=options.FILE)
def install(signed: Path, cert: Path, key: Path) -> None:
    """Put the certificate SIGNED in the place of CERT, and the key that waits in that of KEY.

    A running daemon uses them from its next connection on.
    """
    from edge_rt.fleet.renewal import install

    ends = install(signed, cert, key, datetime.now(UTC))
    click.echo(f"{cert} ends on {ends.date()}")


@provision.command()
@_folder
@click.argument("csr", type=options.FILE)
@click.option("--name", required=True, help="The name you expect in the request.")
@click.option("--host", "hosts", multiple=True, help="For a broker: name or address it has.")
@click.option("--days", type=click.IntRange(1, 3650), default=730, show_default=True)
@_out
def sign(
    authority: Path, csr: Path, name: str, hosts: tuple[str, ...], days: int, out: Path
) -> None:
    """Sign the request in CSR: a client's, or with --host a broker's."""
    from edge_rt.fleet.certificates import Authority

    try:
        text = csr.read_bytes()
    except OSError as error:
        raise InputError(f"{csr}: {error.strerror}") from None
    signer, now = Authority(authority), datetime.now(UTC)
    if hosts:
        made = signer.sign_broker(text, name, hosts, now, days)
    else:
        made = signer.sign_device(text, name, now, days)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.crt").write_bytes(made)
    click.echo(f"{out / name}.crt")


@provision.command()
@_folder
@click.argument("name")
def revoke(authority: Path, name: str) -> None:
    """Revoke every certificate of NAME; give the broker the new crl.pem and restart it."""
    from edge_rt.fleet.certificates import Authority

    count = Authority(authority).revoke(name, datetime.now(UTC))
    click.echo(f"revoked {count}; copy {authority / 'crl.pem'} to the broker and restart it")


@provision.command("list")
@_folder
@options.as_json
def list_(authority: Path, as_json: bool) -> None:
    """What has been signed, and what ends within 60 days."""
    from edge_rt.fleet.certificates import Authority

    signer = Authority(authority)
    current, soon = signer.current(), signer.expiring(datetime.now(UTC))

    def state(entry: Issued) -> str:
        if entry.revoked:
            return "revoked"
        if entry not in current:
            return "replaced"
        return "renew" if entry in soon else "ok"

    rows = [
        {
            "name": entry.name,
            "kind": entry.kind,
            "expires": entry.expires,
            "state": state(entry),
            "serial": entry.serial,
        }
        for entry in signer.issued
    ]
    if as_json:
        output.print_json(rows)
        return
    output.print_table(
        ("name", "kind", "expires", "state"),
        [(r["name"], r["kind"], r["expires"], r["state"]) for r in rows],
    )
