"""The template store: each way it can be wrong is told apart, and none loses the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_rt.adapters import templates
from edge_rt.adapters.statefile import AtomicFile
from edge_rt.adapters.templates import TemplateStore, load_key
from edge_rt.core.errors import CredentialError, EdgeRtError, InputError, StorageError

KEY = bytes(range(32))
GENERATOR = np.random.default_rng(1)


def rows(n: int = 2, size: int = 128) -> Any:
    return GENERATOR.normal(size=(n, size)).astype(np.float32)


def store(path: Path, **changes: Any) -> TemplateStore:
    facts: dict[str, Any] = {"embedding_space": "dlib-1", "camera": "front"} | changes
    return TemplateStore(AtomicFile(path), facts.pop("key", KEY), **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / templates.STORE_NAME


def test_persons_come_back_exactly(path: Path) -> None:
    assert store(path).persons() == []
    faces = rows(3)
    ada = store(path).add("Ada", faces, 1.7e9)
    store(path).add("Bo", rows(1), 1.8e9)
    first, second = store(path).persons()
    assert (first.id, first.name, first.created_s) == (ada.id, "Ada", 1.7e9)
    assert first.embeddings.dtype == np.float32
    assert np.array_equal(first.embeddings, faces)
    assert second.embeddings.shape == (1, 128)
    assert len(ada.id) == 18 and ada.id != second.id


def test_removing_by_name_or_pseudonym(path: Path) -> None:
    ada = store(path).add("Ada", rows(), 0)
    store(path).add("Bo", rows(), 0)
    assert store(path).remove(ada.id).name == "Ada"
    assert store(path).remove("Bo").name == "Bo"
    assert store(path).persons() == []
    with pytest.raises(InputError, match="not enrolled; enrolled: nobody"):
        store(path).remove("Ada")


def test_nothing_readable_is_on_disk(path: Path) -> None:
    faces = rows()
    store(path).add("Ada Lovelace", faces, 0)
    data = path.read_bytes()
    assert b"Lovelace" not in data
    assert faces.tobytes()[:16] not in data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_write_has_its_own_nonce(path: Path) -> None:
    nonces = set()
    for name in "abcd":
        store(path).add(name, rows(), 0)
        data = path.read_bytes()
        start = len(templates.MAGIC) + 4
        start += int.from_bytes(data[start - 4 : start], "big")
        nonces.add(data[start : start + templates.NONCE_BYTES])
    assert len(nonces) == 4


def spoil(path: Path, how: str) -> dict[str, Any]:
    data = bytearray(path.read_bytes())
    if how == "flipped body":
        data[-60] ^= 1
    elif how == "flipped header":
        data[20] ^= 1
    elif how == "flipped camera":
        data[data.index(b"front")] ^= 1
    elif how == "truncated":
        del data[-50:]
    elif how == "beheaded":
        del data[15:]
    elif how == "appended":
        data += b"x"
    elif how == "foreign":
        data[:] = b"something else"
    path.write_bytes(data)
    if how == "wide mode":
        path.chmod(0o644)
    return {
        "wrong key": {"key": bytes(32)},
        "other space": {"embedding_space": "next-2"},
        "other camera": {"camera": "rear"},
        "other size": {"size": 64},
    }.get(how, {})


@pytest.mark.parametrize(
    ("how", "kind", "complaint"),
    [
        ("wrong key", CredentialError, "another key"),
        ("wide mode", CredentialError, "mode 0644 lets others in; chmod 600"),
        ("other space", InputError, "embedding space dlib-1, not next-2; enrol anew"),
        ("other camera", InputError, "camera front, not rear"),
        ("other size", InputError, "template size 128, not 64"),
        ("flipped body", StorageError, "checksum is wrong"),
        ("flipped header", StorageError, "damaged"),
        ("flipped camera", StorageError, "checksum is wrong"),
        ("truncated", StorageError, "cut off"),
        ("beheaded", StorageError, "cut off"),
        ("appended", StorageError, "checksum is wrong"),
        ("foreign", StorageError, "no template store of this format"),
    ],
)
def test_each_fault_is_told_in_one_line_and_the_file_stays(
    path: Path, how: str, kind: type[EdgeRtError], complaint: str
) -> None:
    store(path).add("Ada", rows(), 0)
    spoiled = store(path, **spoil(path, how))
    before = path.read_bytes()
    for act in (spoiled.persons, lambda: spoiled.add("Bo", rows(), 0), lambda: spoiled.remove("A")):
        with pytest.raises(kind, match=complaint) as caught:
            act()
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_forgery_with_a_right_checksum_is_found(path: Path) -> None:
    store(path).add("Ada", rows(), 0)
    data = bytearray(path.read_bytes()[: -templates.CHECKSUM_BYTES])
    data[data.index(b"front") : data.index(b"front") + 5] = b"rear_"
    path.write_bytes(bytes(data) + templates.hashlib.sha256(data).digest())
    with pytest.raises(CredentialError, match="not written by this key's owner"):
        store(path, camera="rear_").persons()


@pytest.mark.parametrize("at", range(0, 700, 37))
def test_no_flipped_bit_passes(path: Path, at: int) -> None:
    store(path).add("Ada", rows(1), 0)
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises(EdgeRtError):
        store(path).persons()


@pytest.mark.parametrize(
    ("name", "faces", "complaint"),
    [
        ("", rows(), "is no name"),
        ("a\nb", rows(), "is no name"),
        ("x" * 65, rows(), "is no name"),
        ("ADA", rows(), "enrolled already"),
        ("Bo", rows(2, 64), "shape"),
        ("Bo", rows(17), "1 to 16"),
        ("Bo", rows(0), "1 to 16"),
        ("Bo", np.full((1, 128), np.nan, np.float32), "finite"),
    ],
)
def test_what_cannot_be_enrolled_changes_nothing(
    path: Path, name: str, faces: Any, complaint: str
) -> None:
    store(path).add("Ada", rows(), 0)
    before = path.read_bytes()
    with pytest.raises(InputError, match=complaint):
        store(path).add(name, faces, 0)
    assert path.read_bytes() == before


def test_persons_are_bounded_and_the_largest_store_fits(path: Path) -> None:
    for n in range(templates.MAX_PERSONS):
        store(path).add(f"{n:064}", rows(templates.MAX_TEMPLATES), 0)
    assert len(store(path).persons()) == templates.MAX_PERSONS
    with pytest.raises(InputError, match="32 persons are enrolled"):
        store(path).add("one more", rows(), 0)


# ---- keys ----


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_key_is_made_at_first_use_and_stays(tmp_path: Path) -> None:
    key = load_key("", tmp_path, {})
    assert len(key) == 32 and load_key("", tmp_path, {}) == key
    assert stat.S_IMODE((tmp_path / templates.KEY_NAME).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [templates.KEY_NAME]


def test_no_new_key_for_old_templates(tmp_path: Path) -> None:
    key = load_key("", tmp_path, {})
    store(tmp_path / templates.STORE_NAME, key=key).add("Ada", rows(), 0)
    (tmp_path / templates.KEY_NAME).unlink()
    with pytest.raises(CredentialError, match="gone, but templates.bin needs it"):
        load_key("", tmp_path, {})


@pytest.mark.parametrize("data", [KEY, KEY.hex().encode(), KEY.hex().encode() + b"\n"])
def test_key_files_and_credentials(tmp_path: Path, data: bytes) -> None:
    file = write(tmp_path / "face.key", data)
    assert load_key(str(file), tmp_path, {}) == KEY
    # systemd hands credentials out in a private file system, at times with group bits.
    file.chmod(0o440)
    assert load_key("face.key", tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == KEY


@pytest.mark.parametrize(
    ("name", "mode", "data", "complaint"),
    [
        ("./k", 0o640, KEY, r"mode 0640 lets others in; chmod 600 k"),
        ("./k", 0o600, b"short", "32 bytes or 64 hex digits"),
        ("./k", 0o600, b"", "32 bytes or 64 hex digits"),
        ("./missing", 0o600, KEY, "No such file"),
        ("plain", 0o600, KEY, "CREDENTIALS_DIRECTORY is not set"),
    ],
)
def test_a_key_that_cannot_be_used(
    tmp_path: Path, name: str, mode: int, data: bytes, complaint: str
) -> None:
    write(tmp_path / "k", data, mode)
    name = name.replace(".", str(tmp_path), 1)
    with pytest.raises(CredentialError, match=complaint.replace(" k", f" {tmp_path}/k")):
        load_key(name, tmp_path, {})
