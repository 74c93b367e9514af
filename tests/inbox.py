"""A real HTTP service on loopback that takes notifications, refuses them, or never answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


class Inbox:
    """Use as a context. /ok takes, /no refuses with 500, /hang answers only at the end.

    taken    messages that were answered with 200, as "name: title", name from ?to=
    refused  how many were refused; hung: how many hang
    """

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.bodies: list[str] = []
        self.refused = self.hung = 0
        self.refusing = False  # /ok refuses too
        self._end = threading.Event()
        self._news = threading.Event()
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message: dict[str, Any] = msgspec.json.decode(
                    self.rfile.read(int(self.headers["Content-Length"]))
                )
                if self.path.startswith("/hang"):
                    inbox.hung += 1
                    inbox._news.set()
                    inbox._end.wait(60)
                if self.path.startswith("/no") or inbox.refusing:
                    inbox.refused += 1
                    self.send_error(500)
                    return
                inbox.bodies.append(message["message"])
                inbox.taken.append(f"{self.path.split('/')[2]}: {message['title']}")
                inbox._news.set()
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def url(self, name: str, how: str = "ok") -> str:
        """For a read time-out so long that only ours can end a wait."""
        return f"json://127.0.0.1:{self._server.server_address[1]}/{how}/{name}/?rto=30"

    def wait(self, timeout_s: float) -> None:
        """Until a message was taken or hangs, or for so long."""
        self._news.wait(timeout_s)
        self._news.clear()

    def let_go(self) -> None:
        """Answer what hangs."""
        self._end.set()

    def __enter__(self) -> Inbox:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._server.shutdown()
        self._server.server_close()


def until(done: Callable[[], object], turn: Callable[[], None], timeout_s: float = 10.0) -> None:
    """Turn until something is the case; each turn waits a moment by itself."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "nothing came of it"
        turn()
