"""When a frame is worth the face models: at once while something moves, seldom while nothing does.

A frame is looked at if the picture has changed since the last check, if that or a face was not long
ago, or if the last look is: whoever stands still before the camera from the start is found too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from edge_rt.core.types import ImageArray

WIDTH, HEIGHT = 32, 24  # cells of a thumbnail: 20 x 20 pixels each of a 640 x 480 picture

# A cell's mean counts as changed from this many grey levels on, beside what all cells share: a
# sensor's noise of 3 levels is 0.15 in the mean of 400 pixels, and automatic exposure, clouds and
# the flicker of lamps move all cells alike.
LEVELS = 6
BRIGHTNESS = 25  # what all share counts only from here on: a lamp was switched on
# So many cells: a person in the doorway covers dozens, a face that is large enough to unlock six.
CELLS = 3
LOOK_S = 2.0  # without any change the models look all the same, so often


class WakeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """rate_hz  checks for movement while nothing moves; 0: every frame is looked at
    awake_s  how long every frame is looked at after the last movement or face
    """

    rate_hz: Annotated[float, Meta(ge=0, le=30)] = 2.0
    awake_s: Annotated[float, Meta(ge=1, le=600)] = 5.0


class Wake:
    """Thumbnails and what the models found in, which frames to take and to look at out.

    Times are those of one monotonic clock.
    """

    def __init__(self, rules: WakeRules, now_s: float) -> None:
        self._rules = rules
        self._last: ImageArray | None = None
        self._checked_s = self._looked_s = float("-inf")
        self._until_s = now_s + rules.awake_s

    def asleep(self, now_s: float) -> bool:
        """Whether frames are taken at the low rate."""
        return self._rules.rate_hz > 0.0 and now_s >= self._until_s

    def wait_s(self, now_s: float) -> float:
        """Until the next frame is to be taken; 0: as soon as there is one."""
        if not self.asleep(now_s):
            return 0.0
        return max(0.0, self._checked_s + 1.0 / self._rules.rate_hz - now_s)

    def wants_thumbnail(self, t_s: float) -> bool:
        """Whether `check` needs one for this frame: movement shows between frames some time
        apart, and a thumbnail of every frame would show less for more work."""
        rate_hz = self._rules.rate_hz
        return rate_hz > 0.0 and t_s - self._checked_s >= 0.9 / rate_hz

    def check(self, thumbnail: ImageArray | None, t_s: float) -> bool:
        """Whether the models are to look at this frame.

        thumbnail  uint8 (24, 32) grey of it, if wanted
        """
        if thumbnail is not None:
            if self._last is not None and moved(self._last, thumbnail):
                self._until_s = t_s + self._rules.awake_s
            self._last, self._checked_s = thumbnail, t_s
        if self.asleep(t_s) and t_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = t_s
        return True

    def saw_face(self, t_s: float) -> None:
        """The models found one: stay awake."""
        self._until_s = t_s + self._rules.awake_s


def moved(before: ImageArray, after: ImageArray) -> bool:
    """Whether two thumbnails, uint8 (24, 32), differ by more than light and noise do."""
    change = after.astype(np.int16) - before.astype(np.int16)
    common = float(np.median(change))
    local = np.count_nonzero(np.abs(change - common) >= LEVELS)
    return abs(common) >= BRIGHTNESS or int(local) >= CELLS
