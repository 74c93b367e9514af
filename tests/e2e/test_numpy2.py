"""A real numpy 2 under tflite-runtime: refused in one line before native code meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models as tiny

PIP = (sys.executable, "-m", "pip", "install", "-q")


@pytest.mark.release
def test_numpy_2_under_tflite_runtime_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tflite_runtime")
    newer = tmp_path / "newer"
    subprocess.run(
        [*PIP, "--no-deps", "--target", newer, "numpy==2.2.6"],
        check=True,
    )
    bundle = tiny.bundle(tmp_path / "b", tiny.scorer())
    done = subprocess.run(
        [sys.executable, "-m", "edge_rt", "model", "verify", bundle, "--engine", "tflite-runtime"],
        env={**os.environ, "PYTHONPATH": str(newer)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert (
        "tflite-runtime does not work with numpy 2.2.6; run: pip install 'numpy<2'" in done.stderr
    )
