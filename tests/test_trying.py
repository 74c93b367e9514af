"""A candidate is tried where it can do no harm; a refusal names what it did."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models as tiny
from trials import Peer, gone

from edge_rt.core.challenge import ChallengeContext
from edge_rt.core.errors import ModelError
from edge_rt.runtime.trying import Trier

CONTEXT = {"rate_hz": 50.0, "range_g": 16.0, "placement": "waist"}


@pytest.mark.parametrize("name", ["fall-waist", "fall-wrist", "face-detect", "face-embed"])
def test_factory_bundles_pass(peer: Peer, factory_bundle: Callable[[str], Path], name: str) -> None:
    told = peer.ask("self_test", factory_bundle(name))
    assert told.get("error") is None
    assert told["report"]["golden"]["passed"]
    assert told["report"]["latency"]["p95_ms"] <= told["report"]["latency"]["budget_ms"]
    assert told["left"] == 0


def test_a_self_test_costs_milliseconds(
    peer: Peer, factory_bundle: Callable[[str], Path], figure: Callable[..., None]
) -> None:
    folder = factory_bundle("fall-waist")
    took = min(peer.ask("self_test", folder)["seconds"] for _ in range(5))
    # Loose, for a busy machine: a fresh interpreter takes 500 to 1000 ms on the same one.
    figure("self-test of the fall model in a fork", 1e3 * took, at_most=250.0, unit="ms")


@pytest.mark.parametrize(
    ("deed", "at", "reason"),
    [
        ("sleep", "load", "no end after 1 s of loading; the model hangs"),
        ("sleep", "run", "no end after 1 s of running the golden vectors; the model hangs"),
        ("spin", "run", "no end after 1 s of running the golden vectors; the model hangs"),
        ("hoard", "load", "asked for more than 64 MB while loading"),
        ("hoard_in_parts", "run", "asked for more than 64 MB while running the golden vectors"),
        ("abort", "load", "the engine crashed (SIGABRT) while loading"),
        ("segfault", "run", "the engine crashed (SIGSEGV) while running the golden vectors"),
        ("leave", "run", "the trial process failed (exit 0: no message)"),
        ("dawdle", "run", "is over the manifest's budget of 5 ms"),
    ],
)
def test_a_rogue_is_refused_by_what_it_did(
    peer: Peer, factory_bundle: Callable[[str], Path], deed: str, at: str, reason: str
) -> None:
    folder = factory_bundle("fall-waist")
    timeout_s = 1.0 if deed in ("sleep", "spin") else 30.0
    assert reason in peer.reason(folder, deed, at, timeout_s=timeout_s, memory_mb=64)
    assert peer.reason(folder) == ""  # the fork server is as it was


def test_a_model_reaches_nothing(peer: Peer, factory_bundle: Callable[[str], Path]) -> None:
    bait = Path("/tmp/rogue-bait")
    bait.touch()
    said = peer.reason(factory_bundle("fall-waist"), "break_out", "load")
    assert "worked: nothing" in said
    assert bait.exists()
    bait.unlink()


def test_the_locks_that_hold_are_reported(
    peer: Peer, factory_bundle: Callable[[str], Path]
) -> None:
    report = peer.ask("self_test", factory_bundle("fall-waist"))["report"]
    assert "descriptors" in report["confined"]


def test_a_hang_ends_at_its_deadline(peer: Peer, factory_bundle: Callable[[str], Path]) -> None:
    told = peer.ask(
        "self_test", factory_bundle("fall-waist"), deed="sleep", at="load", timeout_s=0.5
    )
    assert 0.5 <= told["seconds"] < 5.0


def test_the_server_and_its_child_die_with_the_daemon(
    engine: str, factory_bundle: Callable[[str], Path]
) -> None:
    peer = Peer(engine)
    server = peer.hello["pid"]
    assert peer.process.stdin is not None
    peer.process.stdin.write(
        f'{{"ask": "self_test", "folder": "{factory_bundle("fall-waist")}", '
        '"deed": "sleep", "at": "load", "timeout_s": 1000}\n'
    )
    peer.process.stdin.flush()
    child = child_of(server)
    os.kill(peer.process.pid, signal.SIGKILL)
    assert gone(server) and gone(child)
    peer.close()


def child_of(pid: int) -> int:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(1_000_000):
        if children := path.read_text().split():
            return int(children[0])
    raise AssertionError("the fork server started no child")


def test_without_a_server_trials_go_on(engine: str, factory_bundle: Callable[[str], Path]) -> None:
    peer = Peer(engine)
    peer.ask("kill")
    assert gone(peer.hello["pid"])
    told = peer.ask("self_test", factory_bundle("fall-waist"), plain=True)
    assert told["report"]["golden"]["passed"]
    peer.close()


def test_a_process_with_threads_gets_no_server(engine: str) -> None:
    peer = Peer(engine)
    assert peer.ask("threads") == {"zygote": False}
    peer.close()


# ---- challenge set ----


@pytest.mark.parametrize("placement", ["waist", "wrist"])
def test_the_factory_model_passes_the_challenge(
    peer: Peer, factory_bundle: Callable[[str], Path], placement: str
) -> None:
    folder = factory_bundle(f"fall-{placement}")
    context = {**CONTEXT, "placement": placement, "live": str(folder)}
    told = peer.ask("challenge", folder, context=context)
    assert told.get("error") is None
    assert told["report"]["caught"] == told["report"]["live"]["caught"] >= 44
    assert told["report"]["quiet"] == 24


def test_a_model_of_another_kind_is_refused(tmp_path: Path, engine: str) -> None:
    folder = tiny.bundle(tmp_path / "b", tiny.scorer())
    with pytest.raises(ModelError, match="challenge set: it caught .* of 48 simulated falls"):
        Trier(None, engine).challenge(folder, ChallengeContext(**CONTEXT))
