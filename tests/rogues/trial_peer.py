"""A process with a fork server, as the daemon is one; pytest has threads, so it cannot be.

    python trial_peer.py ENGINE       then orders in, outcomes out, JSON lines

An order: {"ask": "self_test" | "challenge" | "kill" | "threads", "folder", "deed", "at",
"timeout_s", "memory_mb", "context"}.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as `edge-rt run` does: a pool of threads forbids forks

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from edge_rt.core.challenge import ChallengeContext
from edge_rt.core.errors import DaemonError, EdgeRtError
from edge_rt.core.trying import Ended
from edge_rt.runtime.footprint import family
from edge_rt.runtime.trial_child import work
from edge_rt.runtime.trying import Trier, Zygote, start_zygote
from rogues.models import rogue


class Wrapped(msgspec.Struct):
    task: bytes
    deed: str
    at: str


def rogue_work(wrapped: bytes, descriptor: int) -> int:
    order = msgspec.msgpack.decode(wrapped, type=Wrapped)
    if not order.deed:
        return work(order.task, descriptor)
    return work(order.task, descriptor, rogue(order.deed, order.at))


def answer(zygote: Zygote, engine: str, order: dict[str, Any]) -> dict[str, Any]:
    if order["ask"] == "kill":
        os.kill(zygote.pid, signal.SIGKILL)
        return {}
    if order["ask"] == "threads":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        return {"zygote": start_zygote(engine) is not None}

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
    try:
        zygote = Zygote(rogue_work)
    except DaemonError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"pid": zygote.pid}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(zygote, engine, json.loads(line))), flush=True)
    zygote.close()


if __name__ == "__main__":
    main()
