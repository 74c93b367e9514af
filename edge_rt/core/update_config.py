"""The [updates] section of the configuration: whether models come from afar, and what they must
show before they go live."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

from msgspec import Meta

from edge_rt.core.fetch_config import FetchConfig
from edge_rt.core.manifest import Struct

# Least spans are for trying out; a week of silence tells no more than a day does.
_Hours = Annotated[float, Meta(ge=0.0005, le=24 * 14)]

# So many blocks are compared (core.shadow.LEAST_BLOCKS, whose numpy is not wanted here) ...
SHADOW_BLOCKS = 200
# ... and a shadow that cannot tell yet runs on up to so many times shadow_h.
SHADOW_SPANS = 2.0


class UpdatesConfig(Struct, frozen=True):
    """Model updates over MQTT; needs [mqtt].

    shadow_h   a candidate runs beside the live model for so long
    shadow_block_s  the stretch of signal whose liveliest moment is compared; 200 are needed
    shadow_share  of one processor is what it may take for that; windows beyond are skipped
    trial_h    so long it is watched as the live model before it is confirmed
    alarms_per_day  pre-alarms that are usual here, for a device without a day of history
    settle_s   a start that ran for so long has held; two on trial that did not: the previous model
    retry_h    what failed for no fault of the candidate (disk, network) is tried again after this
    faces      "off": face models stay as installed. "trial_only": they are replaced too, after
               self-test and without shadow, if the embedding space stays. "shadow": an embedder
               runs beside the live one first; one of another space collects templates meanwhile
    face_pictures    with a face, until the shadow of an embedder of the same space is over
    face_templates   a person, collected for another space; face_apart_h: hours between two of them
    fetch      how the device fetches them, see core.fetch_config
    """

    enabled: bool = False
    shadow_h: _Hours = 24.0
    shadow_block_s: Annotated[float, Meta(ge=5, le=600)] = 30.0
    shadow_share: Annotated[float, Meta(ge=0.001, le=0.5)] = 0.05
    trial_h: _Hours = 24.0
    alarms_per_day: Annotated[float, Meta(gt=0)] = 3.0
    settle_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    retry_h: _Hours = 1.0
    faces: Literal["off", "trial_only", "shadow"] = "off"
    face_pictures: Annotated[int, Meta(ge=5, le=100_000)] = 2000
    face_templates: Annotated[int, Meta(ge=1, le=16)] = 5
    face_apart_h: Annotated[float, Meta(ge=0, le=24)] = 4.0
    fetch: FetchConfig = FetchConfig()

    def __post_init__(self) -> None:
        hundredths = SHADOW_BLOCKS * self.shadow_block_s / 36.0 / SHADOW_SPANS
        least_h = ceil(hundredths) / 100
        if self.enabled and self.shadow_h < least_h:
            raise ValueError(
                f"shadow_h = {self.shadow_h:g} has no room for {SHADOW_BLOCKS} blocks of "
                f"shadow_block_s, and no candidate would pass; take at least {least_h:g} h"
            )
