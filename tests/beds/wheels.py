"""Wheels for a machine without a network: edge_rt from the checkout, and all that it needs."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from beds.rootfs import NoBed, beds_dir, only_one

PIP_S = 600.0
# Besides the caches: what is not part of the package but may be large or unreadable.
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "build", "*.egg-info", "tests")
)


def build(
    repository: Path, folder: Path, edit: Callable[[Path], None] = lambda source: None
) -> Path:
    """The wheel of the checkout in `folder`; `edit` may change a copy of its source first."""
    source = folder / "source"
    shutil.copytree(repository, source, ignore=LEFT_OUT)  # setuptools writes into what it builds
    edit(source)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    shutil.rmtree(source)
    (wheel,) = folder.glob("edge_rt-*.whl")
    return wheel


def replace(path: Path, pattern: str, by: str) -> None:
    """Change one line of a source."""
    text, count = re.subn(pattern, by, path.read_text(), flags=re.M)
    assert count == 1, f"{path}: {pattern} is there {count} times"
    path.write_text(text)


def dependencies(wheel: Path, setup: Path, python: str = "3.11") -> Path:
    """A folder with the wheels that `wheel` needs, kept as long as `setup` (setup.cfg) stays the
    same. Raises NoBed under another Python: what is needed depends on it."""
    if sys.version.split(" ")[0].rsplit(".", 1)[0] != python:
        raise NoBed(f"needs Python {python}, that of the container, to choose wheels for it")
    recipe = hashlib.sha256(setup.read_bytes()).hexdigest()[:10]
    folder = beds_dir() / f"wheels-{python}-{recipe}"
    with only_one(folder.with_suffix(".lock")):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            _pip("download", "--only-binary=:all:", "--dest", str(new), f"{wheel}[litert]")
            (new / wheel.name).unlink(missing_ok=True)
            new.rename(folder)
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise NoBed(f"pip {arguments[0]} failed: {last}")
