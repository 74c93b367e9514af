"""Small state on disk: whole or not at all, and damage is seen."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest

from edge_rt.adapters.statefile import AtomicFile, StateFile
from edge_rt.core.errors import StorageError


class Small(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    count: int = 0
    text: str = ""


def made(tmp_path: Path) -> StateFile[Small]:
    return StateFile(tmp_path / "small.json", Small)


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    file = made(tmp_path)
    assert file.load() is None
    file.save(Small(1, "ä"))
    file.save(Small(2, "ö"))
    assert made(tmp_path).load() == Small(2, "ö")
    assert stat.S_IMODE(file.file.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["small.json"]


def test_a_kill_while_writing_leaves_the_old_state(tmp_path: Path) -> None:
    file = made(tmp_path)
    file.save(Small(1))
    (tmp_path / "small.json.new").write_bytes(b'{"format":1,"sha2')
    assert file.load() == Small(1)
    file.save(Small(2))
    assert file.load() == Small(2)


@pytest.mark.parametrize("at", range(0, 100, 7))
def test_a_flipped_bit_is_seen_and_the_file_stays(tmp_path: Path, at: int) -> None:
    file = made(tmp_path)
    file.save(Small(12345, "text"))
    data = bytearray(file.file.path.read_bytes())
    data[at] ^= 2
    file.file.path.write_bytes(data)
    with pytest.raises(StorageError, match=r"small\.json"):
        file.load()
    assert file.file.path.read_bytes() == data


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "damaged"),
        (b"{}", "damaged"),
        (b"\xff", "damaged"),
        (b'{"format":9,"sha256":"","state":{}}', "checksum"),
        (b"x" * (1024 * 1024 + 1), "over 1048576 bytes"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    (tmp_path / "small.json").write_bytes(data)
    with pytest.raises(StorageError, match=complaint):
        made(tmp_path).load()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        AtomicFile(tmp_path / "gone" / "f").write(b"")
