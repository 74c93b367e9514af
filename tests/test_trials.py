"""Trial files: written, read back, and refused in one line when they are not what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edge_rt.adapters.trials import Trial, read_trials, write_trials
from edge_rt.core.errors import InputError


def trial(name: str, n: int, seed: int, stamped: bool = False) -> Trial:
    rng = np.random.default_rng(seed)
    acc = (rng.integers(-4096, 4096, (n, 3)) / 256).astype(np.float32)
    t_s = np.cumsum(rng.integers(-3, 40, n)) / 1000.0 if stamped else None
    return Trial("S1", name, "F01", True, "waist", 50.0, acc, t_s, 1.5, math.nan)


@pytest.mark.parametrize("stamped", [False, True])
def test_what_is_written_is_read(tmp_path: Path, stamped: bool) -> None:
    path = tmp_path / "a.npz"
    written = [trial("one", 80, 1, stamped), trial("two", 200, 2, stamped)]
    write_trials(path, written)
    read = list(read_trials(path))
    assert [t.trial for t in read] == ["one", "two"]
    for old, new in zip(written, read, strict=True):
        assert (new.acc_g == old.acc_g).all()
        assert new.acc_g.dtype == np.float32
        assert (new.t_s is None) == (old.t_s is None)
        assert np.allclose(new.times_s(), old.times_s())
        assert (new.subject, new.is_fall, new.placement, new.rate_hz) == ("S1", True, "waist", 50.0)
        assert new.fall_start_s == 1.5
        assert math.isnan(new.fall_end_s)


def test_differences_wrap_around(tmp_path: Path) -> None:
    acc = np.float32([[30000, -30000, 0], [-30000, 30000, 1], [30000, -30000, 2]]) / 4096
    write_trials(tmp_path / "a.npz", [trial("one", 3, 1)._replace(acc_g=acc)], scale_g=1 / 4096)
    (read,) = read_trials(tmp_path / "a.npz")
    assert (read.acc_g == acc).all()


def test_sisfall_reads_as_its_readme_says(shared: Path) -> None:
    trials = list(read_trials(shared / "data/falls/sisfall/SA01.npz"))
    assert trials[0].trial == "D01_SA01_R01"
    assert trials[0].rate_hz == 200.0
    walking = np.concatenate([t.acc_g for t in trials if t.activity == "D01"])
    assert walking.mean(axis=0)[1] == pytest.approx(-0.98, abs=0.1)


def good(path: Path) -> dict[str, np.ndarray]:
    write_trials(path, [trial("one", 80, 1), trial("two", 200, 2)])
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("acc_delta", None, "'acc_delta' is missing"),
        ("placement", None, "'placement' is missing"),
        ("acc_delta", np.zeros((3, 280), np.float32), "needs int16"),
        ("offset", np.array([0, 80, 281]), "offset does not run"),
        ("offset", np.array([0, 300, 280]), "offset runs backwards"),
        ("subject", np.array(["S1"]), "subject has shape"),
        ("t_ms", np.zeros(5, np.int32), "t_ms has shape"),
        ("t_ms", np.r_[np.arange(100.0), math.nan, np.arange(179.0)], "t_ms of trial two is not"),
        ("t_ms", np.r_[math.inf, np.arange(279.0)], "t_ms of trial one is not finite"),
        ("rate_hz", np.float32(0), "out of range"),
        ("rate_hz", np.float32(math.nan), "out of range"),
        ("format", np.array("trials/9"), "its format is 'trials/9'"),
    ],
)
def test_a_wrong_array_is_named(
    tmp_path: Path, key: str, value: np.ndarray | None, complaint: str
) -> None:
    path = tmp_path / "a.npz"
    arrays = good(path)
    arrays.pop(key, None)
    if value is not None:
        arrays[key] = value
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=complaint) as caught:
        list(read_trials(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    good(path)
    content = path.read_bytes()
    cases = {
        "empty": b"",
        "text": b"not an archive\n",
        "truncated": content[: len(content) // 2],
        "flipped": content[:400] + bytes([content[400] ^ 255]) + content[401:],
    }
    for name, damaged in cases.items():
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            list(read_trials(path))
        assert "\n" not in str(caught.value), name
    with pytest.raises(InputError, match="no such file"):
        list(read_trials(tmp_path / "none.npz"))
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(InputError, match="it is no archive"):
        list(read_trials(tmp_path / "bare.npy"))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{**good(path), "subject": np.array([{"a": 1}, {}], object)})
    with pytest.raises(InputError, match=r"[Pp]ickle"):
        list(read_trials(path))


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not fit"):
        write_trials(tmp_path / "a.npz", [trial("one", 80, 1)], scale_g=1e-4)
    for bad in (math.nan, math.inf):
        broken = trial("two", 80, 1, stamped=True)
        broken.acc_g[7, 2] = bad
        with pytest.raises(InputError, match="acc_g of trial two is not finite"):
            write_trials(tmp_path / "a.npz", [trial("one", 80, 1, stamped=True), broken])
        late = trial("two", 80, 1, stamped=True)
        late.times_s()[3] = bad
        with pytest.raises(InputError, match="t_s of trial two is not finite"):
            write_trials(tmp_path / "a.npz", [late])
    mixed = [trial("one", 80, 1), trial("two", 80, 1)._replace(rate_hz=25.0)]
    with pytest.raises(InputError, match="one placement, rate"):
        write_trials(tmp_path / "a.npz", mixed)
