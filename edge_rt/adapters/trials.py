"""Trial files (`trials/1`, .npz): labelled accelerometer recordings for training and evaluation.

Keys: `subject`, `trial`, `activity`, `is_fall` (T); `offset` int64 (T+1) into N samples;
`acc_delta` int16 (3, N), differences along time that run on across trials, with `acc_scale_g`;
`placement`, `rate_hz`; optional `t_ms` (N), arrival within the trial, and `fall_start_s`,
`fall_end_s` (T). Other keys (a gyroscope) are left alone.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import InputError
from edge_rt.core.types import Float32Array, FloatArray

FORMAT = "trials/1"
MAX_SAMPLES = 50_000_000  # 600 MB as float32: 70 h at 200 Hz, more than any public fall data set


class Trial(NamedTuple):
    """One recording.

    acc_g  float32 (N, 3), g
    t_s    float64 (N,), arrival within the trial, or None when only the rate is known
    fall_start_s, fall_end_s  annotated fall, NaN when there is none
    """

    subject: str
    trial: str
    activity: str
    is_fall: bool
    placement: str
    rate_hz: float
    acc_g: Float32Array
    t_s: FloatArray | None = None
    fall_start_s: float = math.nan
    fall_end_s: float = math.nan

    def times_s(self) -> FloatArray:
        """Stamps to replay with: as they arrived, or even at the nominal rate."""
        if self.t_s is not None:
            return self.t_s
        times: FloatArray = np.arange(len(self.acc_g)) / self.rate_hz
        return times


def read_trials(path: Path) -> Iterator[Trial]:
    """The trials of a file, in order. Raises InputError when the file is not what it should be."""
    arrays = _load(path)
    try:
        acc, offset, rate_hz = _check(arrays)
    except (KeyError, ValueError, TypeError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: not a {FORMAT} file: {reason}") from None
    nan = np.full(len(offset) - 1, math.nan)
    starts, ends = arrays.get("fall_start_s", nan), arrays.get("fall_end_s", nan)
    t_ms = arrays.get("t_ms")
    for k in range(len(offset) - 1):
        span = slice(offset[k], offset[k + 1])
        yield Trial(
            str(arrays["subject"][k]),
            str(arrays["trial"][k]),
            str(arrays["activity"][k]),
            bool(arrays["is_fall"][k]),
            str(arrays["placement"]),
            rate_hz,
            acc[span],
            None if t_ms is None else t_ms[span] / 1000.0,
            float(starts[k]),
            float(ends[k]),
        )


def find_trial(path: Path, trial: str) -> Trial:
    """One trial of a file by its id, the first if that is empty. Raises InputError."""
    for found in read_trials(path):
        if trial in ("", found.trial):
            return found
    raise InputError(f"{path}: no trial {trial!r} in it; see its `trial` array")


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.is_dir():
        raise InputError(f"{path}: a folder; name one {FORMAT} .npz in it")
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a {FORMAT} .npz")
    try:
        if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say so
            raise ValueError("it is no archive, or was cut short")
        with np.load(path, allow_pickle=False) as archive:
            # The gyroscope doubles the size and nothing here reads it.
            return {k: archive[k] for k in archive.files if not k.startswith("gyro")}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable .npz: {reason}") from None


def _check(
    arrays: dict[str, npt.NDArray[Any]],
) -> tuple[Float32Array, npt.NDArray[np.int64], float]:
    delta, offset = arrays["acc_delta"], arrays["offset"].astype(np.int64)
    rate_hz, scale = float(arrays["rate_hz"]), float(arrays["acc_scale_g"])
    if "format" in arrays and str(arrays["format"]) != FORMAT:
        raise ValueError(f"its format is {str(arrays['format'])!r}")
    if delta.ndim != 2 or delta.shape[0] != 3 or delta.dtype != np.int16:
        raise ValueError(f"acc_delta is {delta.dtype} {delta.shape}, needs int16 (3, N)")
    if delta.shape[1] > MAX_SAMPLES:
        raise ValueError(f"{delta.shape[1]} samples, more than {MAX_SAMPLES}; split the file")
    if offset.ndim != 1 or len(offset) < 2 or offset[0] != 0 or offset[-1] != delta.shape[1]:
        raise ValueError("offset does not run from 0 to the number of samples")
    if (np.diff(offset) < 0).any():
        raise ValueError("offset runs backwards")
    if not (0.0 < rate_hz < 1e5 and 0.0 < scale < 1.0):
        raise ValueError(f"rate_hz {rate_hz} or acc_scale_g {scale} is out of range")
    _ = str(arrays["placement"])
    for name in ("subject", "trial", "activity", "is_fall", "fall_start_s", "fall_end_s"):
        optional = name.startswith("fall_")
        if not (optional and name not in arrays) and arrays[name].shape != (len(offset) - 1,):
            raise ValueError(f"{name} has shape {arrays[name].shape}, needs ({len(offset) - 1},)")
    if "t_ms" in arrays and arrays["t_ms"].shape != (delta.shape[1],):
        raise ValueError(f"t_ms has shape {arrays['t_ms'].shape}, needs ({delta.shape[1]},)")
    if "t_ms" in arrays and (bad := ~np.isfinite(arrays["t_ms"])).any():
        at = int(np.searchsorted(offset, int(bad.argmax()), side="right")) - 1
        raise ValueError(f"t_ms of trial {arrays['trial'][at]} is not finite")
    # int16 arithmetic wraps around by design of the format.
    acc = np.cumsum(delta, axis=1, dtype=np.int16).T * np.float32(scale)
    return np.ascontiguousarray(acc, np.float32), offset, rate_hz


def write_trials(path: Path, trials: Sequence[Trial], scale_g: float = 1 / 256) -> None:
    """Write trials of one placement and rate; values are rounded to `scale_g`.

    Raises InputError for no trials, mixed placements, rates or stamping, and for samples or stamps
    that are not finite or do not fit.
    """
    if not trials or len({(t.placement, t.rate_hz, t.t_s is None) for t in trials}) != 1:
        raise InputError(f"{path}: give trials of one placement, rate and kind of stamps")
    for trial in trials:
        for what, values in (("acc_g", trial.acc_g), ("t_s", trial.times_s())):
            if not np.isfinite(values).all():
                raise InputError(f"{path}: {what} of trial {trial.trial} is not finite; mend it")
    counts = np.rint(np.concatenate([t.acc_g for t in trials]) / scale_g)
    if not (np.abs(counts) < 2**15).all():
        raise InputError(f"{path}: a value does not fit int16 at {scale_g} g; take a larger scale")
    steps = np.diff(counts.astype(np.int64).T, axis=1, prepend=0)
    arrays: dict[str, Any] = {
        "format": FORMAT,
        "subject": np.array([t.subject for t in trials]),
        "trial": np.array([t.trial for t in trials]),
        "activity": np.array([t.activity for t in trials]),
        "is_fall": np.array([t.is_fall for t in trials]),
        "offset": np.cumsum([0, *(len(t.acc_g) for t in trials)], dtype=np.int64),
        "placement": trials[0].placement,
        "rate_hz": np.float32(trials[0].rate_hz),
        "acc_delta": (steps & 0xFFFF).astype(np.uint16).view(np.int16),
        "acc_scale_g": np.float32(scale_g),
        "fall_start_s": np.array([t.fall_start_s for t in trials], np.float32),
        "fall_end_s": np.array([t.fall_end_s for t in trials], np.float32),
    }
    if trials[0].t_s is not None:
        stamps = np.concatenate([t.times_s() for t in trials])
        arrays["t_ms"] = np.rint(stamps * 1000.0).astype(np.int32)
    np.savez_compressed(path, **arrays)
