"""How far a score lies above a model's threshold, on the scale on which models are compared."""

from __future__ import annotations

import math

# A probability this close to 0 or 1 is as good as certain; the log odds of it stay finite.
SURE = 1e-6


def log_odds(score: float, scale: str) -> float:
    """Of a score or threshold in the output's `scale`: "logit", which it is, or "probability"."""
    if scale != "probability":
        return score
    p = min(1.0 - SURE, max(SURE, score))
    return math.log(p / (1.0 - p))
