"""The package as people get it: a wheel, and an editable checkout, each in an empty environment.

Installs every dependency anew with pip, so it needs a package index or a filled pip cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Besides the caches: what is not part of the package but may be large or unreadable.
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "build", "*.egg-info", "tests")
)

PROBE = """
import json, edge_rt
from importlib.resources import files
from edge_rt.bundle import open_bundle, verify_golden
found = sorted(entry.name for entry in files("edge_rt.models").iterdir()
               if (entry / "model.toml").is_file())
for name in found:
    verify_golden(open_bundle(name))
print(json.dumps({
    "where": edge_rt.__file__,
    "bundles": found,
    "models": str(files("edge_rt.models")),
    "firmware_configs": str(files("edge_rt.firmware_configs")),
}))
"""


class Environment:
    """A virtual environment, and commands run in it from an empty folder."""

    def __init__(self, folder: Path, install: list[str]) -> None:
        self.bin = folder / "venv" / "bin"
        self.cwd = folder / "empty"
        self.cwd.mkdir(parents=True)
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        }
        _run([sys.executable, "-m", "venv", str(folder / "venv")], self.cwd, self._environ)
        # Compiling everything takes longer than the few modules that are used here gain.
        self.run("python", "-m", "pip", "--quiet", "install", "--no-compile", *install)

    def run(self, command: str, *arguments: str) -> str:
        return _run([str(self.bin / command), *arguments], self.cwd, self._environ)

    def probe(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.run("python", "-c", PROBE))
        return result


def _run(command: list[str], cwd: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, for setuptools writes into the tree that it builds."""
    copy = tmp_path_factory.mktemp("source") / "edge_rt_checkout"
    shutil.copytree(repository, copy, ignore=LEFT_OUT)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)]
    _run([sys.executable, *build], folder, dict(os.environ))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Callable[..., Environment]]:
    yield lambda *install: Environment(tmp_path, list(install))
    shutil.rmtree(tmp_path)  # a quarter of a gigabyte each


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    places = {"edge_rt": "edge_rt", "models": "edge_rt/models"}
    places["firmware_configs"] = "edge_rt/firmware_configs"
    expected = {
        f"{place}/{path.relative_to(source / folder)}"
        for folder, place in places.items()
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    assert sorted(expected - held) == [], "missing in the wheel: see packages in setup.cfg"
    assert sorted(held - expected) == []


def test_the_wheel_works_outside_the_checkout(
    wheel: Path, source: Path, environment: Callable[..., Environment]
) -> None:
    installed = environment(str(wheel))
    found = installed.probe()
    assert Path(found["where"]).is_relative_to(installed.bin.parent)
    assert found["bundles"] == bundles_of(source)
    _check_commands(installed)


def test_an_editable_install_works(source: Path, environment: Callable[..., Environment]) -> None:
    installed = environment("--editable", str(source))
    found = installed.probe()
    assert Path(found["where"]) == source / "edge_rt" / "__init__.py"
    assert Path(found["models"]) == source / "models"
    assert Path(found["firmware_configs"]) == source / "firmware_configs"
    assert found["bundles"] == bundles_of(source)
    _check_commands(installed)


def bundles_of(source: Path) -> list[str]:
    return sorted(path.parent.name for path in (source / "models").glob("*/model.toml"))


def _check_commands(installed: Environment) -> None:
    version = installed.run("python", "-c", "import edge_rt; print(edge_rt.__version__)")
    assert installed.run("edge-rt", "--version").split() == ["edge-rt", version.strip()]
    assert list(installed.cwd.iterdir()) == [], "a command left something in the current folder"
