"""What the README and the public docstrings show is run."""

from __future__ import annotations

import doctest
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_rt.cli import COMMANDS

NEEDS = ("fall-waist", "face-detect", "face-embed")


@pytest.fixture
def bundles(factory_bundle: Callable[[str], Path]) -> None:
    for name in NEEDS:
        factory_bundle(name)


def test_the_examples_of_the_readme_run(repository: Path, bundles: None) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize(
    "module", ["edge_rt.bundle", "edge_rt.falls.detector", "edge_rt.faces.matcher"]
)
def test_the_examples_of_the_public_api_run(module: str, bundles: None) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0 and failed == 0


def test_the_readme_names_every_command_and_no_other(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    table = text.split("## Commands")[1].split("##")[0]
    named = set(re.findall(r"[a-z]+(?:-[a-z]+)*", " ".join(re.findall(r"`([^`]*)`", table))))
    assert set(COMMANDS) <= named
    for command in re.findall(r"`edge-rt ([a-z-]+)", text):
        assert command in COMMANDS


def test_every_file_that_documents_link_to_exists(repository: Path) -> None:
    documents = [repository / "README.md", *(repository / "docs").rglob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
