"""Persons whom the device knows. The daemon owns camera and templates; these commands ask it."""

from __future__ import annotations

import base64
from pathlib import Path

import click

from edge_rt.cli import options, output
from edge_rt.cli.daemon import ask
from edge_rt.core.errors import InputError
from edge_rt.runtime.client import Client

# Below the control socket's line limit, base64 included.
MAX_IMAGES = 8
MAX_BYTES = 8_000_000  # of all pictures together

_images = click.option(
    "--image", "images", type=options.FILE, multiple=True, help="Photograph instead of the camera."
)


def read_images(paths: tuple[Path, ...]) -> list[str]:
    """Picture files as base64. Raises InputError; whether they are pictures the daemon says."""
    if len(paths) > MAX_IMAGES:
        raise InputError(f"{len(paths)} pictures are too many; name at most {MAX_IMAGES}")
    contents = [_read(path) for path in paths]
    if (total := sum(map(len, contents))) > MAX_BYTES:
        raise InputError(f"{total} bytes of pictures; together they may have {MAX_BYTES}")
    return [base64.b64encode(content).decode() for content in contents]


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a JPEG or PNG picture") from None
    if not 0 < len(content) <= MAX_BYTES:
        raise InputError(f"{path}: {len(content)} bytes; a picture may have 1 to {MAX_BYTES}")
    return content


@click.group()
def face() -> None:
    """Enrol, verify, list and remove persons; agree to an enrolment anew."""


@face.command()
@click.argument("name")
@_images
@options.as_json
@options.run_dir
def enrol(run_dir: Path, as_json: bool, name: str, images: tuple[Path, ...]) -> None:
    """Enrol NAME from photographs, or from the camera: look at it and hold still."""
    ask(run_dir, "face_enrol", as_json, f"{name} enrolled", name=name, images=read_images(images))


@face.command()
@_images
@options.as_json
@options.run_dir
def verify(run_dir: Path, as_json: bool, images: tuple[Path, ...]) -> None:
    """Say who is in the photograph, or before the camera. Opens no lock."""
    ask(run_dir, "face_verify", as_json, "compared", images=read_images(images))


@face.command("list")
@options.as_json
@options.run_dir
def list_persons(run_dir: Path, as_json: bool) -> None:
    """List the enrolled persons."""
    with Client(run_dir) as client:
        answer = client.call("face_list")
    if as_json:
        output.print_json(answer)
        return
    persons = answer["persons"]
    if not persons:
        click.echo("nobody is enrolled; run: edge-rt face enrol NAME")
        return
    headers = list(persons[0])
    output.print_table(headers, [[person.get(h) for h in headers] for person in persons])


@face.command()
@click.argument("name")
@options.as_json
@options.run_dir
def remove(run_dir: Path, as_json: bool, name: str) -> None:
    """Forget NAME and every template of theirs."""
    ask(run_dir, "face_remove", as_json, f"{name} removed", name=name)


@face.command()
@click.argument("name")
@options.as_json
@options.run_dir
def anew(run_dir: Path, as_json: bool, name: str) -> None:
    """Let no update wait for NAME, who will be enrolled anew once the new embedder is live."""
    ask(run_dir, "face_anew", as_json, f"{name} will be enrolled anew", name=name)
