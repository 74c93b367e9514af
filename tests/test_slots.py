"""Slots on disk: filled whole or not at all, whatever the disk does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from update_driver import make_bundle

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.slots import DROPPED, OLD, Slots
from edge_rt.core.errors import StorageError


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    made = Slots(tmp_path / "models" / "fall")
    made.prepare()
    return made


def test_a_staged_bundle_moves_into_a_slot(tmp_path: Path, slots: Slots) -> None:
    staged = make_bundle(tmp_path / "staged", "1.1.0")
    slots.install(staged, "a")
    assert not staged.exists()
    assert read_bundle(slots.folder("a")).manifest.version == "1.1.0"
    assert {p.stat().st_mode & 0o777 for p in slots.folder("a").iterdir()} == {0o600}
    slots.install(staged, "a")  # once more, as after a kill: nothing is left to do
    assert read_bundle(slots.folder("a")).manifest.version == "1.1.0"


def test_a_slot_is_replaced_and_the_other_left_alone(tmp_path: Path, slots: Slots) -> None:
    slots.install(make_bundle(tmp_path / "one", "1.1.0"), "a")
    slots.install(make_bundle(tmp_path / "two", "1.2.0"), "b")
    slots.install(make_bundle(tmp_path / "three", "1.3.0"), "a")
    versions = {s: read_bundle(slots.folder(s)).manifest.version for s in ("a", "b")}
    assert versions == {"a": "1.3.0", "b": "1.2.0"}
    assert sorted(p.name for p in slots.root.iterdir()) == ["a", "b"]
    slots.clear("a")
    slots.clear("a")
    assert sorted(p.name for p in slots.root.iterdir()) == ["b"]


def test_what_is_gone_cannot_be_installed(tmp_path: Path, slots: Slots) -> None:
    with pytest.raises(StorageError, match="it is fetched again"):
        slots.install(tmp_path / "staged", "a")


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_only_plain_files_are_installed(tmp_path: Path, slots: Slots, kind: str) -> None:
    staged = make_bundle(tmp_path / "staged", "1.1.0")
    if kind == "link":
        (staged / "more").symlink_to("/etc/passwd")
    else:
        (staged / "more").mkdir()
    with pytest.raises(StorageError, match="no plain file"):
        slots.install(staged, "a")
    assert not slots.folder("a").exists()


def test_leftovers_of_a_kill_are_removed(tmp_path: Path, slots: Slots) -> None:
    for name in (f"a{OLD}", f"b{OLD}", DROPPED):
        make_bundle(slots.root / name, "1.0.0")
    slots.prepare()
    assert list(slots.root.iterdir()) == []


def test_a_read_only_disk_leaves_what_is_there(disk: Path) -> None:
    slots = Slots(disk / "models" / "fall")
    slots.prepare()
    slots.install(make_bundle(disk / "one", "1.1.0"), "a")
    staged = make_bundle(disk / "two", "1.2.0")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for act in (
        lambda: slots.install(staged, "a"),
        lambda: slots.install(staged, "b"),
        lambda: slots.clear("a"),
        lambda: Slots(disk / "other" / "fall").prepare(),
    ):
        with pytest.raises(StorageError, match="Read-only"):
            act()
        assert read_bundle(slots.folder("a")).manifest.version == "1.1.0"
