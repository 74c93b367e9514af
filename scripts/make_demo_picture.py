#!/usr/bin/env python3
"""Draws docs/demo.svg: the demo's live view at the moment of the alarm.

    scripts/make_demo_picture.py [OUTPUT]

Runs the real demo, five times as fast, and keeps the view once the fall has been alarmed and a face
has been unlocked.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from edge_rt.cli.demo import Story, running_daemon
from edge_rt.cli.demo_view import LiveView

WIDTH = 104


class Camera:
    """Stands in for rich's Live: keeps the last picture worth showing."""

    def __init__(self) -> None:
        self.console = Console(record=True, width=WIDTH, file=io.StringIO())
        self.picture: Any = None
        self.worth = False

    def update(self, picture: Any) -> None:
        if not self.worth:
            self.picture = picture


class Watching(LiveView):
    """The live view, which stops changing when there is most to see."""

    def __init__(self, camera: Camera) -> None:
        super().__init__(camera)
        self._camera = camera

    def show(self, status: dict[str, Any], events: Any) -> None:
        super().show(status, events)
        kinds = {event["type"] for event in events}
        self._camera.worth |= {"edge_rt.fall.alarm", "edge_rt.face.unlocked"} <= kinds

    def end(self, summary: dict[str, Any]) -> None:
        pass


def main(output: Path) -> None:
    camera = Camera()
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder), fast=True)
        with running_daemon(Path(folder), story.config()):
            story.play(Watching(camera))
    camera.console.print(camera.picture)
    output.write_text(camera.console.export_svg(title="scripts/demo"), encoding="utf-8")


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else here / "docs" / "demo.svg")
