"""The trial process: what a rogue model does there becomes one clear line here."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_models as tiny

from edge_rt.adapters.probe import probe
from edge_rt.core.errors import ConfigError, InputError, ManifestError, ModelError


def test_a_sound_bundle_passes_and_is_measured(tmp_path: Path, engine: str) -> None:
    report = probe(tiny.bundle(tmp_path / "b", tiny.scorer()), engine)
    assert report.engine.startswith(engine)
    assert report.golden is not None and report.golden.passed and report.golden.cases == 2
    assert report.latency is not None and 0 < report.latency.p50_ms <= report.latency.p95_ms
    assert report.inputs[0].shape == (1, 1, 8, 3) and report.outputs[0].shape == (1, 1)
    assert report.ops == {"FULLY_CONNECTED": 1}
    assert 0 <= report.grew_mb < report.peak_mb


def test_a_model_is_tried_where_no_file_can_be_written(tmp_path: Path, engine: str) -> None:
    """A bundle that a person named is tried at each start, on a read-only disk too."""
    bundle = tiny.bundle(tmp_path / "b", tiny.scorer())
    asked = (
        "import sys, tempfile; from pathlib import Path; from edge_rt.adapters.probe import probe; "
        "tempfile.tempdir = sys.argv[3]; "  # what the library uses wherever a file would be made
        "print(probe(Path(sys.argv[1]), sys.argv[2], run=False).ops)"
    )
    words = [sys.executable, "-c", asked, str(bundle), engine, str(tmp_path / "absent")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "{'FULLY_CONNECTED': 1}", done.stderr


def test_a_machine_that_starts_no_process_says_nothing_about_the_model(tmp_path: Path) -> None:
    """Not ModelError: a candidate must not be refused for it."""
    bundle = tiny.bundle(tmp_path / "b", tiny.scorer())
    asked = (
        "import os, resource, sys; from pathlib import Path; "
        "from edge_rt.adapters.probe import probe; from edge_rt.core.errors import DaemonError\n"
        "last = max(map(int, os.listdir('/proc/self/fd')))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (last + int(sys.argv[2]),) * 2)\n"
        "try: probe(Path(sys.argv[1]))\n"
        "except DaemonError as error: print(error)\n"
    )
    for free in ("1", "3"):  # none for the child's answers; those, but none to start it
        words = [sys.executable, "-c", asked, str(bundle), free]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert "no process can be started" in done.stdout, done.stderr
        assert "(Too many open files); " in done.stdout


def test_a_bare_model_is_described_only(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny.elementwise((1, 4)))
    report = probe(path, engine)
    assert report.golden is None and report.latency is None
    assert report.ops == {"RELU": 1}


def test_custom_op_is_named(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny.elementwise((1, 4), custom="Frobnicate"))
    with pytest.raises(ModelError, match=r"m\.tflite: .*custom op: Frobnicate"):
        probe(path, engine)


@pytest.mark.parametrize("length", [0, 7, 60, 200])
def test_a_truncated_model_is_an_error(tmp_path: Path, length: int) -> None:
    pytest.importorskip("ai_edge_litert", reason="only LiteRT checks its flatbuffers")
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny.scorer()[:length])
    with pytest.raises(ModelError, match=r"m\.tflite: .*(not a TFLite file|not a valid)"):
        probe(path, "litert", run=False)


def test_a_crash_is_reported_by_its_signal(tmp_path: Path) -> None:
    pytest.importorskip("tflite_runtime", reason="only tflite-runtime trusts its flatbuffers")
    path = tmp_path / "m.tflite"
    wild = (0x7F00_0000).to_bytes(4, "little")  # root table two gigabytes behind the file
    path.write_bytes(wild + tiny.scorer()[4:])
    with pytest.raises(ModelError, match=r"the engine crashed \(SIGSEGV\) while loading"):
        probe(path, "tflite-runtime")


def children() -> set[str]:
    """Process ids of what this process has started, zombies included (proc(5))."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_a_hang_is_ended_with_the_whole_process_group(tmp_path: Path, engine: str) -> None:
    folder = tiny.bundle(tmp_path / "b", tiny.endless(60_000), 60_000, ("x", "y", "z", "jerk"))
    before, start = children(), time.monotonic()
    with pytest.raises(ModelError, match=r"no end after 1 s of .*; the model hangs"):
        probe(folder, engine, timeout_s=1)
    assert time.monotonic() - start < 10
    assert children() <= before, "a process is left to wait for"


@pytest.mark.native("memory is bounded")
def test_memory_is_capped(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny.elementwise((1, 20_000, 20_000)))  # 1.6 GB a tensor
    with pytest.raises(ModelError, match=r"more than 64 MB|memory runs out"):
        probe(path, engine, memory_mb=64)


def test_golden_vectors_and_budget_are_held(tmp_path: Path, engine: str) -> None:
    wrong = tiny.bundle(tmp_path / "wrong", tiny.scorer(), golden=5.0)
    with pytest.raises(ModelError, match="differs from the golden vectors by 19"):
        probe(wrong, engine)
    probe(wrong, engine, run=False)
    slow = tiny.bundle(tmp_path / "slow", tiny.scorer(), budget_ms=1e-6)
    with pytest.raises(ModelError, match="over the manifest's budget"):
        probe(slow, engine)


def test_errors_of_the_child_keep_their_class(tmp_path: Path) -> None:
    shape = tiny.bundle(tmp_path / "shape", tiny.scorer(window=9))
    with pytest.raises(ManifestError, match=r"input is \(1, 1, 8, 3\), the model's is"):
        probe(shape)
    with pytest.raises(InputError, match="gone: No such file"):
        probe(tmp_path / "gone")
    with pytest.raises(ConfigError, match="engine 'magic' is unknown"):
        probe(shape, "magic")
