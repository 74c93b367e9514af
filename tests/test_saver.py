"""The newest state reaches the disk; a failing disk is retried and never waited for."""

from __future__ import annotations

import threading
from pathlib import Path

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.errors import StorageError
from edge_rt.runtime.saver import LatestSaver


def test_the_newest_state_is_on_disk_after_close(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.json", int)
    saver = LatestSaver(file, "test")
    for n in range(1000):
        saver.save(n)
    saver.close()
    assert file.load() == 999


class Sick(StateFile[int]):
    """A state file on a disk that fails until told otherwise."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, int)
        self.failed = threading.Event()
        self.well = threading.Event()
        self.saved = threading.Event()

    def save(self, state: int) -> None:
        if not self.well.is_set():
            self.failed.set()
            raise StorageError("no space left")
        super().save(state)
        self.saved.set()


def test_a_failed_write_is_tried_again_with_the_newest_state(tmp_path: Path) -> None:
    file = Sick(tmp_path / "s.json")
    saver = LatestSaver(file, "test")
    saver.save(1)
    assert file.failed.wait(10.0)
    saver.save(2)
    assert saver.problem == "no space left" or file.failed.is_set()
    file.well.set()
    assert file.saved.wait(10.0)
    assert file.load() == 2
    saver.close()
    assert saver.problem == ""


def test_close_does_not_wait_for_a_disk_that_never_recovers(tmp_path: Path) -> None:
    file = Sick(tmp_path / "s.json")
    saver = LatestSaver(file, "test")
    saver.save(1)
    assert file.failed.wait(10.0)
    saver.close(timeout_s=5.0)
    assert saver.problem
    assert not (tmp_path / "s.json").exists()
