"""What a judge of a candidate says."""

from __future__ import annotations

from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """passed; why (not), a clause each, at least one; JSON-able figures for the event.

    final  False: what speaks against it need not be its fault, and it may try again later
    """

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any]
    final: bool = True
