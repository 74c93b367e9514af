"""OpenCV must load on a Pi without screen or libGL (docs/decisions/0001-opencv-headless.md)."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

# Imports cv2 and names the shared objects that the kernel then has mapped.
PROBE = """
import cv2
with open("/proc/self/maps") as maps:
    print(*{line.split()[-1] for line in maps if ".so" in line}, sep="\\n")
"""
SCREEN_LIBRARIES = ("libGL", "libEGL", "libX11", "libxcb", "libQt", "libgtk", "libgthread")


def test_cv2_loads_no_library_of_a_screen() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = [Path(line).name for line in done.stdout.splitlines()]
    assert any("cv2" in name for name in loaded), (
        "the probe saw no cv2: it looks in the wrong place"
    )
    assert [name for name in loaded if name.startswith(SCREEN_LIBRARIES)] == []


def test_only_the_headless_distribution_is_installed() -> None:
    # Two distributions of OpenCV share the folder cv2/: the one installed last wins.
    names = {dist.metadata["Name"].lower() for dist in distributions()}
    assert {name for name in names if name.startswith("opencv")} == {"opencv-python-headless"}
