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
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_rt

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
    "package": edge_rt.__file__,
    "bundles": found,
    "models": str(files("edge_rt.models")),
    "firmware_configs": str(files("edge_rt.firmware_configs")),
}))
"""


class Environment:
    """A virtual environment, and commands run in it from an empty folder."""

    def __init__(self, folder: Path, install: list[str], home: Path) -> None:
        self.home = home  # where the package itself should be found
        self._bin = folder / "venv" / "bin"
        self.cwd = folder / "empty"
        self.cwd.mkdir(parents=True)
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        }
        _run([sys.executable, "-m", "venv", str(folder / "venv")], self.cwd, self._environ)
        # Compiling everything takes longer than the few modules that are used here gain.
        self.run("python", "-m", "pip", "--quiet", "install", "--no-compile", *install)

    def run(self, command: str, *arguments: str) -> str:
        __tracebackhide__ = True
        return _run([str(self._bin / command), *arguments], self.cwd, self._environ)


def _run(command: list[str], cwd: Path, environ: dict[str, str]) -> str:
    __tracebackhide__ = True  # a failure must not print the environment into a public log
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


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """The package in an environment of its own, with the dependencies of a plain install."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wheel":
        home, install = folder / "venv", [str(request.getfixturevalue("wheel"))]
    else:
        home, install = source, ["--editable", str(source)]
    yield Environment(folder, install, home)
    shutil.rmtree(folder)  # a quarter of a gigabyte each


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


def test_models_and_configs_are_found(installed: Environment, source: Path) -> None:
    found = json.loads(installed.run("python", "-c", PROBE))
    places = [Path(found[name]) for name in ("package", "models", "firmware_configs")]
    assert [place for place in places if not place.is_relative_to(installed.home)] == []
    assert found["bundles"] == sorted(p.parent.name for p in source.glob("models/*/model.toml"))
    assert set(found["bundles"]) >= {"fall-waist", "fall-wrist"}


def test_the_command_runs(installed: Environment) -> None:
    assert installed.run("edge-rt", "--version").split() == ["edge-rt", edge_rt.__version__]
    # The same from the module, where a script folder is not on the path.
    assert installed.run("python", "-m", "edge_rt", "--version").split()[-1] == edge_rt.__version__


@pytest.mark.native("pictures come at their own pace")
def test_the_demo_runs(installed: Environment) -> None:
    summary = json.loads(installed.run("edge-rt", "demo", "--fast", "--json"))
    assert summary["missed"] == []
    assert {"fall.alarm", "face.unlocked", "face.denied"} <= set(summary["events"])
    assert list(installed.cwd.iterdir()) == [], "it left something in the current folder"
