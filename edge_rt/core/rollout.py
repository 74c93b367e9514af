"""Who takes a release: a share of the fleet that only grows with the signed percentage."""

from __future__ import annotations

import hashlib

# The first 8 bytes of the digest: with 2**64 places the share is off by nothing that one could see.
_BYTES = 8


def position(seed: str, device: str) -> float:
    """Where a device stands in the queue of a release, in [0, 1), evenly spread over devices.

    seed  the release's own, so that it is not always the same people who go first
    """
    return _place(seed, device) / 2.0 ** (8 * _BYTES)


def includes(seed: str, device: str, percent: float) -> bool:
    """Whether a rollout of `percent` (0 to 100) with this seed takes in the device.

    Once in, always in: with the same seed a larger percentage takes in all that a smaller one did.
    """
    # Exact: Python compares an int with a float by value, so that 100 is everybody.
    return bool(_place(seed, device) * 100 < percent * 2.0 ** (8 * _BYTES))


def _place(seed: str, device: str) -> int:
    # The separator cannot be part of a device's name: two pairs never make one text.
    digest = hashlib.sha256(f"{seed}/{device}".encode()).digest()
    return int.from_bytes(digest[:_BYTES], "big")
