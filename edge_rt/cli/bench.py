"""Benchmarks of this machine: never part of a test, always with what they were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edge_rt.cli import options, output

PARTS = ("falls", "faces", "wrapper", "daemon")


@click.command()
@click.option("--quick", is_flag=True, help="A first impression in a fraction of the time.")
@click.option(
    "--only", type=click.Choice(PARTS), multiple=True, help="Only this part; may be repeated."
)
@options.engine
@options.as_json
def bench(quick: bool, only: tuple[str, ...], engine: str, as_json: bool) -> None:
    """Measure latency by stage, the wrapper's cost, cold start and memory.

    Stages are timed one by one on the live objects; the wrapper alternates with the bare engine in
    one run; cold start and memory are those of fresh daemons on simulated input.
    """
    from edge_rt.evaluation import bench as measure

    effort = measure.QUICK if quick else measure.FULL
    parts = [part for part in PARTS if part in (only or PARTS)]
    result: dict[str, Any] = {"machine": measure.machine(), "quick": quick}
    with output.progress("benchmarks") as advance:
        for done, part in enumerate(parts):
            advance(done, len(parts))
            result[part] = _measure(part, engine, effort, quick)
    result["machine"]["load_1min_after"] = measure.machine()["load_1min"]
    if as_json:
        output.print_json(result)
    else:
        _print(result)


def _measure(part: str, engine: str, effort: Any, quick: bool) -> Any:
    from edge_rt.bundle import factory_bundles, open_bundle
    from edge_rt.evaluation import bench as measure

    if part == "falls":
        return measure.bench_falls(open_bundle("fall-waist", engine), effort)
    if part == "faces":
        from edge_rt.core.config import FaceConfig
        from edge_rt.evaluation.bench_faces import bench_faces

        threads = FaceConfig().threads  # as the daemon runs it
        embed = open_bundle("face-embed", engine, threads)
        result = bench_faces(open_bundle("face-detect", engine), embed, effort.frames)
        return {"embedder_threads": threads, **result}
    if part == "wrapper":
        names = factory_bundles()
        return [measure.bench_wrapper(open_bundle(name, engine), effort) for name in names]
    return _daemon(engine, runs=1 if quick else 5)


def _daemon(engine: str, runs: int) -> dict[str, Any]:
    from statistics import median

    from edge_rt.runtime.footprint import measure

    seen = [measure(engine) for _ in range(runs)]
    return {
        "engine": seen[0].engine,
        "how": f"median of {runs} fresh daemons on simulated input and demo pictures, from exec; "
        "memory 5 s later, each page shared with other programs counted in part",
        "start_to_fall_decision_s": median(run.falls_s for run in seen),
        "start_to_first_frame_s": median(run.faces_s for run in seen),
        "pss_mb": median(run.pss_mb["total"] for run in seen),
        "pss_mb_by_process": seen[0].pss_mb,
    }


def _print(result: dict[str, Any]) -> None:
    output.print_tree(result.pop("machine"))
    for part in PARTS:
        if part not in result:
            continue
        click.echo(f"\n{part}")
        rows = result[part]
        if isinstance(rows, list):
            output.print_table(list(rows[0]), [list(row.values()) for row in rows])
            continue
        stages = rows.pop("stages", {})
        timed = {k: rows.pop(k) for k, v in list(rows.items()) if _is_timed(v)}
        output.print_tree(rows)
        if stages or timed:
            click.echo()
            table = {**stages, **timed}
            headers = ["stage", *next(iter(table.values()))]
            output.print_table(headers, [[name, *v.values()] for name, v in table.items()])


def _is_timed(value: object) -> bool:
    return isinstance(value, Mapping) and "p50_ms" in value
