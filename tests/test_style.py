"""Habits of the house that a program can hold (the rest is for readers)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

MAX_LINES = 400
BROAD = {"Exception", "BaseException"}


def sources(repository: Path) -> list[Path]:
    found = sorted((repository / "edge_rt").rglob("*.py"))
    assert len(found) > 10, "found no sources: the test looks in the wrong place"
    return found


def unexplained(text: str) -> list[int]:
    """Lines of handlers that catch everything and do not say why, there or on the next line."""
    lines = text.splitlines()
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            caught = (
                {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
                if (node.type)
                else BROAD
            )
            said = "#" in lines[node.lineno - 1] or lines[node.lineno].lstrip().startswith("#")
            if caught & BROAD and not said:
                found.append(node.lineno)
    return found


def test_modules_stay_short(repository: Path) -> None:
    long = {str(path): n for path in sources(repository) if (n := _lines(path)) > MAX_LINES}
    assert long == {}


def test_every_module_says_what_it_is(repository: Path) -> None:
    silent = [p for p in sources(repository) if not ast.get_docstring(ast.parse(p.read_text()))]
    assert silent == []


def test_broad_excepts_say_why(repository: Path) -> None:
    found = [f"{p}:{n}" for p in sources(repository) for n in unexplained(p.read_text())]
    assert found == []


def test_nobody_is_told_to_fetch_the_package_from_an_index(repository: Path) -> None:
    """It is on none: a remedy has to work from a checkout."""
    places = [repository / "README.md", *(repository / "docs").rglob("*.md")]
    places += [p for p in (repository / "scripts").rglob("*") if p.is_file()]
    texts = {p: p.read_bytes() for p in [*places, *sources(repository)]}
    wrong = re.compile(rb"pip install (-\S+ )*['\"]?edge[-_]rt\b")
    assert [str(p) for p, text in texts.items() if wrong.search(text)] == []


@pytest.mark.parametrize(
    ("handler", "faults"),
    [
        ("except Exception:\n    pass", 1),
        ("except:\n    pass", 1),
        ("except (KeyError, BaseException):\n    pass", 1),
        ("except Exception:  # the siren must sound\n    pass", 0),
        ("except Exception:\n    # the siren must sound\n    pass", 0),
        ("except KeyError:\n    pass", 0),
    ],
)
def test_unexplained_handlers_are_found(handler: str, faults: int) -> None:
    assert len(unexplained(f"try:\n    x\n{handler}\n")) == faults


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())
