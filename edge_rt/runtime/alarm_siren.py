"""The siren follows the stages of a fall, whoever announced them."""

from __future__ import annotations

from collections.abc import Callable

from edge_rt.runtime.actuators import Siren
from edge_rt.runtime.teller import Notice

_LOUD = frozenset({"prealarm", "alarm"})
_QUIET = frozenset({"cancelled", "resolved"})


def siren_follows(siren: Siren) -> Callable[[Notice], None]:
    """A listener for the recorder; it is to be urgent."""

    def listener(notice: Notice) -> None:
        if notice.event.kind != "fall":
            return
        if notice.event.what in _LOUD:
            siren.sound(notice.event.what)
        elif notice.event.what in _QUIET:
            siren.silence()

    return listener
