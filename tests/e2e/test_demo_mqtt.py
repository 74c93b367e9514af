"""`edge-rt demo --mqtt`: both sides on one machine, and nothing left of them afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_rt.cli.demo_mqtt import find_mosquitto
from edge_rt.core.errors import InputError

pytestmark = pytest.mark.usefixtures("mosquitto", "models")


@pytest.fixture
def models(factory_bundle: Callable[[str], Path]) -> None:
    """The demo's bundles are needed."""
    for name in ("fall-waist", "face-detect", "face-embed"):
        factory_bundle(name)


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: a control socket lies below it, and 108 bytes are all it may take."""
    with tempfile.TemporaryDirectory(prefix="ert-") as name:
        yield Path(name)


def start(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "edge_rt", "demo", "--mqtt", "--fast", "--json"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment)


def left(folder: Path) -> list[str]:
    """What names the folder among the processes, and what is in it."""
    found = [path.name for path in folder.iterdir()]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if os.fsencode(folder) in words:
            found.append(words.decode(errors="replace"))
    return found


def test_a_fall_arrives_is_receipted_and_somebody_is_told(folder: Path) -> None:
    process = start(folder)
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert out, errors
    summary = json.loads(out)
    # On a busy machine the camera's clip, five times as fast, may be over too soon.
    assert set(summary["missed"]) <= {"an unlock for the owner", "a stranger denied"}, errors
    assert process.returncode == (5 if summary["missed"] else 0), errors
    far = summary["other_side"]
    arrived = [item["type"] for item in far["arrived"]]
    assert arrived.index("edge_rt.fall.prealarm") < arrived.index("edge_rt.fall.alarm")
    assert (far["connection"], far["without_receipt"]) == ("online", 0)
    assert far["told"][0] == "ALARM: demo"
    assert "other side: told     ALARM: demo" in errors
    assert left(folder) == []


def test_a_demo_that_is_ended_leaves_nothing(folder: Path) -> None:
    process = start(folder)
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob("*/daemon.log")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)  # another process's progress can only be watched
        assert len(left(folder)) >= 3, "its folder, mosquitto, the receiver"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert left(folder) == []


def test_without_a_broker_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="apt-get install mosquitto"):
        find_mosquitto(str(tmp_path))
