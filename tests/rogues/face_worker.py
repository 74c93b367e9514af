"""A face worker that behaves as its first argument says, for tests of its supervision."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

from edge_rt.runtime.face_messages import (
    MAX_LINE_BYTES,
    Answer,
    Arm,
    Ask,
    Beat,
    CameraOpening,
    CameraState,
    Failed,
    Ready,
    Seen,
    ToWorker,
)
from edge_rt.runtime.link import Link, parent_connection


def main(arguments: list[str]) -> None:
    how = arguments[0]
    link: Link[ToWorker] = Link(parent_connection(arguments), ToWorker, MAX_LINE_BYTES)
    if how == "broken":
        link.send(Failed("CredentialError", "key: mode 0644 lets others in; chmod 600 key"))
        return
    if how == "mute":
        time.sleep(3600)
    link.send(Ready("engine 1", {"face-detect": "1.0.0"}, 0))
    armed = threading.Event()
    threading.Thread(target=read, args=(link, armed, how), daemon=True).start()
    armed.wait()
    verdicts = {"owner": "match", "stranger": "stranger"}
    hoard = []
    for turn in range(100_000):
        if turn == 3:
            if how == "hang":
                time.sleep(3600)
            elif how == "abort":
                os.abort()
            elif how == "segfault":
                ctypes.string_at(0)
            elif how == "exit":
                return
            elif how == "nonsense":
                os.write(int(arguments[-1]), b"{}\n")
                time.sleep(3600)
            elif how == "camera":
                link.send(CameraState(True, "no such device"))
                link.send(CameraState(False))
            elif how == "slow camera":
                link.send(CameraOpening())
                time.sleep(2.5)
                link.send(CameraState(True, "at last"))
            elif how == "blind":
                link.send(CameraState(True, "no such device"))
        if how == "leak":
            hoard.append(b"x" * 20_000_000)
        if how in verdicts and armed.is_set():
            person = "p-0123456789abcdef" if how == "owner" else ""
            link.send(Seen(time.monotonic(), verdicts[how], person=person))
        link.send(Beat("on", turn, 0, {}))
        time.sleep(0.02)


def read(link: Link[ToWorker], armed: threading.Event, how: str) -> None:
    while (message := link.receive()) is not None:
        match message:
            case Arm(on=True):
                armed.set()
            case Arm(on=False):
                armed.clear()
            case Ask(id=id, command="list"):
                link.send(Answer(id, {"persons": []}))
            case Ask(id=id, command="remove"):
                link.send(Answer(id, {"persons": [], "removed": "p-0123456789abcdef"}))
            case Ask(id=id):
                link.send(Answer(id, kind="InputError", message="picture 1: no face found"))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
