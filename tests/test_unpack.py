"""adapters.unpack: whatever a signed zip holds, nothing of it lands where it should not."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from updates import plain_bundle

from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.unpack import MAX_FILES, Limits, pack, unpack
from edge_rt.core.catalog import Release
from edge_rt.core.errors import ManifestError, StorageError
from edge_rt.fleet.publisher import describe

LIMITS = Limits("0.1.0", 0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return plain_bundle(tmp_path / "bundle", 20_000)


def packed(bundle: Path) -> bytes:
    return pack(bundle, read_bundle(bundle).manifest)


def signed(bundle: Path, blob: bytes, **changes: Any) -> Release:
    """A release as a publisher would sign it for this zip."""
    release = describe(read_bundle(bundle).manifest, blob, 100, 65536)
    return msgspec.structs.replace(release, **changes)


def as_signed(release: Release, blob: bytes, **changes: Any) -> Release:
    """The release of a publisher who signed these bytes, whatever they are."""
    return msgspec.structs.replace(release, sha256=hashlib.sha256(blob).hexdigest(), **changes)


def tried(tmp_path: Path, blob: bytes, release: Release, limits: Limits = LIMITS) -> Path:
    path = tmp_path / "blob.zip"
    path.write_bytes(blob)
    folder = tmp_path / "staging" / "it"
    unpack(path, folder, release, limits)
    return folder


def refused(tmp_path: Path, blob: bytes, release: Release, limits: Limits = LIMITS) -> str:
    """Why it was refused; nothing of it is left anywhere."""
    before = {p for p in tmp_path.rglob("*") if "staging" not in p.parts} | {tmp_path / "blob.zip"}
    with pytest.raises((ManifestError, StorageError)) as caught:
        tried(tmp_path, blob, release, limits)
    assert list((tmp_path / "staging").iterdir()) == []
    assert {p for p in tmp_path.rglob("*") if "staging" not in p.parts} == before
    return str(caught.value)


def test_it_comes_out_as_it_went_in(bundle: Path, tmp_path: Path) -> None:
    blob = packed(bundle)
    assert blob == packed(bundle), "the same files must give the same bytes"
    folder = tried(tmp_path, blob, signed(bundle, blob))
    for path in bundle.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert len(list(folder.iterdir())) == len(list(bundle.iterdir()))
    assert tried(tmp_path, blob, signed(bundle, blob)) == folder  # again, over the first


def test_other_bytes_than_were_signed_are_not_even_opened(bundle: Path, tmp_path: Path) -> None:
    blob = packed(bundle)
    release = signed(bundle, blob)
    swapped = bytearray(blob)
    swapped[-1] ^= 1  # in the zip's comment length, where zipfile might not look
    assert "sha256 of the whole" in refused(tmp_path, bytes(swapped), release)


Change = Callable[[zipfile.ZipFile], None]


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("more")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("more", b"\0" * 30_000_000, zipfile.ZIP_DEFLATED)


def lzma(archive: zipfile.ZipFile) -> None:
    archive.writestr("more", b"x", zipfile.ZIP_LZMA)


def twice(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("CARD.md", b"another card")


def many(archive: zipfile.ZipFile) -> None:
    for number in range(MAX_FILES):
        archive.writestr(f"f{number}", b"")


def put(name: str) -> Change:
    return lambda archive: archive.writestr(zipfile.ZipInfo(name), b"x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(put("../escape"), "no plain file name", id="traversal"),
        pytest.param(put("/tmp/escape"), "no plain file name", id="absolute path"),
        pytest.param(put("sub/file"), "no plain file name", id="folder"),
        pytest.param(put("sub/"), "no plain file name", id="empty folder"),
        pytest.param(put("..\\escape"), "no plain file name", id="backslash"),
        pytest.param(put(".hidden"), "no plain file name", id="hidden"),
        pytest.param(put("model.toml@zero"), "no plain file name", id="zero byte"),
        pytest.param(put("mod\u0435l.toml"), "no plain file name", id="look-alike"),
        pytest.param(put("x" * 200), "no plain file name", id="long name"),
        pytest.param(put("card.MD"), "twice", id="case collision"),
        pytest.param(twice, "twice", id="same name twice"),
        pytest.param(link, "link", id="symlink"),
        pytest.param(bomb, "would become", id="bomb"),
        pytest.param(lzma, "not accepted", id="another compression"),
        pytest.param(many, "files; at most", id="too many"),
        pytest.param(put("extra.bin"), "not in the manifest", id="unlisted file"),
    ],
)
def test_each_trick_is_refused(bundle: Path, tmp_path: Path, change: Change, reason: str) -> None:
    target = io.BytesIO(packed(bundle))
    with zipfile.ZipFile(target, "a") as archive:
        change(archive)
    blob = target.getvalue().replace(b"@zero", b"\0zero")  # zipfile would not write it
    assert reason in refused(tmp_path, blob, signed(bundle, blob))


def rebuilt(bundle: Path, without: str = "", **other: bytes) -> bytes:
    """The zip with a file left out or with other content than the manifest says."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(bundle.iterdir()):
            if path.name != without:
                archive.writestr(path.name, other.get(path.stem, path.read_bytes()))
    return target.getvalue()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"without": "model.toml"}, "no model.toml"),
        ({"without": "CARD.md"}, "CARD.md is missing"),
        ({"CARD": b"short"}, "has not the"),
        ({"CARD": b"x" * 5000}, "has not the"),
        ({"golden": b"g0lden"}, "another sha256"),
    ],
)
def test_the_files_must_be_the_manifest_s(
    bundle: Path, tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    blob = rebuilt(bundle, **given)
    assert reason in refused(tmp_path, blob, signed(bundle, blob))


@pytest.mark.parametrize(
    "change",
    [
        {"task": "face-embed"},
        {"name": "fall-wrist"},
        {"version": "2.0.0"},
        {"security_epoch": 2},
        {"minimum_runtime": "0.0.9"},
    ],
)
def test_the_bundle_must_be_the_one_that_was_signed(
    bundle: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    blob = packed(bundle)
    reason = refused(tmp_path, blob, signed(bundle, blob, **change))
    assert f"{next(iter(change))} is" in reason
    assert "was signed" in reason


def test_an_older_runtime_refuses(bundle: Path, tmp_path: Path) -> None:
    blob = packed(bundle)
    assert "upgrade" in refused(tmp_path, blob, signed(bundle, blob), Limits("0.0.9", 0))


def test_the_reserve_of_the_disk_stays(bundle: Path, tmp_path: Path) -> None:
    blob = packed(bundle)
    assert "free disk space" in refused(
        tmp_path, blob, signed(bundle, blob), Limits("0.1.0", 2**60)
    )


def test_a_manifest_that_lists_itself_is_refused_for_good(bundle: Path, tmp_path: Path) -> None:
    text = (bundle / "model.toml").read_text()
    blob, release = packed(bundle), signed(bundle, packed(bundle))
    entry = f'[files."model.toml"]\nsha256 = "{"0" * 64}"\nsize = 9\n'
    blob = repacked(blob, "model.toml", text.rstrip() + f"\n{entry}")
    release = as_signed(release, blob, size=len(blob))
    with pytest.raises(ManifestError, match="cannot list itself"):
        tried(tmp_path, blob, release)


def test_a_name_that_is_no_text_is_refused_for_good(bundle: Path, tmp_path: Path) -> None:
    archive = io.BytesIO(packed(bundle))
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("caf\u00e9", b"x")
    blob = archive.getvalue().replace("caf\u00e9".encode(), b"caf\xff\xff")
    with pytest.raises(ManifestError, match="no sound zip"):
        tried(tmp_path, blob, signed(bundle, blob))


def repacked(blob: bytes, name: str, text: str) -> bytes:
    """The zip with another content of one file."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(blob)) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, text if entry == name else old.read(entry))
    return made.getvalue()


def test_entries_that_share_bytes_are_refused(bundle: Path, tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(bundle.iterdir()):
            archive.writestr(path.name, path.read_bytes())
        entry = archive.getinfo("model.tflite")
        for number in range(3):  # the central directory names the same bytes again
            again = zipfile.ZipInfo(f"copy{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(again, field, getattr(entry, field))
            archive.filelist.append(again)
    blob = target.getvalue()
    assert "overlap" in refused(tmp_path, blob, signed(bundle, blob))


def test_damage_anywhere_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole = packed(bundle)
    release = signed(bundle, whole)
    for blob in (b"", b"PK", whole[: len(whole) // 2], whole[:-10], b"\0" * 5000):
        assert "no sound zip" in refused(tmp_path, blob, as_signed(release, blob))
    step = max(1, len(whole) // 150)
    for at in range(0, len(whole), step):
        bent = bytearray(whole)
        bent[at] ^= 0xFF
        try:
            folder = tried(tmp_path, bytes(bent), as_signed(release, bytes(bent)))
        except ManifestError:
            continue
        # A bit that means nothing (a date, a version): then all files are right.
        for path in bundle.iterdir():
            wanted = hashlib.sha256(path.read_bytes()).digest()
            assert hashlib.sha256((folder / path.name).read_bytes()).digest() == wanted
