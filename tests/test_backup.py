"""Backup, restore, factory reset: verified first, kept aside, finished after a kill."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_rt.adapters.eventlog import EventLog
from edge_rt.adapters.eventreader import EventReader
from edge_rt.adapters.statedir import StateDir
from edge_rt.adapters.statefile import AtomicFile, StateFile
from edge_rt.adapters.templates import STORE_NAME, TemplateStore, load_key
from edge_rt.core.errors import DaemonError, InputError
from edge_rt.core.remote_command import Handled, Memory
from edge_rt.core.unlock import Counters
from edge_rt.runtime.backup import backup, factory_reset, restore
from edge_rt.runtime.places import (
    COMMANDS_NAME,
    EVENTS_NAME,
    FALL_NAME,
    MODELS_NAME,
    UNLOCK_NAME,
    UPDATES_NAME,
)
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.restoring import finish_restore
from edge_rt.runtime.stamps import Stamps


def recorder(state: Path) -> Recorder:
    return Recorder(
        lambda draft, check: EventLog(state / EVENTS_NAME, draft, check=check),
        Stamps("/edge-rt/home/hall", "b" * 32),
    )


def store(state: Path) -> TemplateStore:
    key = load_key("", state, {})
    return TemplateStore(AtomicFile(state / STORE_NAME), key, embedding_space="s", camera="c")


def fill(state: Path, events: int, person: str | None = None) -> None:
    state.mkdir(parents=True, exist_ok=True)
    writing = recorder(state)
    for n in range(events):
        writing.announce("fall", "alarm", {"incident": f"{person} {n}"})
    assert writing.close(20)
    StateFile(state / UNLOCK_NAME, Counters).save(Counters(failures=events))
    if person is not None:
        StateFile(state / FALL_NAME, dict).save({"state": person})
        store(state).add(person, np.ones((1, 128), np.float32), 0)


def content(state: Path) -> tuple[int, list[str], Counters | None]:
    reader = EventReader(state / EVENTS_NAME)
    events = reader.last_sequence()
    reader.close()
    names = [person.name for person in store(state).persons()]
    return events, names, StateFile(state / UNLOCK_NAME, Counters).load()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    fill(tmp_path / "state", 3, "Ada")
    return tmp_path / "state"


@pytest.fixture
def archive(tmp_path: Path, state: Path) -> Path:
    backup(state, tmp_path / "save.tar.gz")
    return tmp_path / "save.tar.gz"


def test_a_backup_brings_everything_back(tmp_path: Path, archive: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    other = tmp_path / "other"
    report = restore(archive, other)
    assert report["kept_in"] is None
    assert content(other) == (3, ["Ada"], Counters(failures=3))
    assert {stat.S_IMODE(p.stat().st_mode) for p in other.iterdir()} == {0o600}
    assert sorted(p.name for p in other.iterdir()) == sorted([*report["files"], "state.lock"])


def test_a_restore_keeps_what_was_there(state: Path, archive: Path) -> None:
    store(state).add("Bo", np.ones((1, 128), np.float32), 0)
    writing = recorder(state)
    writing.announce("fall", "alarm", {}).result(20)
    writing.close(20)
    kept = Path(restore(archive, state)["kept_in"])
    assert content(state) == (3, ["Ada"], Counters(failures=3))
    assert content(kept) == (4, ["Ada", "Bo"], Counters(failures=3))
    second = restore(archive, state)["kept_in"]
    assert second != str(kept)


def test_what_was_signed_since_the_backup_does_not_work_once_more(state: Path) -> None:
    file = StateFile(state / COMMANDS_NAME, Memory)
    backup(state, state.parent / "none.tar.gz")
    file.save(Memory((Handled("old", "d", "cancel", "done"),), {"key": 5, "gone": 9}))
    backup(state, state.parent / "old.tar.gz")
    file.save(Memory((Handled("new", "d", "disarm", "done"),), {"key": 7}))
    restore(state.parent / "old.tar.gz", state)
    memory = file.load()
    assert memory is not None
    assert memory.counters == {"key": 7, "gone": 9}
    assert [known.id for known in memory.handled] == ["old", "new"]
    report = restore(state.parent / "none.tar.gz", state)
    assert file.load() == memory and COMMANDS_NAME in report["files"]
    file.file.path.write_bytes(b"damaged")
    restore(state.parent / "old.tar.gz", state)
    memory = file.load()
    assert memory is not None and memory.counters["key"] == 5


def test_a_restored_log_goes_on_where_nobody_was(state: Path, archive: Path) -> None:
    writing = recorder(state)
    for _ in range(5):
        writing.announce("fall", "alarm", {"incident": "late"}).result(20)
    writing.close(20)
    restore(archive, state)
    writing = recorder(state)
    stored = writing.announce("fall", "alarm", {"incident": "new"}).result(20)
    writing.close(20)
    assert int(stored.sequence) > 8 + 10**6


def test_what_the_backup_lacks_is_not_left_from_before(tmp_path: Path, state: Path) -> None:
    fill(tmp_path / "plain", 5)
    backup(tmp_path / "plain", tmp_path / "plain.tar.gz")
    kept = Path(restore(tmp_path / "plain.tar.gz", state)["kept_in"])
    assert not (state / STORE_NAME).exists() and not (state / FALL_NAME).exists()
    assert (kept / STORE_NAME).exists() and (kept / FALL_NAME).exists()
    assert content(state) == (5, [], Counters(failures=5))


def test_a_backup_while_the_daemon_writes(tmp_path: Path, state: Path) -> None:
    with StateDir(state):
        writing = recorder(state)
        for n in range(200):
            writing.announce("fall", "alarm", {"incident": str(n)})
        backup(state, tmp_path / "live.tar.gz")
        assert writing.close(20)
    restore(tmp_path / "live.tar.gz", tmp_path / "other")
    assert 3 <= content(tmp_path / "other")[0] <= 203


def test_the_daemon_must_be_stopped(state: Path, archive: Path) -> None:
    with StateDir(state):
        with pytest.raises(DaemonError, match="in use by process"):
            restore(archive, state)
        with pytest.raises(DaemonError, match="in use by process"):
            factory_reset(state, confirmed=True)


def test_nothing_is_overwritten_and_nothing_saved_from_nowhere(
    tmp_path: Path, state: Path, archive: Path
) -> None:
    before = archive.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        backup(state, archive)
    assert archive.read_bytes() == before
    with pytest.raises(InputError, match="no state to save"):
        backup(tmp_path / "nowhere", tmp_path / "new.tar.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["save.tar.gz", "state"]


# ---- archives that must not be restored ----


def repack(archive: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], Any]) -> None:
    with tarfile.open(archive) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(archive, "w:gz") as tar:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))


def extra(name: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(member, key, value)
    return member, b"evil"


def swap_events(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Damage the log and make the manifest agree."""
    import hashlib
    import json

    at = next(n for n, (m, _) in enumerate(members) if m.name == EVENTS_NAME)
    data = members[at][1][:4096] + b"\xa5" * (len(members[at][1]) - 4096)
    manifest = json.loads(members[0][1])
    manifest["files"][EVENTS_NAME]["sha256"] = hashlib.sha256(data).hexdigest()
    members[at] = members[at][0], data
    members[0] = members[0][0], json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.append(extra("../evil")), "does not belong"),
        (lambda m: m.append(extra("/tmp/evil")), "does not belong"),
        (lambda m: m.append(extra("evil", type=tarfile.SYMTYPE, linkname="/etc")), "not belong"),
        (lambda m: m.insert(0, extra("manifest.json", type=tarfile.SYMTYPE)), "no backup"),
        (lambda m: m.insert(0, extra("../manifest.json")), "no backup of edge_rt"),
        (lambda m: m.append(m[1]), "does not belong"),
        (lambda m: m.pop(), "missing; the file is cut off"),
        (lambda m: m.pop(0), "no backup of edge_rt"),
        (lambda m: m.__setitem__(2, (m[2][0], m[2][1][:-1] + b"?")), "SHA-256 differs"),
        (lambda m: m.__setitem__(2, (m[2][0], m[2][1] + b"?")), "damaged"),
        (lambda m: m.__setitem__(0, (m[0][0], b"{}")), "damaged or no backup"),
        (
            lambda m: m.__setitem__(
                0, (m[0][0], m[0][1].replace(b"events.db", b"../../x.db").replace(b"1,", b"1,", 1))
            ),
            "holds no events.db",
        ),
        (swap_events, "events.db"),
    ],
)
def test_an_archive_that_is_wrong_changes_nothing(
    tmp_path: Path, state: Path, archive: Path, change: Any, complaint: str
) -> None:
    repack(archive, change)
    before = {p: p.read_bytes() for p in state.iterdir() if p.is_file() and p.suffix != ".lock"}
    with pytest.raises(InputError, match=complaint) as caught:
        restore(archive, state)
    assert "\n" not in str(caught.value)
    after = {p: p.read_bytes() for p in state.iterdir() if p.is_file() and p.suffix != ".lock"}
    assert after == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["save.tar.gz", "state"]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("how", ["missing", "empty", "text", "cut", "flipped"])
