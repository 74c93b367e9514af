"""The judgement on an embedder in shadow, of the same `embedding_space` as the live one.

Templates stay, so that both models measure the distance of one picture to the same templates. A
model that is the same but for its quantization measures nearly the same distances; one that does
not belong to the space measures something else. Errors in who comes in are counted apart from
errors in who is left standing: the first is what the lock is for.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec

from edge_rt.core.errors import StorageError
from edge_rt.core.rates import binomial_at_least
from edge_rt.core.verdict import Verdict

# Distances run from 0 to about 1.5; steps of a hundredth, the last bin is open.
STEP, BINS = 0.01, 50


class FaceShadowPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """frames: pictures with a face until the verdict; the rest bounds, as argued beside them."""

    frames: int = 2000
    # int8 against float32 of the factory embedder: cosine 0.9996, which is 0.03 in distance.
    # Twice that and some; the shipped threshold, 0.52, has 0.08 up to its upper bound, 0.60.
    most_apart: float = 0.08  # 95 % of |difference|
    most_admitted: float = 0.002  # share of pictures that only the candidate would let in
    most_refused: float = 0.02  # share that only the live model lets in
    alpha: float = 0.01


class FaceShadowTally(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Counts only. apart: by |difference| of distance in steps of STEP."""

    both: int = 0
    neither: int = 0
    admitted: int = 0  # by the candidate only
    refused: int = 0  # by the candidate only
    failed: int = 0  # not a number
    apart: list[int] = msgspec.field(default_factory=lambda: [0] * BINS)

    def add(self, live: float, candidate: float, threshold: float, own: float) -> None:
        """One picture: distance to its nearest template by each, and the thresholds of each."""
        if not isfinite(candidate):
            self.failed += 1
            return
        self.apart[min(BINS - 1, int(abs(candidate - live) / STEP))] += 1
        match live <= threshold, candidate <= own:
            case True, True:
                self.both += 1
            case True, False:
                self.refused += 1
            case False, True:
                self.admitted += 1
            case _:
                self.neither += 1

    @property
    def frames(self) -> int:
        """Pictures so far."""
        return self.both + self.neither + self.admitted + self.refused + self.failed

    def save(self) -> dict[str, Any]:
        """JSON-able."""
        saved: dict[str, Any] = msgspec.to_builtins(self)
        return saved

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> FaceShadowTally:
        """Raises StorageError if `saved` is not what this version writes."""
        try:
            tally = msgspec.convert(saved, cls)
        except msgspec.ValidationError as error:
            raise StorageError(f"saved face shadow: {error}; it starts anew") from None
        if len(tally.apart) != BINS:
            raise StorageError(f"saved face shadow: {len(tally.apart)} bins; it starts anew")
        return tally


def judge_faces(tally: FaceShadowTally, policy: FaceShadowPolicy) -> Verdict | None:
    """None until enough pictures were seen; strangers let in may end it early."""
    n = tally.frames
    over = n >= policy.frames
    faults = []
    if tally.failed:
        faults.append(f"{tally.failed} of its embeddings are no numbers")
    p = binomial_at_least(tally.admitted, n, policy.most_admitted)
    if tally.admitted and p < policy.alpha:
        faults.append(f"it lets in {tally.admitted} of {n} that the live model does not")
    if over:
        p = binomial_at_least(tally.refused, n, policy.most_refused)
        if p < policy.alpha:
            faults.append(f"it refuses {tally.refused} of {n} that the live model lets in")
        apart = _percentile(tally.apart, 0.95)
        if apart > policy.most_apart:
            faults.append(
                f"its distances differ by {apart:.2f} (95 %), {policy.most_apart:g} is allowed: "
                "it does not belong to this embedding space"
            )
    # No exact distance leaves the device: bins and counts say nothing of a template.
    figures = {"frames": n, "admitted": tally.admitted, "refused": tally.refused}
    if faults:
        return Verdict(False, tuple(faults), figures)
    if over:
        return Verdict(True, (f"{n} pictures measured alike",), figures)
    return None


def _percentile(bins: list[int], share: float) -> float:
    """The upper edge of the bin that `share` of all do not exceed; beyond the last: infinity."""
    seen, total = 0, sum(bins)
    for k, count in enumerate(bins[:-1]):
        seen += count
        if seen >= share * total:
            return (k + 1) * STEP
    return float("inf")
