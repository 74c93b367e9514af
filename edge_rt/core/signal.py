"""Is the accelerometer telling the truth, and is anybody wearing it? From the samples alone.

Silence is not judged here: who waits for samples knows that they do not come.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_rt.core.types import Float32Array, SampleBlock


class SignalRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a signal counts as broken or unworn. Durations are of the samples' own clock."""

    # Two axes and more that repeat one value, to the last digit. Noise alone moves a real sensor:
    # the longest such run in SisFall is 0.01 s, in WEDA-FALL (rounded to 0.01 g) 0.52 s.
    frozen_s: float = 10.0
    # Values further apart than this hide the noise of a sensor that lies still, about 4 mg in the
    # data sheets of the MPU-6050 and the ADXL345: repeating says nothing then, only non-wear does.
    coarse_g: float = 0.012
    not_finite_s: float = 2.0  # nothing but NaN or infinity
    # At rest it must feel 1 g. Half seconds whose axes spread by less than this share of what it
    # feels are rest; the mean of so many seconds of them decides. No calibration that `check` of
    # core.calibration accepts is further off; a scale wrong by 2, or an axis at its rail, is.
    rest_spread: float = 0.02
    rest_s: float = 60.0
    rest_low_g: float = 0.6
    rest_high_g: float = 1.4
    # Saturated samples, as a share of so long a time. Jogging in SisFall has 0.24 at +-2 g; an axis
    # at its rail has 1.
    saturated_s: float = 60.0
    saturated_share: float = 0.5
    # Non-wear: at least two of three axes spread less than 13 mg and range less than 50 mg over an
    # hour (van Hees et al. 2011, PLoS ONE 6(7):e22922). A sleeper's breath and turns exceed that.
    not_worn_s: float = 3600.0
    not_worn_std_g: float = 0.013
    not_worn_range_g: float = 0.05
    # Numbers are brought up to date this often; less often than the shortest limit above.
    update_s: float = 0.5


class Change(NamedTuple):
    """An event of kind `device`: its name, and JSON-able data."""

    what: str
    data: dict[str, Any]


