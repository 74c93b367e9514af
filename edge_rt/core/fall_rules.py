"""Durations and levels of the fall alarm: thresholds from the bundle, the rest from the profile."""

from __future__ import annotations

import msgspec

from edge_rt.core.manifest import FallManifest

# Worn on the trunk, gravity tells posture; on a wrist it tells how the hand is held.
TRUNK = frozenset({"waist", "chest", "belt", "pelvis", "back", "trunk"})


class FallRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything the alarm machine compares with. ValueError: a value makes no sense.

    Levels of stillness, posture and walking are read off the waist recordings of SisFall
    (Sucerquia et al. 2017, doi 10.3390/s17010198); the figures stand beside each.
    """

    # ---- from the bundle ----
    threshold: float  # pre-alarm when the mean score reaches it; units of the model's output
    suspicion: float  # suspected when the mean score reaches it; at most `threshold`
    window_s: float  # span of samples behind one score
    clear_s: float  # scores above the threshold closer together than this are one event

    # ---- suspicion ----
    # 3 g: 5 % of fall peaks lie below it (those are left to the score), walking stays under 2.8.
    impact_g: float = 3.0
    # The score answers an impact within 0.8 to 2.4 s; past that it will not come any more.
    suspect_s: float = 3.0
    # Largest delay from impact to pre-alarm that counts as in time; later ones are raised too.
    in_time_s: float = 2.0

    # ---- cancel window ----
    cancel_window_s: float = 20.0  # long enough to reach a button, short for one who cannot
    escalated_window_s: float = 10.0  # the same for one who lies still; never below `still_s`
    # Spread of |a| over 1 s: 0.009 g median and 0.020 g at 99 % when lying after a fall;
    # slow walking 0.13 g and more.
    still_g: float = 0.03
    still_s: float = 5.0
    judge_posture: bool = True  # only where the sensor sits on the trunk
    lying_deg: float = 55.0  # 99 % of falls end turned by more than 60 degrees
    upright_deg: float = 35.0
    walking_low_g: float = 0.08
    walking_high_g: float = 0.6
    recover_s: float = 6.0
    cancel_on_recovery: bool = False  # a confused or helped-up person still wants to be asked

    # ---- after the end of an incident ----
    # Scores that stay high for so long after a cancel are no echo of the old event.
    holdoff_max_s: float = 30.0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for low, high in _ORDERED:
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}"
                )


_POSITIVE = (
    "window_s",
    "clear_s",
    "impact_g",
    "suspect_s",
    "in_time_s",
    "cancel_window_s",
    "escalated_window_s",
    "still_g",
    "still_s",
    "lying_deg",
    "upright_deg",
    "walking_low_g",
    "walking_high_g",
    "recover_s",
    "holdoff_max_s",
)
_ORDERED = (
    ("suspicion", "threshold"),
    ("escalated_window_s", "cancel_window_s"),
    ("still_s", "escalated_window_s"),
    ("upright_deg", "lying_deg"),
    ("walking_low_g", "walking_high_g"),
    ("still_g", "walking_low_g"),
    ("clear_s", "holdoff_max_s"),
)


def rules_for(manifest: FallManifest, **profile: float | bool) -> FallRules:
    """Rules for a bundle; `profile` overrides any default, and `threshold` within its bounds.

    ValueError: a threshold outside the bounds that the bundle sets, or nonsense values.
    TypeError: an unknown name in `profile`.
    """
    decision, grid = manifest.decision, manifest.input
    threshold = float(profile.pop("threshold", decision.threshold.value))
    if not decision.threshold.min <= threshold <= decision.threshold.max:
        raise ValueError(
            f"threshold {threshold} is outside {decision.threshold.min} to "
            f"{decision.threshold.max}, the bounds of bundle {manifest.name}"
        )
    window_s = grid.window / grid.rate_hz
    # Two logits below the threshold: odds of 1 in 7 against what would alarm.
    below = threshold - 2.0 if manifest.output.scale == "logit" else threshold / 2.0
    values: dict[str, float | bool] = {
        "threshold": threshold,
        "suspicion": below,
        "window_s": window_s,
        # Window, smoothing and half a second: then no score still sees the old impact.
        "clear_s": window_s + (decision.smooth - 1) * grid.hop / grid.rate_hz + 0.5,
        "judge_posture": decision.placement in TRUNK,
    }
    return FallRules(**{**values, **profile})  # type: ignore[arg-type]
