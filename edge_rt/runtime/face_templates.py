"""The enrolled faces of a configuration: which store, which key, bound to which models and camera.

The face worker works with it, the doctor looks into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_rt.adapters.statefile import AtomicFile
from edge_rt.adapters.templates import STORE_NAME, TemplateStore, load_key
from edge_rt.core.config import (
    DemoCamera,
    FaceConfig,
    OpenCVCamera,
    Picamera2Camera,
    ReplayedCamera,
)
from edge_rt.core.manifest import EmbedManifest


def open_templates(
    folder: Path, faces: FaceConfig, manifest: EmbedManifest, environment: Mapping[str, str]
) -> TemplateStore:
    """The store in the state folder. Raises what `load_key` raises; makes a key as it does."""
    return TemplateStore(
        AtomicFile(folder / STORE_NAME),
        load_key(faces.template_key, folder, environment),
        embedding_space=manifest.embedding_space,
        camera=_identity(faces.camera),
        size=manifest.output.size,
    )


def _identity(camera: OpenCVCamera | Picamera2Camera | ReplayedCamera | DemoCamera) -> str:
    """What templates are bound to: the device, not how it is set."""
    if isinstance(camera, OpenCVCamera):
        return f"opencv:{camera.device}"
    if isinstance(camera, Picamera2Camera):
        return f"picamera2:{camera.index}"
    return "demo" if isinstance(camera, DemoCamera) else "replay"
