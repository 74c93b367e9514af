"""A process with a fork server, as the daemon is one; pytest has threads, so it cannot be.

    python trial_peer.py ENGINE       then orders in, outcomes out, JSON lines

An order: {"ask": "self_test" | "challenge" | "mutants" | "memory" | "watch" | "watched" | "kill" |
"threads" | "no fork" | "no descriptor", "folder", "deed", "at", "timeout_s", "memory_mb",
"context", "count", "seed"}.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as `edge-rt run` does: a pool of threads forbids forks

import json
import logging
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from mutants import mutants

from edge_rt.adapters.bundle_files import read_bundle, write_manifest
from edge_rt.adapters.tflite import choose_engine, load_engine
from edge_rt.bundle import open_bundle
from edge_rt.core.challenge import ChallengeContext
from edge_rt.core.errors import DaemonError, EdgeRtError, PublisherError
from edge_rt.core.fall import rules_for
from edge_rt.core.trying import Ended, Runner
from edge_rt.core.types import SampleBlock
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.falls.simulate import simulate
from edge_rt.runtime.footprint import family
from edge_rt.runtime.trial_child import work
from edge_rt.runtime.trying import Trier, Zygote, start_zygote
from rogues.models import rogue

BURST = 8  # samples: a hop
NOBODY = 65534


class Wrapped(msgspec.Struct):
    task: bytes
    deed: str
    at: str


def rogue_work(wrapped: bytes, descriptor: int) -> int:
    order = msgspec.msgpack.decode(wrapped, type=Wrapped)
    if not order.deed:
        return work(order.task, descriptor)
    return work(order.task, descriptor, rogue(order.deed, order.at))


def honest(zygote: Zygote) -> Runner:
    def run(task: bytes, timeout_s: float) -> Ended:
        return zygote(msgspec.msgpack.encode(Wrapped(task, "", "")), timeout_s)

    return run


def damaged(zygote: Zygote, engine: str, order: dict[str, Any]) -> dict[str, Any]:
    """Try damaged copies of a bundle's model; how each ended, by kind."""
    source = Path(order["folder"])
    files = read_bundle(source)
    manifest = msgspec.to_builtins(files.manifest)
    del manifest["files"]
    trier = Trier(honest(zygote), engine, timeout_s=5.0, memory_mb=128)
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "candidate"
        shutil.copytree(source, folder)
        for model in mutants(files.model, order["count"], order["seed"]):
            (folder / files.manifest.model).write_bytes(model)
            write_manifest(folder, manifest)  # as signed: its hashes are right
            try:
                trier.self_test(folder)
            except PublisherError as error:
                told[kind_of(str(error), engine)] += 1
            else:
                told["passed"] += 1
    return {"told": told, "alive": zygote.pid in family(os.getpid())}


def kind_of(reason: str, engine: str) -> str:
    for part in (
        "the engine crashed",
        "hangs",
        "asked for more",
        "golden vectors",
        "cannot load",
        "manifest",
    ):
        if part in reason:
            return part
    if f": {engine}" in reason:  # in the engine's own words, at run time
        return "cannot run"
    return "other: " + reason.partition(": ")[2][:60]


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


