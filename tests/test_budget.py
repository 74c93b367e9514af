"""What a fresh process imports, and the memory that takes. Each runs in an interpreter of its own.

Measured on Python 3.11, x86-64: 6 modules and 0.7 MB for edge_rt, 45 and 4.0 for edge_rt.cli, 293
and 32 for the daemon. The ceilings stand about a quarter above: an import that nobody meant shows,
a new version of a dependency does not. (A megabyte of slack where the whole is below one.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

MEASURE = """
import gc, importlib, json, sys
def resident_mb():
    gc.collect()
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
before, memory = set(sys.modules), resident_mb()
importlib.import_module(sys.argv[1])
print(json.dumps({
    "new": sorted(set(sys.modules) - before),
    "grown_mb": resident_mb() - memory,
}))
"""

ENGINES = {"ai_edge_litert", "tflite_runtime", "tensorflow"}
# Not needed to come up: each belongs to one command, the face worker or a short-lived child.
HEAVY = ENGINES | {"cv2", "cryptography", "paho", "rich", "ssl", "asyncio", "tuf", "sklearn"}


def import_alone(module: str) -> dict[str, Any]:
    """Import `module` in a new interpreter: the modules that came, and growth of memory in MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, module], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    ("module", "forbidden", "most_modules", "most_mb"),
    [
        # A version number costs next to nothing.
        ("edge_rt", HEAVY | {"numpy", "msgspec", "click"}, 10, 2.0),
        # `edge-rt --help` on a Zero 2 W has to answer while a person waits: click, nothing of ours.
        ("edge_rt.cli", HEAVY | {"numpy", "msgspec", "sqlite3"}, 58, 5.0),
        # The parent lives for months beside the face worker; of the 130 MB for all processes,
        # numpy takes 20 to 25 here, the engine comes with the first model.
        (
            "edge_rt.runtime.process",
            HEAVY | {"click", "http.server", "unittest", "importlib.metadata"},
            360,
            40.0,
        ),
    ],
)
@pytest.mark.native("memory is measured")
def test_import_budget(module: str, forbidden: set[str], most_modules: int, most_mb: float) -> None:
    result = import_alone(module)
    new = result["new"]
    assert sorted(forbidden & set(new)) == []
    assert module in new
    assert len(new) <= most_modules, f"{len(new)} modules: {new}"
    assert result["grown_mb"] <= most_mb, f"{result['grown_mb']:.1f} MB"
