"""The replay camera on a clock that the test drives, and on recordings that are none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_rt.adapters.camera_replay import ReplayCamera
from edge_rt.core.errors import CameraError, InputError


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def pictures(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), 10 * k, np.uint8) for k in range(count)]


def level(frame: object) -> int:
    return round(float(frame.image.mean()) / 10)  # type: ignore[attr-defined]


def test_frames_come_at_their_own_time() -> None:
    clock = Clock()
    camera = ReplayCamera(pictures(3), rate_hz=10, clock=clock, sleep=clock.sleep)
    camera.open()
    seen = [camera.read(1.0) for _ in range(3)]
    assert [level(f) for f in seen] == [0, 1, 2]
    assert [f.t_s for f in seen if f] == pytest.approx([100.0, 100.1, 100.2])
    with pytest.raises(EOFError):
        camera.read(1.0)


def test_nothing_is_due_within_a_short_wait() -> None:
    clock = Clock()
    camera = ReplayCamera(pictures(2), rate_hz=1, clock=clock, sleep=clock.sleep)
    camera.open()
    assert camera.read(0.1) is not None
    assert camera.read(0.1) is None
    assert clock.now_s == pytest.approx(100.1)


def test_a_late_reader_gets_the_newest_frame_and_the_rest_are_counted() -> None:
    clock = Clock()
    camera = ReplayCamera(pictures(6), rate_hz=10, speed=2.0, clock=clock, sleep=clock.sleep)
    camera.open()
    clock.now_s += 0.21  # frames 0 to 4 are due at double speed
    assert level(camera.read(0.0)) == 4
    assert camera.dropped == 4


def test_unpaced_replay_drops_nothing_and_repeat_starts_over() -> None:
    clock = Clock()
    camera = ReplayCamera(
        pictures(2),
        rate_hz=10,
        repeat=True,
        paced=False,
        clock=clock,
        sleep=clock.sleep,
    )
    camera.open()
    seen = [camera.read(0.0) for _ in range(5)]
    assert [level(f) for f in seen] == [0, 1, 0, 1, 0]
    assert np.diff([f.t_s for f in seen if f]) == pytest.approx([0.1] * 4)
    assert camera.dropped == 0


def test_reading_a_closed_camera_is_an_error() -> None:
    with pytest.raises(CameraError, match="not open"):
        ReplayCamera(pictures(1)).read(0.0)


def test_a_video_and_a_folder_are_played(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    folder = tmp_path / "stills"
    folder.mkdir()
    for k, image in enumerate(pictures(4)):
        writer.write(image)
        assert cv2.imwrite(str(folder / f"{k}.png"), image)
    writer.release()
    for source, step_s in ((path, 0.05), (folder, 0.2)):
        camera = ReplayCamera(source, paced=False, clock=Clock())
        camera.open()
        seen = [camera.read(0.0) for _ in range(4)]
        assert [level(f) for f in seen] == [0, 1, 2, 3]
        assert np.diff([f.t_s for f in seen if f]) == pytest.approx([step_s] * 3)
        camera.close()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.mp4", None, "no such file"),
        ("empty.mp4", b"", "empty"),
        ("noise.mp4", bytes(range(256)) * 40, "not a video"),
        ("noise.jpg", bytes(range(256)) * 4, "not a picture"),
    ],
)
def test_unusable_recordings_are_named(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        ReplayCamera(path).open()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_video_and_an_empty_folder(tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for image in pictures(4):
        writer.write(image)
    writer.release()
    path.write_bytes(path.read_bytes()[:400])  # the header, and no picture
    for source in (path, tmp_path / "none"):
        (tmp_path / "none").mkdir(exist_ok=True)
        with pytest.raises(InputError) as caught:
            ReplayCamera(source).open()
        assert str(source) in str(caught.value)


@pytest.mark.parametrize("bad", [{"speed": 0.0}, {"rate_hz": -1.0}])
def test_impossible_pacing_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="above 0"):
        ReplayCamera(pictures(1), **bad)
