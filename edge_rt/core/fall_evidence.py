"""What the samples around a fall say: impact, reference posture, stillness, recovery."""

from __future__ import annotations

from collections import deque
from math import acos, degrees, sqrt

import msgspec

from edge_rt.core.fall_rules import FallRules
from edge_rt.core.hop import Hop, HopFlag

HISTORY_S = 10.0  # reaches past the window (about 4 s) to the posture before the fall
# A bound for hops of any length; the shipped bundles' 0.16 s hops need 63.
HISTORY_HOPS = 1024
# The 1 s gravity mean must end before balance is lost, half a second to a second before impact.
BEFORE_IMPACT_S = 1.0

Vector = tuple[float, float, float]


class Incident(msgspec.Struct, kw_only=True):
    """Facts of one suspicion, pre-alarm or alarm; times in machine seconds, None if not known."""

    id: str
    suspected_t_s: float
    trigger: str  # what began it: impact, score or help_now
    impact_t_s: float | None = None
    impact_g: float | None = None
    reference: Vector | None = None  # gravity before the impact, sensor axes, g
    prealarm_t_s: float | None = None
    alarm_t_s: float | None = None
    falls: int = 0  # times the mean score rose to the threshold
    top_score: float | None = None  # largest mean score
    still_since_s: float | None = None
    walking_since_s: float | None = None
    still_s: float = 0.0  # of the current stretch
    posture_deg: float | None = None
    motion_g: float | None = None
    recovered: bool = False


# The fields of Incident that move when the clock is set anew.
TIMES = (
    "suspected_t_s",
    "impact_t_s",
    "prealarm_t_s",
    "alarm_t_s",
    "still_since_s",
    "walking_since_s",
)


class History:
    """The last 10 s of hops."""

    def __init__(self) -> None:
        self._hops: deque[Hop] = deque(maxlen=HISTORY_HOPS)

    def add(self, hop: Hop) -> None:
        """Append `hop`; its time must not lie before that of the last one."""
        hops = self._hops
        hops.append(hop)
        oldest = hop.t_s - HISTORY_S
        while hops[0].t_s < oldest:
            hops.popleft()

    @property
    def last(self) -> Hop | None:
        """The newest hop."""
        return self._hops[-1] if self._hops else None

    def impact(self, after_s: float) -> Hop | None:
        """The hop with the largest peak since `after_s`."""
        return max(
            (hop for hop in self._hops if hop.t_s >= after_s),
            key=lambda hop: hop.peak_g,
            default=None,
        )

    def reference(self, impact_t_s: float) -> Vector | None:
        """Gravity shortly before an impact; None when no trustworthy hop lies before it."""
        for hop in reversed(self._hops):
            if hop.t_s <= impact_t_s - BEFORE_IMPACT_S and not hop.flags & HopFlag.STUCK:
                return hop.gravity
        return None


def angle_deg(a: Vector, b: Vector) -> float | None:
    """Angle between two vectors, 0 to 180 degrees; None if one is shorter than 0.2 (no gravity)."""
    # products, not powers: a power of a huge float raises where a product gives infinity
    aa = a[0] * a[0] + a[1] * a[1] + a[2] * a[2]
    bb = b[0] * b[0] + b[1] * b[1] + b[2] * b[2]
    norm = sqrt(aa * bb)
    if not norm > 0.04:
        return None
    cosine = (a[0] * b[0] + a[1] * b[1] + a[2] * b[2]) / norm
    return degrees(acos(max(-1.0, min(1.0, cosine))))


def judge(incident: Incident, hop: Hop, rules: FallRules) -> None:
    """Bring stillness, posture and recovery of `incident` up to date with `hop`."""
    trusted = not hop.flags & HopFlag.STUCK  # a frozen sensor is not a person lying still
    incident.motion_g = hop.motion_g
    incident.posture_deg = None
    if rules.judge_posture and incident.reference is not None and trusted:
        incident.posture_deg = angle_deg(hop.gravity, incident.reference)
    upright = incident.posture_deg is not None and incident.posture_deg <= rules.upright_deg
    walking = rules.walking_low_g <= hop.motion_g <= rules.walking_high_g and upright
    incident.still_since_s = _since(
        incident.still_since_s, hop.t_s, trusted and hop.motion_g <= rules.still_g
    )
    incident.still_s = hop.t_s - incident.still_since_s if incident.still_since_s is not None else 0
    incident.walking_since_s = _since(incident.walking_since_s, hop.t_s, walking)
    if incident.walking_since_s is not None:
        incident.recovered |= hop.t_s - incident.walking_since_s >= rules.recover_s


def posture(incident: Incident, rules: FallRules) -> str:
    """`upright`, `leaning`, `lying` or `unknown` (wrist, no reference, untrusted axis)."""
    if incident.posture_deg is None:
        return "unknown"
    if incident.posture_deg <= rules.upright_deg:
        return "upright"
    return "lying" if incident.posture_deg >= rules.lying_deg else "leaning"


def _since(since_s: float | None, t_s: float, holds: bool) -> float | None:
    if not holds:
        return None
    return t_s if since_s is None else since_s
