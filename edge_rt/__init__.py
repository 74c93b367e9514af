"""edge_rt: a lightweight on-device inference runtime.

Public API for people who bring their own model:

    open_bundle(name_or_path).run(x)    any model bundle
    FallDetector                        accelerometer samples in, fall scores out
    FaceMatcher                         photographs in, persons out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["FaceMatcher", "FallDetector", "__version__", "open_bundle"]

if TYPE_CHECKING:
    from edge_rt.bundle import open_bundle
    from edge_rt.faces.matcher import FaceMatcher
    from edge_rt.falls.detector import FallDetector

_HOMES = {
    "open_bundle": "edge_rt.bundle",
    "FallDetector": "edge_rt.falls.detector",
    "FaceMatcher": "edge_rt.faces.matcher",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a command that prints a version should not load numpy (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_rt' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
