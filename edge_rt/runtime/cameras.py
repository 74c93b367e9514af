"""From a section of the config to the camera it names.

Apart from the accelerometers: the face worker needs none of what simulates and resamples falls.
"""

from __future__ import annotations

from pathlib import Path

from edge_rt.core.config import DemoCamera, OpenCVCamera, Picamera2Camera, ReplayedCamera
from edge_rt.core.types import Camera
from edge_rt.runtime.grabber import GrabbingCamera

AnyCamera = OpenCVCamera | Picamera2Camera | ReplayedCamera | DemoCamera


def make_camera(source: AnyCamera) -> Camera:
    """The camera that the config names. OpenCV is imported here at the earliest.

    Raises InputError for an unusable video; a camera that is absent shows when it is opened.
    """
    if isinstance(source, OpenCVCamera):
        from edge_rt.adapters.camera_opencv import OpenCVCapture, device_path

        return GrabbingCamera(device_path(source.device), lambda: OpenCVCapture(source))
    if isinstance(source, Picamera2Camera):
        from edge_rt.adapters.camera_picamera2 import Picamera2Capture
        from edge_rt.adapters.imaging import from_yuv420

        name = f"Pi camera {source.index}"
        return GrabbingCamera(name, lambda: Picamera2Capture(source, from_yuv420))
    if isinstance(source, ReplayedCamera):
        from edge_rt.adapters.camera_replay import ReplayCamera

        return ReplayCamera(Path(source.file), speed=source.speed, repeat=source.repeat)
    from edge_rt.faces.clip import demo_clip

    return demo_clip(source.seed, source.speed)
