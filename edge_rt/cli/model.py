"""Model bundles: describe one, prove one; see what runs, and go back.

Native code sees the file that is described in a child process only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from edge_rt.adapters.probe import MEMORY_MB, TIMEOUT_S, ProbeReport, TensorReport, probe
from edge_rt.cli import options, output
from edge_rt.core.errors import InputError
from edge_rt.runtime.client import Client


@click.group()
def model() -> None:
    """Inspect and verify bundles; see what runs, go back to the previous one."""


@model.command()
@click.argument("bundle")
@options.engine
@options.as_json
def inspect(bundle: str, engine: str, as_json: bool) -> None:
    """Describe BUNDLE: a factory name, a bundle folder, or a bare .tflite file."""
    path, answer = _identify(bundle)
    report = probe(path, engine, run=False)
    if as_json:
        output.print_json({**answer, "tensors": _tensors(report), "ops": report.ops})
        return
    output.print_tree(answer)
    _print_tensors(report)
    click.echo()
    output.print_table(["operation", "count"], list(report.ops.items()))


@model.command()
@click.argument("bundle")
@options.engine
@click.option("--timeout-s", type=click.FloatRange(1), default=TIMEOUT_S, show_default=True)
@click.option(
    "--memory-mb",
    type=click.IntRange(1),
    default=MEMORY_MB,
    show_default=True,
    help="What the model may take on top of the engine.",
)
@options.as_json
def verify(bundle: str, engine: str, timeout_s: float, memory_mb: int, as_json: bool) -> None:
    """Prove BUNDLE: manifest, hashes, tensors, golden vectors, latency budget, memory."""
    path, answer = _identify(bundle)
    if not path.is_dir():
        raise InputError(f"{path}: a bare model has nothing to verify against; name a bundle")
    report = probe(path, engine, timeout_s=timeout_s, memory_mb=memory_mb)
    if as_json:
        output.print_json({"ok": True, "folder": str(path), **msgspec.to_builtins(report)})
        return
    golden, latency = report.golden, report.latency
    assert golden is not None and latency is not None  # the child was told to run the model
    output.print_tree(
        {
            "bundle": f"{answer['name']} {answer['version']} ({path})",
            "hashes": f"{len(answer['files'])} files agree with the manifest",
            "tensors": "agree with the manifest",
            "engine": report.engine,
            "golden": f"{golden.cases} cases, worst difference {golden.worst:g} "
            f"of {golden.tolerance:g} allowed",
            "latency": f"p50 {latency.p50_ms:.3g} ms, p95 {latency.p95_ms:.3g} ms "
            f"of {latency.budget_ms:g} allowed ({latency.runs} runs)",
            "memory": f"{report.peak_mb:g} MB at most, {report.grew_mb:g} of them for the model",
        }
    )
    click.echo("verified")


@model.command()
@options.as_json
@options.run_dir
def status(run_dir: Path, as_json: bool) -> None:
    """Show which models run, and where an update stands."""
    with Client(run_dir) as client:
        answer = client.call("model_status")
    if as_json:
        output.print_json(answer)
        return
    output.print_tree(answer)


@model.command()
@click.option(
    "--task",
    type=click.Choice(["fall", "face-detect", "face-embed"]),
    default="fall",
    show_default=True,
)
@options.as_json
@options.run_dir
def rollback(run_dir: Path, as_json: bool, task: str) -> None:
    """Go back to the previous model; the present version is not taken again."""
    with Client(run_dir) as client:
        answer = client.call("model_rollback", task=task)
    if as_json:
        output.print_json(answer)
        return
    click.echo(f"{task}: now {answer['name']} {answer['version']}")


def _identify(name: str) -> tuple[Path, dict[str, Any]]:
    """Folder or file, and what can be said before any native code has seen it."""
    from edge_rt.adapters.bundle_files import read_bundle
    from edge_rt.bundle import locate

    path = Path(name)
    if path.suffix == ".tflite":
        if not path.is_file():
            raise InputError(f"{path}: no such file; name a bundle or a .tflite file")
        return path, {"file": str(path), "bytes": path.stat().st_size}
    files = read_bundle(locate(name))
    manifest: dict[str, Any] = msgspec.to_builtins(files.manifest)
    return files.folder, {"folder": str(files.folder), "hashes": "ok", **manifest}


def _tensors(report: ProbeReport) -> dict[str, Any]:
    return {
        "engine": report.engine,
        "inputs": msgspec.to_builtins(report.inputs),
        "outputs": msgspec.to_builtins(report.outputs),
    }


def _print_tensors(report: ProbeReport) -> None:
    def row(kind: str, t: TensorReport) -> list[object]:
        shape = " x ".join(map(str, t.shape))
        return [kind, t.name, shape, t.dtype, t.scale or None, t.zero_point]

    click.echo(f"\nas {report.engine} sees it")
    rows = [row("input", t) for t in report.inputs] + [row("output", t) for t in report.outputs]
    output.print_table(["", "tensor", "shape", "type", "scale", "zero point"], rows)
