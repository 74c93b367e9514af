"""falls.simulate and falls.body: reproducible, and shaped like the recordings they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.errors import InputError
from edge_rt.falls.body import MOTIONS, TIMED, Body
from edge_rt.falls.curves import FINE_HZ
from edge_rt.falls.simulate import (
    ACTIVITIES,
    DEMO_SCRIPT,
    FALLS,
    Script,
    Simulation,
    challenge,
    simulate,
)


def size(simulation: Simulation) -> np.ndarray:
    return np.sqrt((simulation.block.acc_g.astype(np.float64) ** 2).sum(axis=1))


def between(simulation: Simulation, what: str) -> np.ndarray:
    label = next(label for label in simulation.labels if label.what == what)
    t_s = simulation.block.t_s
    return (t_s > label.start_s) & (t_s <= label.end_s)


def test_the_same_arguments_give_the_same_samples_and_another_seed_others() -> None:
    one, two, other = (simulate(DEMO_SCRIPT, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.block.acc_g, two.block.acc_g)
    assert one.labels == two.labels
    assert one.labels != other.labels


@pytest.mark.parametrize("rate_hz", [9.1, 25.0, 50.0, 100.0, 200.0, 400.0])
def test_any_rate_has_even_stamps_and_covers_the_script(rate_hz: float) -> None:
    simulation = simulate(DEMO_SCRIPT, 1, rate_hz=rate_hz)
    t_s, acc_g = simulation.block
    assert t_s.dtype == np.float64 and acc_g.dtype == np.float32
    assert acc_g.shape == (len(t_s), 3)
    np.testing.assert_allclose(np.diff(t_s), 1 / rate_hz)
    assert t_s[-1] == pytest.approx(simulation.labels[-1].end_s, abs=2 / rate_hz)


@pytest.mark.parametrize("placement", ["waist", "wrist"])
@pytest.mark.parametrize("range_g", [2.0, 16.0])
def test_samples_are_counts_within_the_range(placement: str, range_g: float) -> None:
    simulation = simulate(DEMO_SCRIPT, 2, range_g=range_g, placement=placement)
    counts = simulation.block.acc_g * 256
    np.testing.assert_array_equal(counts, np.round(counts))
    assert counts.max() < range_g * 256 and counts.min() >= -range_g * 256
    if range_g == 2.0:
        assert (np.abs(counts) >= 511).any()  # a fall does not fit into 2 g


def test_resting_feels_one_g_whatever_the_posture() -> None:
    for seed in range(10):
        simulation = simulate(DEMO_SCRIPT, seed)
        for what in ("stand", "sit", "lie"):
            resting = size(simulation)[between(simulation, what)]
            assert np.median(resting) == pytest.approx(1.0, abs=0.08)
        lying = size(simulation)[between(simulation, "lie")]
        assert 0.003 < lying[50:].std() < 0.02  # SisFall: 0.005 to 0.020 after falls


def test_falls_are_shaped_like_recorded_ones() -> None:
    """Quantiles of 1,200 SisFall waist falls at 200 Hz; simulated medians within their middle half.

    SisFall: peak 4.5 to 9.2 g, lowest |a| in the second before 0.19 to 0.48 g, time below 0.6 g
    0.055 to 0.185 s, time above 2 g after the peak 0.035 to 0.09 s, posture turned by 87 to 100
    degrees.
    """
    peak, low, light, hard, turned = [], [], [], [], []
    for case in challenge(11, 60, rate_hz=200.0):
        if not case.is_fall:
            break
        acc, a = case.simulation.block.acc_g.astype(np.float64), size(case.simulation)
        impact_s = next(label.start_s for label in case.simulation.labels if label.what == "impact")
        k = int(a.argmax())
        assert abs(case.simulation.block.t_s[k] - impact_s) < 0.1
        before = a[k - 200 : k]
        peak.append(a[k])
        low.append(before.min())
        light.append((before < 0.6).sum() / 200)
        hard.append((a[k : k + 100] > 2.0).sum() / 200)
        start, end = acc[k - 600 : k - 400].mean(axis=0), acc[-200:].mean(axis=0)
        cosine = start @ end / np.sqrt((start @ start) * (end @ end))
        turned.append(np.degrees(np.arccos(cosine)))
    for values, bottom, top in (
        (peak, 4.5, 9.2), (low, 0.19, 0.48), (light, 0.055, 0.185), (hard, 0.035, 0.09),
        (turned, 87.0, 100.0),
    ):  # fmt: skip
        assert bottom <= np.median(values) <= top


def test_daily_life_hits_less_hard_than_falls_on_the_whole() -> None:
    peaks: dict[bool, list[float]] = {True: [], False: []}
    for case in challenge(12, 42):
        peaks[case.is_fall].append(float(size(case.simulation).max()))
    assert len(peaks[True]) == len(peaks[False]) == 42
    assert np.median(peaks[True]) > 2 * np.median(peaks[False])
    assert max(peaks[False]) > min(peaks[True])  # no threshold on the peak would do


def test_a_challenge_is_its_seed() -> None:
    names = [[case.name for case in challenge(seed, 4)] for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    assert len(set(names[0])) == 8
    assert all(name.startswith("simulated-") for name in names[0])


@pytest.mark.parametrize("what", sorted(MOTIONS))
def test_every_motion_plays_from_standing(what: str) -> None:
    entry = (what, 2.0) if what in TIMED else what
    simulation = simulate((("stand", 2.0), entry, ("stand", 1.0)), 3)
    assert simulation.labels[1].what == what
    assert np.isfinite(simulation.block.acc_g).all()


@pytest.mark.parametrize("script", [DEMO_SCRIPT, *FALLS.values(), *ACTIVITIES.values()])
def test_posture_never_jumps(script: Script) -> None:
    for seed in range(5):
        body = Body(np.random.default_rng(seed))
        pieces = [
            MOTIONS[entry](body) if isinstance(entry, str) else MOTIONS[entry[0]](body, entry[1])
            for entry in script
        ]
        for angle in ("lean", "arm", "roll"):
            whole = np.concatenate([getattr(piece, angle) for piece in pieces])
            # 20 rad/s on the fine grid; a limb in a fall reaches about half
            assert np.abs(np.diff(whole, axis=0)).max() < 20.0 / FINE_HZ, angle


def test_impossible_orders_are_refused_by_name() -> None:
    for script, message in (
        (("fly",), "motion 'fly' is not known; choose from stand"),
        (("walk",), "'walk' needs seconds"),
        ((("fall", 2.0),), "'fall' takes no seconds"),
    ):
        with pytest.raises(InputError, match=message):
            simulate(script, 1)
    with pytest.raises(InputError, match="placement"):
        simulate(DEMO_SCRIPT, 1, placement="ankle")
    with pytest.raises(InputError, match="rate"):
        simulate(DEMO_SCRIPT, 1, rate_hz=1000.0)
