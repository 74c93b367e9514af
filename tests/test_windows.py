"""Channels: one code for batch and stream, bit for bit; invariant to how the sensor is turned."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rt.core.errors import ManifestError
from edge_rt.core.resample import ONE, to_fixed
from edge_rt.core.windows import CHANNELS, FeatureStream, Signals, compress

ALL = tuple(CHANNELS)
INVARIANT = tuple(name for name in ALL if name not in "xyz")


def walk(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    acc = np.cumsum(rng.normal(0, 0.1, (n, 3)), axis=0) + rng.normal(0, 0.5, (n, 3)) + [0, 0, 1]
    return to_fixed(acc.astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    rate_hz=st.sampled_from([10.0, 25.0, 31.5, 50.0]),
    cuts=st.sets(st.integers(1, 399), max_size=30),
    seed=st.integers(0, 9),
)
def test_batch_and_stream_agree_bit_for_bit(rate_hz: float, cuts: set[int], seed: int) -> None:
    fixed = walk(400, seed)
    batch = FeatureStream(rate_hz, ALL).push(fixed)
    stream = FeatureStream(rate_hz, ALL)
    blocks = [stream.push(block) for block in np.split(fixed, sorted(cuts))]
    assert np.concatenate(blocks).tobytes() == batch.tobytes()


def test_golden_stream() -> None:
    """Integers in, elementary operations only: every machine must give these very bits."""
    x = np.arange(300, dtype=np.int64)
    fixed = np.stack([(x * x * 7919) % 131072 - 65536, (x * 104729) % 65536, ONE - 97 * x], axis=1)
    rows = FeatureStream(25.0, ALL).push(fixed)
    assert rows.dtype == np.float32
    digest = hashlib.sha256(rows.astype("<f4").tobytes()).hexdigest()
    assert digest == "c280e8ea3be0435e1e594bb4c68eab99832ce518eb95a5099dcf1f520eb69e62"


def test_turning_the_sensor_changes_no_invariant_channel() -> None:
    fixed = walk(300)
    turned = fixed[:, [2, 0, 1]] * np.array([1, -1, -1])
    a = FeatureStream(25.0, INVARIANT).push(fixed)
    b = FeatureStream(25.0, INVARIANT).push(turned)
    assert np.abs(a - b).max() < 1e-6
    raw = FeatureStream(25.0, ("x",))
    assert np.abs(raw.push(fixed) - FeatureStream(25.0, ("x",)).push(turned)).max() > 0.1


def test_at_rest_and_on_the_first_sample() -> None:
    rows = FeatureStream(25.0, INVARIANT).push(np.tile(np.array([[0, 0, ONE]]), (200, 1)))
    expected = dict(
        magnitude=0.8, vertical=0.8, horizontal=0.0, jerk=0.0, tilt_recent=1.0, tilt_past=1.0
    )
    assert np.allclose(rows, [expected[name] for name in INVARIANT], atol=1e-6)


def test_a_fall_to_the_side_turns_the_tilt() -> None:
    fixed = np.zeros((200, 3), np.int64)
    fixed[:100, 2], fixed[100:, 0] = ONE, ONE
    rows = FeatureStream(25.0, ("tilt_recent", "tilt_past")).push(fixed)
    assert np.allclose(rows[99], 1.0)
    assert np.allclose(rows[110], 0.0, atol=1e-6)  # 0.4 s later all of the present is lying
    assert rows[159, 0] == pytest.approx(1.0)  # 2.4 s later "before" is lying too,
    assert rows[159, 1] == pytest.approx(0.0, abs=1e-6)  # but not 2.4 s before


def test_channels_look_no_further_back_than_they_say() -> None:
    fixed = walk(400)
    other = fixed.copy()
    other[:200] = walk(200, seed=5)
    a, b = (FeatureStream(25.0, ALL).push(f) for f in (fixed, other))
    assert (a[200 + 87 :] == b[200 + 87 :]).all()
    assert (a[200:203] != b[200:203]).any()


def test_channels_are_causal() -> None:
    fixed = walk(400)
    other = fixed.copy()
    other[200:] = walk(200, seed=5)
    a, b = (FeatureStream(25.0, ALL).push(f) for f in (fixed, other))
    assert (a[:200] == b[:200]).all()


def test_compress_follows_the_logarithm_of_its_docstring() -> None:
    x = np.linspace(1.0, 16.0, 200)
    assert np.abs(compress(x) / (1.2 * np.log1p(x)) - 1.0).max() < 0.07
    assert (compress(-x) == -compress(x)).all()


def test_steady_tells_gravity_motion_and_a_frozen_axis() -> None:
    rng = np.random.default_rng(1)
    acc = rng.normal(0, 0.2, (100, 3)) + [0, 0, 1]
    acc[50:, 1] = 0.25
    fixed = to_fixed(acc.astype(np.float32))
    at = np.array([40, 60, 99])
    steady = FeatureStream(25.0, ALL).signals(fixed).steady(at)
    for k, end in enumerate(at + 1):
        second = fixed[end - 25 : end] / ONE
        assert np.allclose(steady.gravity[:, k], second.mean(axis=0))
        length = np.sqrt((second**2).sum(axis=1))
        assert steady.motion[k] == pytest.approx(length.std(), abs=1e-4)
    assert steady.frozen.tolist() == [False, False, True]


def test_an_unknown_channel_is_named() -> None:
    with pytest.raises(ManifestError, match="'roll' is unknown.*magnitude"):
        FeatureStream(25.0, ("magnitude", "roll"))


def test_spans_are_at_least_one_sample() -> None:
    assert Signals(np.zeros((5, 3), np.int64), 4, 1.0).count(0.4) == 1
