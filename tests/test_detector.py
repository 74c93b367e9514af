"""The detector: block borders change nothing, odd samples are flagged, swapping misses nothing."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_rt
from edge_rt.bundle import Bundle, open_bundle, verify_golden
from edge_rt.core.errors import InputError, ManifestError
from edge_rt.core.hop import Hop, HopFlag
from edge_rt.core.timebase import Stamps
from edge_rt.core.types import SampleBlock
from edge_rt.falls import detector as detector_module
from edge_rt.falls.detector import HISTORY_S, FallDetector

RATE = 50.0
HOP_S = 0.16


@pytest.fixture(scope="module")
def bundle(factory_bundle: Callable[[str], Path]) -> Bundle:
    return open_bundle(factory_bundle("fall-waist"))


def motion(seconds: float, seed: int = 0, rate: float = RATE) -> SampleBlock:
    """Not a fall, nor an activity: lively numbers that reach every part of the network."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    acc = rng.normal(0, 0.3, (n, 3)) + [0, 0.2, 0.95]
    acc[n // 2 : n // 2 + 5] += rng.normal(0, 4, (5, 3))
    acc[n // 2 + 5 :] = acc[n // 2 + 5 :, [1, 2, 0]] * [1, 0.2, 0.2]
    return SampleBlock(np.arange(n) / rate + 100.0, acc.astype(np.float32))


def blocks(block: SampleBlock, cuts: Any) -> list[SampleBlock]:
    at = sorted(cuts)
    parts = zip(np.split(block.t_s, at), np.split(block.acc_g, at), strict=True)
    return [SampleBlock(t, x) for t, x in parts]


def push(detector: FallDetector, parts: list[SampleBlock]) -> list[Hop]:
    return [hop for part in parts for hop in detector.push(part)]


def spoil(block: SampleBlock, faults: list[tuple[str, int]]) -> SampleBlock:
    """The block with odd stamps and values at the given places."""
    t, x = block.t_s.copy(), block.acc_g.copy()
    for kind, at in faults:
        if kind == "nan":
            x[at, 1] = np.nan
        elif kind == "repeat":
            t[at + 1] = t[at]
        elif kind == "gap":
            t[at:] += 0.4
        elif kind == "hole":
            t[at:] += 5.0
        elif kind == "step":
            t[at:] -= 60.0
        else:
            x[at] = 16.0
    return SampleBlock(t, x)


FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["nan", "repeat", "gap", "hole", "step", "clip"]), st.integers(1, 570)
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def make(bundle: Bundle) -> Callable[..., FallDetector]:
    """A function, because hypothesis prints its arguments, and a bundle prints its model."""
    return lambda **options: FallDetector(bundle, **options)


@settings(max_examples=40)
@given(
    faults=FAULTS,
    cuts=st.sets(st.integers(0, 599), max_size=40),
    arrival=st.booleans(),
)
def test_block_borders_change_nothing(
    make: Callable[..., FallDetector],
    faults: list[tuple[str, int]],
    cuts: set[int],
    arrival: bool,
) -> None:
    block = spoil(motion(12.0), faults)
    kind: Any = "arrival" if arrival else "even"
    whole, parts = (make(rate_hz=RATE, stamps=kind) for _ in range(2))
    expected = whole.push(block)
    got = push(parts, blocks(block, cuts))
    # What a block still holds back until a hop is due is no difference.
    assert got == expected
    assert parts.counters == whole.counters
    assert parts.not_finite == whole.not_finite


def test_single_samples_give_the_same_as_one_block(bundle: Bundle) -> None:
    block = motion(8.0)
    whole = FallDetector(bundle, rate_hz=RATE).push(block)
    single = push(FallDetector(bundle, rate_hz=RATE), blocks(block, range(1, 400)))
    assert single == whole
    assert len(whole) == 8.0 // HOP_S - 2 - (8.0 % HOP_S < 0.02)


def test_hops_come_on_a_grid_and_not_before_they_can_be_smoothed(bundle: Bundle) -> None:
    hops = FallDetector(bundle, rate_hz=RATE).push(motion(20.0))
    times = np.array([hop.t_s for hop in hops])
    assert times[0] == pytest.approx(100.0 + 3 * HOP_S)
    assert np.allclose(np.diff(times), HOP_S, atol=2e-6)
    scores = [hop.score for hop in hops]
    assert hops[5].mean == pytest.approx(sum(scores[3:6]) / 3)
    warm = [hop.t_s for hop in hops if not hop.flags & HopFlag.WARMING]
    assert warm[0] - 100.0 == pytest.approx(3.88 + 3.4, abs=HOP_S)


@pytest.mark.parametrize("rate", [9.0, 20.0, 31.25, 50.0, 100.0, 119.0, 200.0, 400.0])
def test_any_rate_gives_the_same_grid(bundle: Bundle, rate: float) -> None:
    hops = FallDetector(bundle, rate_hz=rate).push(motion(10.0, rate=rate))
    assert hops[0].t_s == pytest.approx(100.0 + 3 * HOP_S)
    assert len(hops) in (59, 60)


def test_what_a_hop_says_of_the_raw_signal(bundle: Bundle) -> None:
    acc = np.tile(np.float32([0.0, -0.6, 0.8]), (500, 1))
    acc[200] = [3.0, 4.0, 12.0]
    hops = FallDetector(bundle, rate_hz=RATE).push(SampleBlock(np.arange(500) / RATE, acc))
    peaks = [hop for hop in hops if hop.peak_g > 2]
    assert [hop.peak_g for hop in peaks] == pytest.approx([13.0])
    assert peaks[0].t_s - HOP_S < 4.0 <= peaks[0].t_s
    assert hops[-1].gravity == pytest.approx((0.0, -0.6, 0.8), abs=1e-4)
    assert hops[-1].motion_g == pytest.approx(0.0, abs=1e-4)
    assert peaks[0].motion_g > 0.3


def flagged(hops: list[Hop], flag: HopFlag) -> list[float]:
    return [round(hop.t_s - 100.0, 2) for hop in hops if hop.flags & flag]


def test_saturation_is_flagged_where_it_happened(bundle: Bundle) -> None:
    block = motion(10.0)
    block.acc_g[300, 2] = 3.997  # as WEDA's sensor clips at 4 g
    hops = FallDetector(bundle, rate_hz=RATE, range_g=4.0).push(block)
    assert 6.08 in flagged(hops, HopFlag.SATURATED)
    calm = FallDetector(bundle, rate_hz=RATE, range_g=100.0).push(block)
    assert flagged(calm, HopFlag.SATURATED) == []


def test_a_stuck_axis_is_flagged_a_second_later_and_rest_is_not(bundle: Bundle) -> None:
    block = motion(10.0)
    block.acc_g[200:, 1] = 0.2
    stuck = flagged(FallDetector(bundle, rate_hz=RATE).push(block), HopFlag.STUCK)
    assert 5.0 <= stuck[0] <= 5.3
    still = SampleBlock(block.t_s, np.tile(np.float32([0, 0, 1]), (500, 1)))
    assert flagged(FallDetector(bundle, rate_hz=RATE).push(still), HopFlag.STUCK) == []


def test_bad_samples_are_dropped_counted_and_flagged(bundle: Bundle) -> None:
    block = motion(10.0)
    clean = FallDetector(bundle, rate_hz=RATE).push(block)
    block.acc_g[400] = np.nan
    block.acc_g[402, 0] = np.inf
    detector = FallDetector(bundle, rate_hz=RATE)
    hops = detector.push(block)
    assert detector.not_finite == 2
    assert flagged(hops, HopFlag.NOT_FINITE) == [8.16]
    assert hops[:45] == clean[:45]
    assert all(np.isfinite([hop.score, hop.mean, hop.peak_g, hop.motion_g]).all() for hop in hops)


def test_a_stream_of_nothing_but_nan_gives_no_hop(bundle: Bundle) -> None:
    detector = FallDetector(bundle, rate_hz=RATE)
    block = motion(10.0)
    assert detector.push(SampleBlock(block.t_s, np.full_like(block.acc_g, np.nan))) == []
    assert detector.not_finite == 500
    assert detector.push(SampleBlock(block.t_s[:0], block.acc_g[:0])) == []


def test_stamps_that_are_no_times_are_dropped_like_nan(bundle: Bundle) -> None:
    block = motion(10.0)
    for n in (1, 500):
        spoilt = block.t_s.copy()
        spoilt[[100, 200, 300]] = [1e300, -np.inf, np.nan]
        detector = FallDetector(bundle, rate_hz=RATE)
        hops = push(detector, blocks(SampleBlock(spoilt, block.acc_g), range(n, 500, n)))
        assert detector.not_finite == 3
        assert detector.counters.restarts == 0
        assert len(hops) == 60


def test_the_caller_may_reuse_its_arrays(bundle: Bundle) -> None:
    block = motion(10.0, rate=200.0)
    expected = FallDetector(bundle, rate_hz=200.0).push(block)
    detector = FallDetector(bundle, rate_hz=200.0)
    t_s, acc_g, hops = np.empty(20), np.empty((20, 3), np.float32), []  # less than a hop
    for begin in range(0, 2000, 20):
        t_s[:], acc_g[:] = block.t_s[begin : begin + 20], block.acc_g[begin : begin + 20]
        hops += detector.push(SampleBlock(t_s, acc_g))
    assert hops == expected


def test_arrays_of_wrong_shape_are_refused(bundle: Bundle) -> None:
    detector = FallDetector(bundle, rate_hz=RATE)
    with pytest.raises(InputError, match=r"\(3, 5\)"):
        detector.push(SampleBlock(np.zeros(5), np.zeros((3, 5), np.float32)))


def test_a_bridged_gap_is_flagged_through_its_length(bundle: Bundle) -> None:
    block = motion(10.0)
    kept = np.r_[0:400, 430:500]
    detector = FallDetector(bundle, rate_hz=RATE)
    hops = detector.push(SampleBlock(block.t_s[kept], block.acc_g[kept]))
    bridged = flagged(hops, HopFlag.BRIDGED)
    assert bridged == pytest.approx([8.0, 8.16, 8.32, 8.48, 8.64])
    assert detector.counters.gaps == 1
    inside = [hop.peak_g for hop in hops if 108.1 < hop.t_s < 108.5]
    assert inside == pytest.approx([np.linalg.norm(block.acc_g[399])] * 3), "the last one heard"


def test_after_a_long_gap_the_window_starts_anew(bundle: Bundle) -> None:
    first, second = motion(10.0), motion(10.0, seed=3)
    later = SampleBlock(second.t_s + 60.0, second.acc_g)
    detector = FallDetector(bundle, rate_hz=RATE)
    detector.push(first)
    after = detector.push(later)
    alone = FallDetector(bundle, rate_hz=RATE).push(later)
    assert detector.counters.restarts == 1
    assert [h.score for h in after] == [h.score for h in alone]
    assert [h.t_s for h in after] == pytest.approx([h.t_s for h in alone], abs=2e-6)
    assert after[0].flags & HopFlag.WARMING


def test_reset_forgets_everything(bundle: Bundle) -> None:
    detector = FallDetector(bundle, rate_hz=RATE)
    first = detector.push(motion(10.0))
    detector.reset()
    assert detector.push(motion(10.0)) == first
    assert detector.counters.samples == 500


@pytest.mark.parametrize("at_s", [0.1, 3.0, 9.99, HISTORY_S + 9.0])
def test_swapping_in_the_same_bundle_changes_nothing(bundle: Bundle, at_s: float) -> None:
    block = motion(HISTORY_S + 15.0)
    expected = FallDetector(bundle, rate_hz=RATE).push(block)
    detector = FallDetector(bundle, rate_hz=RATE)
    cut = round(at_s * RATE)
    before, after = blocks(block, [cut])
    got = push(detector, blocks(before, range(50, cut, 50)))
    detector.swap(bundle)
    got += push(detector, blocks(after, range(7, len(after.t_s), 7)))
    assert [hop._replace(flags=0) for hop in got] == [hop._replace(flags=0) for hop in expected]


def test_swapping_after_a_restart_leaves_the_time_before_it_alone(bundle: Bundle) -> None:
    stream = spoil(motion(30.0), [("hole", 1000)])
    expected = FallDetector(bundle, rate_hz=RATE).push(stream)
    detector = FallDetector(bundle, rate_hz=RATE)
    before, after = blocks(stream, [1100])
    got = detector.push(before)
    detector.swap(bundle)
    assert got + detector.push(after) == expected


def test_swapping_in_another_rate_and_window_goes_on_in_time(bundle: Bundle) -> None:
    grid = msgspec.structs.replace(bundle.manifest.input, rate_hz=50.0)  # same rows, half the span
    other = bundle._replace(manifest=msgspec.structs.replace(bundle.manifest, input=grid))
    block = motion(30.0)
    expected = FallDetector(other, rate_hz=RATE).push(block)
    detector = FallDetector(bundle, rate_hz=RATE)
    before, after = blocks(block, [1000])
    old = detector.push(before)
    detector.swap(other)
    new = detector.push(after)
    assert old[-1].t_s < new[0].t_s <= old[-1].t_s + HOP_S
    assert new == expected[-len(new) :]
    assert detector.manifest.input.rate_hz == 50.0


@pytest.mark.parametrize("stamps", ["even", "arrival"])
def test_a_branch_goes_on_as_the_first_one_does_and_leaves_it_alone(
    bundle: Bundle, stamps: Stamps
) -> None:
    stream = spoil(motion(40.0), [("hole", 1000)])
    expected = FallDetector(bundle, rate_hz=RATE, stamps=stamps).push(stream)
    detector = FallDetector(bundle, rate_hz=RATE, stamps=stamps)
    before, after = blocks(stream, [1503])  # in the middle of a hop
    got = push(detector, blocks(before, range(7, 1503, 7)))
    begin = detector.branch()
    rest = blocks(after, range(7, len(after.t_s), 7))
    got += push(detector, rest)  # goes on before the branch does
    beside = push(begin(bundle), rest)
    assert got == expected
    live = got[-len(beside) :]
    assert [hop._replace(flags=0) for hop in beside] == [hop._replace(flags=0) for hop in live]
    assert len(beside) > 50 and beside[0].t_s > before.t_s[-1]


def test_a_bundle_of_another_task_is_refused(bundle: Bundle) -> None:
    other = bundle._replace(manifest=msgspec.convert({"name": "face"}, type=_Named))
    with pytest.raises(ManifestError, match="face is not a fall model"):
        FallDetector(other, rate_hz=RATE)
    detector = FallDetector(bundle, rate_hz=RATE)
    with pytest.raises(ManifestError):
        detector.swap(other)
    assert len(detector.push(motion(10.0))) > 0, "the old bundle must go on"


class _Named(msgspec.Struct):
    name: str


@pytest.mark.parametrize("name", ["fall-waist", "fall-wrist"])
def test_golden_vectors_hold_on_every_engine(
    factory_bundle: Callable[[str], Path], engine: str, name: str
) -> None:
    result = verify_golden(open_bundle(factory_bundle(name), engine))
    assert result.passed, result
    assert result.cases >= 16


def test_engines_agree_on_a_stream(
    factory_bundle: Callable[[str], Path], bundle: Bundle, engine: str
) -> None:
    block = motion(20.0)
    here = FallDetector(bundle, rate_hz=RATE).push(block)
    there = FallDetector(open_bundle(factory_bundle("fall-waist"), engine), rate_hz=RATE).push(
        block
    )
    step = bundle.interpreter.outputs[0].scale
    tolerance = bundle.manifest.golden.tolerance * step + 1e-6
    assert max(abs(a.score - b.score) for a, b in zip(here, there, strict=True)) <= tolerance
    assert len({round(hop.score, 6) for hop in here}) > 20, "the stream must move the score"


def test_it_is_public() -> None:
    assert edge_rt.FallDetector is FallDetector


def test_the_example_in_the_docstring(bundle: Bundle) -> None:
    del bundle  # the example opens the factory bundle, so it has to be there
    result = doctest.testmod(detector_module)
    assert result.attempted >= 5
    assert result.failed == 0
