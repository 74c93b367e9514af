"""An embedder in shadow: the same space passes, another one does not, and strangers come first."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rt.core.errors import StorageError
from edge_rt.core.shadow_faces import FaceShadowPolicy, FaceShadowTally, judge_faces

POLICY = FaceShadowPolicy(frames=1000)


def seen(noise: float, shift: float = 0.0, n: int = 1000, seed: int = 1) -> FaceShadowTally:
    """Half owners at 0.35, half strangers at 0.85, as the factory embedder measures them."""
    rng = np.random.default_rng(seed)
    tally = FaceShadowTally()
    for k in range(n):
        live = rng.normal(0.35 if k % 2 else 0.85, 0.06)
        tally.add(live, live + shift + rng.normal(0.0, noise), 0.52, 0.52)
    return tally


def test_it_waits_for_its_pictures() -> None:
    assert judge_faces(seen(0.01, n=999), POLICY) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_same_space_passes(seed: int) -> None:
    verdict = judge_faces(seen(0.03, seed=seed), POLICY)
    assert verdict is not None and verdict.passed, verdict


@pytest.mark.parametrize(
    ("tally", "reason"),
    [
        (seen(0.3), "does not belong to this embedding space"),
        (seen(0.01, shift=0.1), "it refuses"),
        (seen(0.01, shift=-0.3), "it lets in"),
    ],
)
def test_another_space_does_not(tally: FaceShadowTally, reason: str) -> None:
    verdict = judge_faces(tally, POLICY)
    assert verdict is not None and not verdict.passed
    assert any(reason in said for said in verdict.reasons), verdict.reasons


def test_strangers_let_in_end_it_early() -> None:
    tally = seen(0.01, n=50)
    for _ in range(3):
        tally.add(0.7, 0.4, 0.52, 0.52)
    verdict = judge_faces(tally, POLICY)
    assert verdict is not None and "it lets in 3 of 53" in verdict.reasons[0]


def test_no_number_is_no_distance() -> None:
    tally = seen(0.01, n=10)
    tally.add(0.3, float("nan"), 0.52, 0.52)
    verdict = judge_faces(tally, POLICY)
    assert verdict is not None and "no numbers" in verdict.reasons[0]


def test_it_survives_a_restart() -> None:
    tally = seen(0.02, n=20)
    assert FaceShadowTally.restore(tally.save()) == tally
    for damaged in ({"both": "x"}, {**tally.save(), "apart": [1]}):
        with pytest.raises(StorageError, match="starts anew"):
            FaceShadowTally.restore(damaged)
