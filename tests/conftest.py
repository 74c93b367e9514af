"""Fixtures and options that every test may use."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["figures", "broker", "trials", "updates", "cgroup"]

REPOSITORY = Path(__file__).resolve().parents[1]

# Name as `Interpreter(engine=...)` takes it -> the module whose presence means it is installed.
ENGINE_MODULES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
ENGINES = tuple(name for name, module in ENGINE_MODULES.items() if importlib.util.find_spec(module))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--release", action="store_true", help="run the release sizes too (see scripts/test)"
    )


def pytest_configure(config: pytest.Config) -> None:
    # At commit size the same examples each time: a change is judged by what it changed. The
    # release size goes on looking.
    hypothesis.settings.register_profile("commit", derandomize=True, deadline=None)
    hypothesis.settings.register_profile("release", deadline=None)
    hypothesis.settings.load_profile("release" if config.getoption("--release") else "commit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="release size: run scripts/test release")
    for item in items:
        if item.get_closest_marker("release") and not config.getoption("--release"):
            item.add_marker(skip)
        native = item.get_closest_marker("native")
        if native is not None and "EDGE_RT_TRANSLATED" in os.environ:
            item.add_marker(pytest.mark.skip(reason=f"processor is translated: {native.args[0]}"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests belong to."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of recordings and photographs beside the checkout, which the repository may not hold.

    EDGE_RT_SHARED names it where it lies elsewhere. Skips the test if there is none.
    """
    folder = Path(os.environ.get("EDGE_RT_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no recordings at {folder}: set EDGE_RT_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB of our own, to be filled or made read-only; root only."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a disk of our own needs root and mount")
    words = ["mount", "-t", "tmpfs", "-o", "size=1M", "edge-rt-test", str(place)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def engines() -> tuple[str, ...]:
    """Names of the installed engines, as `Interpreter(engine=...)` takes them."""
    return ENGINES


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Runs the test once on every installed engine."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def factory_bundle() -> Iterator[Callable[[str], Path]]:
    """`factory_bundle("fall-waist")` is that bundle's folder; skips the test if it is not built."""
    with as_file(files("edge_rt.models")) as models:

        def find(name: str) -> Path:
            folder: Path = models / name
            if not (folder / "model.toml").is_file():
                pytest.skip(f"no factory bundle {name}: build it with scripts/models/")
            return folder

        yield find
