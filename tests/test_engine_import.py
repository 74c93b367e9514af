"""What loading an engine may not change."""

from __future__ import annotations

import subprocess
import sys


def test_an_engine_leaves_arithmetic_as_it_was(engine: str) -> None:
    """Subnormal numbers stay numbers, here and in threads that start later."""
    asked = (
        "import sys, threading; from edge_rt.adapters.tflite import load_engine\n"
        "load_engine(sys.argv[1])\n"
        "def say() -> None: print(sys.float_info.min / 2 > 0.0)\n"
        "say()\n"
        "thread = threading.Thread(target=say); thread.start(); thread.join()\n"
    )
    words = [sys.executable, "-c", asked, engine]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\nTrue\n", done.stderr
