"""Imports run down only, and one foreign library lives in one file (docs/architecture.md)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

# Lowest first; what stands on one floor may use the floors below it and its own package.
FLOORS = (
    ("core",),
    ("adapters",),
    ("bundle", "falls", "faces", "probe", "trust_child"),
    ("evaluation",),
    ("runtime",),
    ("fleet",),
    ("cli",),
)
LEVEL = {package: level for level, packages in enumerate(FLOORS) for package in packages}
# The package's own front door names things of every floor, lazily; it stands on none.
FRONT_DOORS = {"__init__", "__main__"}

CORE_MAY_IMPORT = {"numpy", "msgspec", "edge_rt"}
# Of the standard library the core takes what only computes: no clock, chance, file, socket, thread.
CORE_MAY_NOT_IMPORT = {
    *("asyncio", "io", "logging", "os", "pathlib", "queue", "random", "secrets", "select"),
    *("shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time"),
    *("urllib", "uuid"),
}
# Foreign library -> the files that may import it (within edge_rt/); one, or two with a reason.
HOMES = {
    "apprise": {"fleet/apprise_notify.py"},
    "ai_edge_litert": {"adapters/tflite.py"},
    # templates at rest; the certificate authority of a fleet; signatures of commands and receipts;
    # a publisher's keys at rest
    "cryptography": {
        *("adapters/templates.py", "fleet/certificates.py", "fleet/renewal.py"),
        *("adapters/operations_key.py", "adapters/signing.py"),
    },
    # arithmetic on pictures; a capture device; a video file
    "cv2": {"adapters/imaging.py", "adapters/camera_opencv.py", "adapters/camera_replay.py"},
    "gpiod": {"adapters/gpio.py"},
    "paho": {"adapters/mqtt.py"},
    "picamera2": {"adapters/camera_picamera2.py"},
    # what a device checks; what a publisher signs
    "securesystemslib": {"adapters/trust.py", "adapters/signing.py"},
    "smbus2": {"adapters/i2c.py"},
    # the only writer of the event log; its readers, who hold connections of their own; what a
    # receiver of events keeps, and what it told whom
    "sqlite3": {
        *("adapters/eventlog.py", "adapters/eventreader.py"),
        *("fleet/store.py", "fleet/notices.py"),
    },
    "tflite_runtime": {"adapters/tflite.py"},
    "tuf": {"adapters/trust.py", "adapters/signing.py"},
}

Sources = dict[str, str]  # path within edge_rt/ -> text


def module_name(path: str) -> str:
    """`core/fall.py` -> `edge_rt.core.fall`; a package is named like its folder."""
    parts = ["edge_rt", *Path(path).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: str, text: str, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import, also those inside functions and type checks."""
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package.pop()
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in known else base


def allowed_in_core(root: str) -> bool:
    """Whether a pure module may import the top-level package `root`."""
    if root in sys.stdlib_module_names:
        return root not in CORE_MAY_NOT_IMPORT
    return root in CORE_MAY_IMPORT


def unit_of(module: str) -> str:
    """What stands on a floor: the first name below edge_rt ('__init__' for edge_rt itself)."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def problems(sources: Sources) -> list[str]:
    """Every arrow that runs where it may not, one line each, naming file and line."""
    known = {module_name(path) for path in sources}
    found = []
    arrows: dict[str, set[str]] = {}
    for path, text in sorted(sources.items()):
        module, unit = module_name(path), unit_of(module_name(path))
        arrows[module] = set()
        if unit not in FRONT_DOORS and unit not in LEVEL:
            found.append(f"{path}: {unit} stands on no floor; add it to FLOORS")
            continue
        for line, name in imports_of(path, text, known):
            root, where = name.split(".")[0], f"{path}:{line}"
            homes = HOMES.get(root, {path})
            if path not in homes:
                found.append(f"{where}: imports {root}, whose home is {', '.join(sorted(homes))}")
            if unit == "core" and not allowed_in_core(root):
                found.append(f"{where}: core imports {root}")
            if root != "edge_rt" or name == module:
                continue
            arrows[module].add(name)
            target = unit_of(name)
            if unit in FRONT_DOORS or target in FRONT_DOORS:
                continue
            if LEVEL.get(target, 0) > LEVEL[unit]:
                found.append(f"{where}: {unit} imports {target}, which stands above it")
            elif unit == target == "adapters":
                found.append(f"{where}: an adapter imports an adapter ({name})")
            elif LEVEL.get(target, 0) == LEVEL[unit] and target != unit and target != "bundle":
                found.append(f"{where}: {unit} imports its neighbour {target}")
    arrows.pop("edge_rt", None)  # its arrows are lazy, so that the floors may ask it for a version
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        found.append("cycle: " + " -> ".join(reversed(error.args[1])))
    return found


def read_sources(repository: Path) -> Sources:
    root = repository / "edge_rt"
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.py")}


def test_the_tree_keeps_its_floors(repository: Path) -> None:
    sources = read_sources(repository)
    assert len(sources) > 10, "found no sources: the test looks in the wrong place"
    assert problems(sources) == []


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("core/a.py", "from edge_rt.adapters import tflite", "core imports adapters"),
        ("core/a.py", "def f():\n    import edge_rt.falls.b", "core imports falls"),
        ("core/a.py", "from ..runtime import c", "core imports runtime"),
        ("core/a.py", "import click", "core imports click"),
        ("core/a.py", "from time import monotonic", "core imports time"),
        ("adapters/a.py", "from edge_rt.adapters.tflite import X", "adapter imports an adapter"),
        ("adapters/a.py", "from . import tflite", "adapter imports an adapter"),
        ("falls/a.py", "from edge_rt.faces import b", "neighbour faces"),
        ("evaluation/a.py", "import cv2", "cv2, whose home"),
        ("cli/a.py", "def f():\n    from paho.mqtt import client", "paho, whose home"),
        ("stray/a.py", "", "stands on no floor"),
    ],
)
def test_each_wrong_arrow_is_found(path: str, text: str, complaint: str) -> None:
    around = {"adapters/__init__.py": "", "adapters/tflite.py": "", "falls/b.py": ""}
    assert [line for line in problems({**around, path: text}) if complaint in line]


def test_right_arrows_pass() -> None:
    sources = {
        "__init__.py": "def f():\n    from edge_rt.bundle import b",
        "adapters/tflite.py": "import ai_edge_litert\nfrom edge_rt.core import errors",
        "bundle.py": "from edge_rt import __version__\nfrom edge_rt.adapters import tflite",
        "cli/__init__.py": "import click\nfrom edge_rt.cli import run",
        "cli/run.py": "from edge_rt.runtime import daemon",
        "core/errors.py": "import json\nimport msgspec\nimport numpy.typing",
        "falls/a.py": "from edge_rt.bundle import open_bundle",
        "runtime/daemon.py": "from edge_rt.falls.a import x",
    }
    assert problems(sources) == []


def test_a_cycle_is_found() -> None:
    sources = {"core/a.py": "from edge_rt.core import b", "core/b.py": "import edge_rt.core.a"}
    assert [line for line in problems(sources) if line.startswith("cycle")]