class Watch:
    """A fall pipeline on a simulated walk, at the pace of a sensor, beside the trials."""

    def __init__(self, engine: str) -> None:
        self.bundle = open_bundle("fall-waist", engine)
        self.pipeline = FallPipeline(
            FallDetector(self.bundle, rate_hz=50.0),
            rules_for(self.bundle.manifest),
            lambda: "incident",
            range_g=16.0,
        )
        self.block = simulate((("walk", 60.0),), 1).block
        self.late_s: list[float] = []
        self.done = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        begun = time.monotonic() - float(self.block.t_s[0])
        while not self.stop.is_set() and self.done + BURST <= len(self.block.t_s):
            part = slice(self.done, self.done + BURST)
            due = begun + float(self.block.t_s[self.done + BURST - 1])
            self.stop.wait(max(0.0, due - time.monotonic()))
            self.pipeline.push(SampleBlock(self.block.t_s[part], self.block.acc_g[part]))
            self.late_s.append(time.monotonic() - due)
            self.done += BURST

    def end(self) -> dict[str, Any]:
        self.stop.set()
        self.thread.join()
        whole = FallDetector(self.bundle, rate_hz=50.0)
        seen = SampleBlock(self.block.t_s[: self.done], self.block.acc_g[: self.done])
        return {
            "hops": self.pipeline.hops,
            "expected": len(whole.push(seen)),
            "failures": self.pipeline.status()["detector_failures"],
            "late_p99_s": sorted(self.late_s)[int(0.99 * len(self.late_s))],
            "bursts": len(self.late_s),
        }


WATCHES: list[Watch] = []


def without(limit: int, value: int, engine: str) -> dict[str, Any]:
    """Another fork server where the machine gives no more of something."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    if os.getuid() == 0:  # whom the number of processes does not bind
        os.setresuid(NOBODY, NOBODY, NOBODY)
    before, (soft, hard) = descriptors(), resource.getrlimit(limit)
    resource.setrlimit(limit, (value, hard))
    made = start_zygote(engine) is not None
    resource.setrlimit(limit, (soft, hard))
    return {"zygote": made, "said": said, "left": len(descriptors()) - len(before)}


def descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def answer(zygote: Zygote, engine: str, order: dict[str, Any]) -> dict[str, Any]:
    if order["ask"] == "kill":
        os.kill(zygote.pid, signal.SIGKILL)
        return {}
    if order["ask"] == "mutants":
        return damaged(zygote, engine, order)
    if order["ask"] == "watch":
        WATCHES.append(Watch(engine))
        return {}
    if order["ask"] == "watched":
        return WATCHES.pop().end()
    if order["ask"] == "memory":
        return {"daemon": pss_mb(os.getpid()), "server": pss_mb(zygote.pid)}
    if order["ask"] == "threads":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        return {"zygote": start_zygote(engine) is not None}
    if order["ask"] == "no fork":
        return without(resource.RLIMIT_NPROC, 0, engine)
    if order["ask"] == "no descriptor":
        return without(resource.RLIMIT_NOFILE, max(descriptors()) + 1, engine)  # one is free

    def run(task: bytes, timeout_s: float) -> Ended:
        wrapped = Wrapped(task, order.get("deed", ""), order.get("at", ""))
        return zygote(msgspec.msgpack.encode(wrapped), timeout_s)

    timeout_s = order.get("timeout_s", 60.0)
    trier = Trier(
        zygote if order.get("plain") else run,
        engine,
        timeout_s=timeout_s,
        challenge_s=timeout_s,
        memory_mb=order.get("memory_mb", 192),
    )
    begun = time.perf_counter()
    told: dict[str, Any] = {}
    try:
        if order["ask"] == "self_test":
            told["report"] = msgspec.to_builtins(trier.self_test(Path(order["folder"])))
        else:
            context = msgspec.convert(order["context"], ChallengeContext)
            told["report"] = trier.challenge(Path(order["folder"]), context).figures()
    except EdgeRtError as error:
        told["error"], told["kind"] = str(error), type(error).__name__
    told["seconds"] = time.perf_counter() - begun
    # What a trial started is gone with it: us and the fork server.
    told["left"] = len(family(os.getpid())) - 2
    return told


def main() -> None:
    engine = sys.argv[1]
    load_engine(choose_engine(engine))
    before = pss_mb(os.getpid())
    try:
        zygote = Zygote(rogue_work)
    except DaemonError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"pid": zygote.pid, "before_mb": before}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(zygote, engine, json.loads(line))), flush=True)
    zygote.close()


if __name__ == "__main__":
    main()
