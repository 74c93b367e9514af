"""Plugin: figures that tests measure, held to their bounds and recorded by a release run.

    def test_wrapper(figure):
        figure("wrapper overhead", ratio, at_most=1.05, unit="x")

`--record FILE.json` writes all figures of the run with the commit, machine and versions they
belong to, and the same as a table beside it (FILE.md).
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

KEY = "figure"
PACKAGES = (
    "ai-edge-litert",
    "tflite-runtime",
    "numpy",
    "opencv-python-headless",
    "cryptography",
    "msgspec",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="write measured figures to this .json file")


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """`figure(name, value, at_least=..., at_most=..., unit=...)`: records, then asserts."""

    def hold(
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        entry = {
            "name": name,
            "value": float(value),
            "unit": unit,
            "at_least": at_least,
            "at_most": at_most,
        }
        record_property(KEY, entry)
        assert at_least is None or value >= at_least, f"{name}: {value} {unit} < {at_least}"
        assert at_most is None or value <= at_most, f"{name}: {value} {unit} > {at_most}"

    return hold


class Recorder:
    """Collects the figures of a run; lives in the process that sees all reports."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._figures: list[dict[str, Any]] = []
        self._outcomes = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.outcome] += 1
        if report.when == "call":
            self._figures += [
                {**value, "test": report.nodeid, "passed": report.passed}
                for name, value in report.user_properties
                if name == KEY and isinstance(value, dict)
            ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        result = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            **_commit(session.config.rootpath),
            "machine": _machine(),
            "versions": {"python": platform.python_version(), **_versions()},
            "tests": self._outcomes,
            "figures": self._figures,
        }
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._target.write_text(json.dumps(result, indent=1) + "\n")
        self._target.with_suffix(".md").write_text(_table(result))


def pytest_configure(config: pytest.Config) -> None:
    target: Path | None = config.getoption("--record")
    if target is not None and not hasattr(config, "workerinput"):  # set in workers of xdist only
        config.pluginmanager.register(Recorder(target))


def _commit(root: Path) -> dict[str, object]:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else "unknown"

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed_files": git("diff", "--name-only", "HEAD").splitlines(),
    }


def _machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
    return {
        "processor": model or platform.machine(),
        "architecture": platform.machine(),
        "cores": sum(line.startswith("processor") for line in lines),
        "kernel": platform.release(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _table(result: dict[str, Any]) -> str:
    machine, tests = result["machine"], result["tests"]
    changed = ", with uncommitted changes" if result["changed_files"] else ""
    rows = [
        "# Release figures",
        "",
        "Made by a script of the project; the same with all details in the `.json` beside this.",
        "",
        f"- commit `{result['commit']}`{changed}, {result['made']}",
        f"- {machine['processor']} ({machine['architecture']}), {machine['cores']} cores",
        "- " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
        f"- tests: {tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped",
        "",
        "| figure | value | bound | held | test |",
        "|---|---|---|---|---|",
    ]
    for entry in result["figures"]:
        limits = ((">=", entry["at_least"]), ("<=", entry["at_most"]))
        bounds = [f"{sign} {limit:g}" for sign, limit in limits if limit is not None]
        value = f"{entry['value']:.6g} {entry['unit']}".strip()
        held = "yes" if entry["passed"] else "no"
        bound = ", ".join(bounds) or "none"
        rows.append(f"| {entry['name']} | {value} | {bound} | {held} | `{entry['test']}` |")
    return "\n".join(rows) + "\n"
