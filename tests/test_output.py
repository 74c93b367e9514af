"""What commands print: JSON that any parser takes, tables and trees that a person can read."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edge_rt.cli import output


def test_json_is_one_line_and_knows_numpy_and_nan(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": np.float32(0.5), "b": np.arange(3), "c": math.nan, "d": (1, None)})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": 0.5, "b": [0, 1, 2], "c": None, "d": [1, None]}
    with pytest.raises(NotImplementedError, match="object is no JSON value"):
        output.print_json({"a": object()})


def test_tables_align_numbers_right(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["name", "n"], [["a", 5], ["long", 12345]], indent=2)
    assert capsys.readouterr().out == "  NAME      N\n  a         5\n  long  12345\n"
    output.print_table(["name"], [])
    assert capsys.readouterr().out == ""


def test_trees_indent_and_like_rows_become_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_tree(
        {
            "state": None,
            "armed": True,
            "deep": {"one": {"x": 1}, "two": 2.0},
            "latency": {"a": {"p50": 0.125, "p99": 2.0}, "b": {"p50": 1.0, "p99": 123456.0}},
        }
    )
    assert capsys.readouterr().out.splitlines() == [
        "state    -",
        "armed    yes",
        "deep",
        "  one",
        "    x  1",
        "  two  2",
        "LATENCY    P50     P99",
        "a        0.125       2",
        "b            1  123456",
    ]


def test_long_lists_are_cut_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_tree({"missed": list(range(20))})
    assert capsys.readouterr().out.endswith("11 and 8 more\n")


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("work") as advance:
        advance(1, 2)
    assert capsys.readouterr() == ("", "")