class SignalHealth:
    """Watches one accelerometer's samples; bounded memory, a few microseconds a block.

    range_g  the sensor saturates at +- this
    """

    def __init__(self, range_g: float, rules: SignalRules | None = None) -> None:
        self.rules = rules or SignalRules()
        self._limit_g = 0.998 * range_g  # two's complement stops one step short of the range
        self._waiting: list[SampleBlock] = []
        self._samples = self._saturated = self._not_finite = 0
        self._first_s: float | None = None
        self._newest_s = 0.0
        self._broken: str | None = None
        self._finite_s: float | None = None  # when a finite sample was last seen
        self._frozen_since: float | None = None
        self._value: Float32Array | None = None
        self._step_g = np.inf  # the smallest difference between two samples that was ever seen
        self._worn = True
        self._quiet = _Quiet()
        self._rest = self._clipped = _Mean()
        self._doubts: dict[str, str] = {}  # what whole spans of samples said: reason, detail

    def feed(self, block: SampleBlock) -> list[Change]:
        """Take samples, return what has changed: sensor_lost, sensor_back, not_worn.

        Backward stamps are taken as no time passing.
        """
        if not len(block.t_s):
            return []
        self._waiting.append(block)
        first = self._waiting[0].t_s[0]
        newest = block.t_s[-1]
        # Stamps that are no numbers, or run backwards, must not let the list grow.
        if newest - first < self.rules.update_s and len(self._waiting) < 256:
            return []
        t_s = np.concatenate([part.t_s for part in self._waiting])
        acc_g = np.concatenate([part.acc_g for part in self._waiting])
        self._waiting = []
        return self._update(t_s, acc_g)

    @property
    def broken(self) -> str:
        """Why the samples are not the truth, as in `status`; empty while they may be."""
        return self._broken or ""

    def status(self) -> dict[str, Any]:
        """JSON-able: state (starting, ok, or why it is broken: not_finite,
        frozen, implausible, saturated), worn, and shares of odd samples."""
        seen = max(1, self._samples)
        return {
            "signal": self._broken or ("ok" if self._samples else "starting"),
            "worn": self._worn,
            "samples": self._samples,
            "saturated_share": round(self._saturated / seen, 6),
            "not_finite_share": round(self._not_finite / seen, 6),
        }

    def totals(self) -> dict[str, int]:
        """Running totals: samples, and of these saturated and not_finite."""
        return {
            "samples": self._samples,
            "saturated": self._saturated,
            "not_finite": self._not_finite,
        }

    def _update(self, t_s: npt.NDArray[np.float64], acc_g: Float32Array) -> list[Change]:
        good = np.isfinite(acc_g).all(axis=1)
        self._samples += len(acc_g)
        self._not_finite += int(len(good) - good.sum())
        usable = acc_g[good]
        saturated = int((np.abs(usable) >= self._limit_g).any(axis=1).sum())
        self._saturated += saturated
        stamps = t_s[np.isfinite(t_s)]
        before_s = self._newest_s
        if len(stamps):
            self._newest_s = max(self._newest_s, float(stamps.max()))
        if self._first_s is None:
            self._first_s = self._finite_s = float(stamps.min()) if len(stamps) else 0.0
        if len(usable):
            self._finite_s = self._newest_s
            self._weigh(usable, self._newest_s - before_s, saturated / len(usable))
        return self._broken_now(usable, before_s) + self._worn_now(usable)

    def _weigh(self, usable: Float32Array, took_s: float, saturated: float) -> None:
        """Whether what it feels can be: 1 g at rest, and seldom the end of its range."""
        rules = self.rules
        if not 0.0 < took_s < 10.0:  # the first samples, and those behind a gap
            return
        felt_g = float(np.linalg.norm(usable.mean(axis=0, dtype=np.float64)))
        if usable.std(axis=0).max() <= rules.rest_spread * max(1.0, felt_g):
            self._rest = self._rest.add(felt_g, took_s)
        self._clipped = self._clipped.add(saturated, took_s)
        if self._rest.s >= rules.rest_s:
            mean_g, self._rest = self._rest.mean, _Mean()
            if not rules.rest_low_g <= mean_g <= rules.rest_high_g:
                self._doubts["implausible"] = f"at rest it feels {mean_g:.2f} g, not 1"
            else:
                self._doubts.pop("implausible", None)
        if self._clipped.s >= rules.saturated_s:
            share, self._clipped = self._clipped.mean, _Mean()
            if share > rules.saturated_share:
                self._doubts["saturated"] = f"{share:.0%} of it is at the end of its range"
            else:
                self._doubts.pop("saturated", None)

    def _broken_now(self, usable: Float32Array, before_s: float) -> list[Change]:
        now_s, rules = self._newest_s, self.rules
        if len(usable):
            low, high = usable.min(axis=0), usable.max(axis=0)
            self._note_step(usable)
            if self._value is not None:
                low, high = np.minimum(low, self._value), np.maximum(high, self._value)
            same = int((low == high).sum())
            self._value = usable[-1].copy()
            if same < 2 or self.rules.coarse_g < self._step_g < np.inf:
                self._frozen_since = None
            elif self._frozen_since is None:
                self._frozen_since = before_s
        broken, detail = None, ""
        assert self._finite_s is not None
        if now_s - self._finite_s >= rules.not_finite_s:
            broken, detail = "not_finite", f"no finite sample for {rules.not_finite_s:g} s"
        elif self._frozen_since is not None and now_s - self._frozen_since >= rules.frozen_s:
            broken, detail = "frozen", f"the same value for {rules.frozen_s:g} s"
        elif self._doubts:
            broken, detail = next(iter(self._doubts.items()))
        if broken == self._broken or (broken is None and not len(usable)):
            return []
        before, self._broken = self._broken, broken
        data = {"sensor": "accelerometer", "reason": broken or before}
        if broken is None:
            return [Change("sensor_back", data)]
        if before is not None:  # another reason is no second loss
            return []
        return [Change("sensor_lost", {**data, "detail": detail})]

    def _note_step(self, usable: Float32Array) -> None:
        if self._step_g > self.rules.coarse_g:
            steps = np.abs(np.diff(usable, axis=0))
            self._step_g = min(self._step_g, float(steps.min(initial=np.inf, where=steps > 0.0)))

    def _worn_now(self, usable: Float32Array) -> list[Change]:
        if not len(usable) or self._broken:
            return []
        rules = self.rules
        self._quiet.add(usable, self._newest_s)
        if not self._quiet.holds(rules.not_worn_std_g, rules.not_worn_range_g):
            self._quiet = _Quiet()
            self._worn = True
            return []
        if self._worn and self._newest_s - self._quiet.since_s >= rules.not_worn_s:
            self._worn = False
            return [Change("not_worn", {"sensor": "accelerometer", "still_s": rules.not_worn_s})]
        return []


class _Mean(NamedTuple):
    """A mean over time."""

    total: float = 0.0
    s: float = 0.0

    def add(self, value: float, seconds: float) -> _Mean:
        return _Mean(self.total + value * seconds, self.s + seconds)

    @property
    def mean(self) -> float:
        return self.total / self.s


class _Quiet:
    """Spread and range of each axis since `since_s`, by running sums about the first sample."""

    def __init__(self) -> None:
        self.since_s = 0.0
        self._n = 0
        self._about = self._sum = self._squares = np.zeros(3)
        self._low = self._high = np.zeros(3)

    def add(self, acc_g: Float32Array, now_s: float) -> None:
        if self._n == 0:
            self.since_s = now_s
            self._about = acc_g[0].astype(np.float64)
            self._sum, self._squares = np.zeros(3), np.zeros(3)
            self._low, self._high = np.zeros(3), np.zeros(3)
        off = acc_g - self._about
        self._n += len(off)
        self._sum = self._sum + off.sum(axis=0)
        self._squares = self._squares + (off * off).sum(axis=0)
        self._low = np.minimum(self._low, off.min(axis=0))
        self._high = np.maximum(self._high, off.max(axis=0))

    def holds(self, std_g: float, range_g: float) -> bool:
        variance = self._squares / self._n - (self._sum / self._n) ** 2
        quiet = (variance < std_g * std_g) & (self._high - self._low < range_g)
        return bool(quiet.sum() >= 2)
