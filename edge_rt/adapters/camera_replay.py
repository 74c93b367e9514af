"""A camera that plays a video file, a folder of stills, or frames in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2

from edge_rt.core.errors import CameraError, InputError
from edge_rt.core.types import Frame, ImageArray

STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".bmp", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg", ".webm"})
STILLS_HZ = 5.0  # stills of a folder follow one another at this rate
MAX_RATE_HZ = 1000.0  # a file that claims more lies about its rate


class ReplayCamera:
    """Plays frames at their own times (`speed` times as fast), on the clock it is given.

    dropped: frames passed over because the reader was late. The newest due frame wins, as with a
    real camera; no frame is dropped when `speed` is infinite or nothing paces the replay.
    """

    def __init__(
        self,
        source: Path | Iterable[ImageArray],
        *,
        speed: float = 1.0,
        repeat: bool = False,
        rate_hz: float = STILLS_HZ,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        paced: bool = True,
    ) -> None:
        """source: a video file, a still, a folder of stills, or frames (height, width, 3) BGR.

        rate_hz: of stills and frames in memory; a video brings its own. paced: hold frames back
        until they are due; else every read returns the next one at once.
        """
        if not speed > 0 or not rate_hz > 0:
            raise InputError(f"speed {speed} and rate {rate_hz} must be above 0")
        self._source, self._repeat, self._rate_hz = source, repeat, rate_hz
        self._speed, self._paced = speed, paced
        self._clock, self._sleep = clock, sleep
        self._frames: Iterator[Frame] | None = None
        self._next: Frame | None = None
        self._begun_s = 0.0
        self.dropped = 0

    def open(self) -> None:
        """Raises InputError when there is no frame to be had from the source."""
        self.close()
        self._frames = self._play()
        try:
            self._next = next(self._frames)
        except StopIteration:
            raise InputError(f"{self._name()}: no frame in it; name another recording") from None
        self._begun_s = self._clock()

    def read(self, timeout_s: float) -> Frame | None:
        """The newest due frame, None if none is due within timeout_s; t_s is on the given clock.

        Raises EOFError at the end, CameraError when not open, InputError for a frame that cannot be
        decoded.
        """
        if self._frames is None:
            raise CameraError("the replay camera is not open")
        frame = self._next
        if frame is None:
            raise EOFError(f"{self._name()}: played to its end")
        if not self._paced:
            self._next = next(self._frames, None)
            return Frame(self._begun_s + frame.t_s / self._speed, frame.image)
        now_s = self._clock()
        due_s = self._due(frame)
        if due_s > now_s + timeout_s:
            self._sleep(timeout_s)
            return None
        if due_s > now_s:
            self._sleep(due_s - now_s)
            now_s = due_s
        self._next = next(self._frames, None)
        while self._next is not None and self._due(self._next) <= now_s:
            frame, self._next = self._next, next(self._frames, None)
            self.dropped += 1
        return Frame(self._due(frame), frame.image)

    def close(self) -> None:
        """Give the file back; `open` starts from the beginning."""
        if self._frames is not None:
            self._frames.close()  # type: ignore[attr-defined]
        self._frames = self._next = None

    def _due(self, frame: Frame) -> float:
        return self._begun_s + frame.t_s / self._speed

    def _name(self) -> str:
        return str(self._source) if isinstance(self._source, Path) else "frames in memory"

    def _play(self) -> Iterator[Frame]:
        offset_s = 0.0
        while True:
            last_s = None
            for frame in self._once():
                last_s = frame.t_s
                yield Frame(offset_s + frame.t_s, frame.image)
            if not self._repeat or last_s is None:
                return
            offset_s += last_s + 1.0 / self._rate_hz

    def _once(self) -> Iterator[Frame]:
        if not isinstance(self._source, Path):
            return self._stills(self._source)
        if self._source.is_dir():
            inside = sorted(p for p in self._source.rglob("*") if p.is_file())
            return self._stills(_read(p) for p in inside if p.suffix.lower() in STILL_SUFFIXES)
        if not self._source.is_file():
            raise InputError(f"{self._source}: no such file; name a video or a folder of pictures")
        if self._source.stat().st_size == 0:
            raise InputError(f"{self._source}: the file is empty; record it again")
        if self._source.suffix.lower() in VIDEO_SUFFIXES:
            return self._video(self._source)
        return self._stills([_read(self._source)])

    def _stills(self, images: Iterable[ImageArray]) -> Iterator[Frame]:
        for number, image in enumerate(images):
            yield Frame(number / self._rate_hz, image)

    def _video(self, path: Path) -> Iterator[Frame]:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            if not video.isOpened():
                raise InputError(f"{path}: not a video that OpenCV can read; convert it to MP4")
            rate_hz = float(video.get(cv2.CAP_PROP_FPS))
            if not 0.0 < rate_hz <= MAX_RATE_HZ:  # also NaN: some containers carry no rate
                rate_hz = 25.0
            self._rate_hz = rate_hz
            number = 0
            while True:
                good, image = video.read()
                if not good:
                    break
                yield Frame(number / rate_hz, image)  # type: ignore[arg-type]
                number += 1
            if number == 0:
                raise InputError(f"{path}: no frame can be decoded; the video is empty or damaged")
        finally:
            video.release()


def _read(path: Path) -> ImageArray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: not a picture that OpenCV can decode; use a JPEG or PNG file")
    return image  # type: ignore[return-value]
