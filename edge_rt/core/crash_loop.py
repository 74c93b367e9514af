"""What a daemon that keeps failing at its start does without, so that it never ends in silence.

A start has failed unless a healthy minute or a clean stop follows it. Several in a row: the models
that were added and the camera go first; if it still fails, it does without models altogether and
only tells that it does not watch.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from edge_rt.core.config import Config

HEALTHY_S = 60.0
SPARE_AT, BARE_AT = 3, 6
# Without any model nobody is watched over: the rest is tried again after this.
BARE_S = 600.0
# The first starts come quickly (a fall waits for nobody); later ones must not eat card and battery.
DELAYS_S = (0.0, 0.0, 0.0, 2.0, 5.0, 10.0, 10.0, 20.0, 30.0, 60.0)
# Nor may an alarm that is open wait to sound again.
ALARM_DELAY_S = 2.0
MAX_REASON = 300


class Mode(StrEnum):
    """How much of the configuration is run."""

    FULL = "full"
    SPARE = "spare"  # falls on the previous or factory model; no faces
    BARE = (
        "bare"  # no models, no sensor, no updates: events, uplink, commands, the alarm that is open
    )


class Starts(msgspec.Struct, frozen=True):
    """What is remembered from start to start.

    made_of  hash of what was started (version and configuration): another one counts anew
    failed   starts in a row that did not reach a healthy minute
    reason   why the last one ended, if it could say
    """

    made_of: str
    failed: int = 0
    reason: str = ""

    @property
    def mode(self) -> Mode:
        """What a start after these should run."""
        if self.failed >= BARE_AT:
            return Mode.BARE
        return Mode.SPARE if self.failed >= SPARE_AT else Mode.FULL

    def delay_s(self, alarm_open: bool) -> float:
        """How long it should wait first; alarm_open: somebody waits for help."""
        delay_s = DELAYS_S[min(self.failed, len(DELAYS_S) - 1)]
        return min(delay_s, ALARM_DELAY_S) if alarm_open else delay_s


def before(last: Starts | None, made_of: str) -> Starts:
    """What counts at a start, given what was remembered."""
    return last if last is not None and last.made_of == made_of else Starts(made_of)


def begun(starts: Starts) -> Starts:
    """To remember when a start begins: failed until it has proved otherwise."""
    return Starts(starts.made_of, starts.failed + 1)


def ended(starts: Starts, reason: str) -> Starts:
    """To remember when a start is known to fail."""
    return msgspec.structs.replace(starts, reason=reason[:MAX_REASON])


def healthy(starts: Starts) -> Starts:
    """To remember after HEALTHY_S."""
    return Starts(starts.made_of)


def spared(starts: Starts) -> Starts:
    """To remember when BARE_S are over: the next start tries the models again."""
    return Starts(starts.made_of, SPARE_AT, starts.reason)


def reduced(config: Config, mode: Mode, spare_bundle: str) -> Config:
    """The configuration without what `mode` leaves out; outputs and uplink stay as they are."""
    if mode is Mode.FULL:
        return config
    replace = msgspec.structs.replace
    falls = replace(
        config.falls,
        enabled=config.falls.enabled and mode is not Mode.BARE,
        bundle=spare_bundle,
        # It was chosen for the other bundle and may be out of this one's bounds.
        threshold=config.falls.threshold if spare_bundle == config.falls.bundle else None,
    )
    # There is no model to update without models; with the factory's, the mended one may come.
    updates = replace(config.updates, enabled=config.updates.enabled and mode is not Mode.BARE)
    return replace(config, falls=falls, faces=replace(config.faces, enabled=False), updates=updates)