def test_a_file_that_is_no_whole_archive(tmp_path: Path, state: Path, how: str) -> None:
    path = tmp_path / "save.tar.gz"
    backup(state, path)
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
    body = {"empty": b"", "text": b"hello", "cut": data[:middle], "flipped": flipped}
    path.unlink() if how == "missing" else path.write_bytes(body[how])
    with pytest.raises(InputError, match=r"save\.tar\.gz"):
        restore(path, state)
    assert content(state) == (3, ["Ada"], Counters(failures=3))


# ---- a kill in the middle ----

KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from edge_rt.runtime import backup
left = {after}
def hook(event, arguments):  # the interpreter's own audit events (PEP 578)
    global left
    if event == "os.rename":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
backup.restore(Path({archive!r}), Path({state!r}))
os._exit(0)  # the hook must not see the interpreter being taken down
"""


def test_a_restore_that_was_cut_off_is_finished(tmp_path: Path, state: Path, archive: Path) -> None:
    for after in range(40):
        folder = tmp_path / f"state-{after}"
        fill(folder, 7, "Bo")
        code = KILLED.format(path=sys.path, after=after, archive=str(archive), state=str(folder))
        run = subprocess.run([sys.executable, "-c", code])
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL
        with StateDir(folder):
            finish_restore(folder)
        expected = (7, ["Bo"], 7) if after == 0 else (3, ["Ada"], 3)
        events, names, counters = content(folder)
        assert counters is not None
        assert (events, names, counters.failures) == expected, f"killed at rename {after}"
        if after:
            assert content(folder / "before-restore-1")[:2] == (7, ["Bo"])
        assert not (folder / "restore.ready").exists()
    assert after > 5


# ---- factory reset ----


def test_a_factory_reset_forgets_all(tmp_path: Path, state: Path, archive: Path) -> None:
    restore(archive, state)
    (state / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    with pytest.raises(InputError, match="confirm"):
        factory_reset(state, confirmed=False)
    assert content(state)[0] == 3
    removed = factory_reset(state, confirmed=True)["removed"]
    assert removed[0] == "templates.key", "without the key the templates are noise"
    assert os.listdir(state) == ["state.lock"]
    assert (tmp_path / "outside" / "file").exists()
    fill(state, 1, "Cy")
    assert content(state)[:2] == (1, ["Cy"])


def test_models_stay_on_their_device(tmp_path: Path, state: Path) -> None:
    """They come again, signed; what a device has tried is about that device alone."""
    slot = state / MODELS_NAME / "fall" / "a"
    slot.mkdir(parents=True)
    (slot / "model.toml").write_text("a confirmed model")
    (state / UPDATES_NAME).mkdir()
    saved = backup(state, tmp_path / "with-models.tar.gz")
    assert not [name for name in saved["files"] if "model" in name or "updates" in name]
    restore(tmp_path / "with-models.tar.gz", tmp_path / "other")
    assert not (tmp_path / "other" / MODELS_NAME).exists()
    restore(tmp_path / "with-models.tar.gz", state)
    assert (slot / "model.toml").read_text() == "a confirmed model"
    factory_reset(state, confirmed=True)
    assert os.listdir(state) == ["state.lock"]
