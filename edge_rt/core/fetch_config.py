"""How a device fetches updates: where its trust begins, how patient it is."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_rt.core.manifest import Struct

_Seconds = Annotated[float, Meta(gt=0, le=86400)]


class FetchConfig(Struct, frozen=True):
    """root        the fleet's root metadata, brought to the device with its certificate
    reserve_mb   of the disk stay free whatever is fetched
    window       chunks asked for at once
    missing_s    metadata that has not come for so long is not there
    patience_s   a chunk that did not come for so long, while no other did either, is asked for anew
    retry_s, retry_cap_s  what failed is tried again after the one, doubling up to the other
    clock_grace_s  a clock that nothing synchronises is believed after this, if it is past what was
                 known before: a house without a time server has to live with the one it has
    interval_s   metadata is verified no more often than this, whatever the broker sends
    """

    root: Annotated[str, Meta(min_length=1, max_length=256)] = "/etc/edge-rt/root.json"
    reserve_mb: Annotated[int, Meta(ge=1, le=4096)] = 32
    window: Annotated[int, Meta(ge=1, le=32)] = 8
    missing_s: _Seconds = 3.0
    patience_s: _Seconds = 60.0
    retry_s: _Seconds = 60.0
    retry_cap_s: _Seconds = 3600.0
    clock_grace_s: _Seconds = 600.0
    interval_s: _Seconds = 10.0
