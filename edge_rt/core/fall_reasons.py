"""The `why` of a fall transition: scores, thresholds, window times, impact, motion, posture."""

from __future__ import annotations

from math import isfinite
from typing import Any

from edge_rt.core.fall_evidence import Incident, posture
from edge_rt.core.fall_rules import FallRules
from edge_rt.core.fall_table import Event
from edge_rt.core.hop import Hop


def reasons(
    event: Event,
    now_s: float,
    rules: FallRules,
    hop: Hop | None,
    incident: Incident | None,
    by: str = "",
) -> dict[str, Any]:
    """JSON-able reasons; units in the names, times in seconds on the samples' clock.

    Always `event, t_s, threshold, suspicion`; `by` for a command that says who gave it; of the
    last hop `score, mean, window_start_s, window_end_s, flags`; of the incident `trigger,
    impact_t_s, peak_g, top_mean, falls`; and once there was a pre-alarm `delay_s, in_time,
    waited_s, motion_g, still_s, posture, posture_deg, recovered`.
    """
    why: dict[str, Any] = {"event": event.value, "t_s": shorten(now_s)}
    if by:
        why["by"] = by
    if hop is not None:
        why |= {
            "score": shorten(hop.score),
            "mean": shorten(hop.mean),
            "window_start_s": shorten(hop.t_s - rules.window_s),
            "window_end_s": shorten(hop.t_s),
            "flags": int(hop.flags),
        }
    why |= {"threshold": rules.threshold, "suspicion": rules.suspicion}
    if incident is None:
        return why
    why |= {
        "trigger": incident.trigger,
        "impact_t_s": shorten(incident.impact_t_s),
        "peak_g": shorten(incident.impact_g),
        "top_mean": shorten(incident.top_score),
        "falls": incident.falls,
    }
    if incident.prealarm_t_s is not None:
        delay_s = None
        if incident.impact_t_s is not None:
            delay_s = incident.prealarm_t_s - incident.impact_t_s
        why |= {
            "delay_s": shorten(delay_s),
            "in_time": delay_s is not None and delay_s <= rules.in_time_s,
            "waited_s": shorten(now_s - incident.prealarm_t_s),
            "motion_g": shorten(incident.motion_g),
            "still_s": shorten(incident.still_s),
            "posture": posture(incident, rules),
            "posture_deg": shorten(incident.posture_deg, 1),
            "recovered": incident.recovered,
        }
    return why


def shorten(value: float | None, digits: int = 3) -> float | None:
    """Rounded for the wire, and never NaN or infinity: JSON has neither."""
    return round(value, digits) if value is not None and isfinite(value) else None
