"""Sends in threads of their own: a service that hangs is given up on, the others never notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from edge_rt.fleet.notices import Place

# A thread in a library cannot be killed. With two that hang a service gets no third; at 100
# services that is 200 threads at the very most, each waiting on a socket.
MAX_STUCK = 2
NO_ANSWER = "no answer"
HANGS = "earlier messages still hang in it"


class Sends(Protocol):
    """A service: empty if it took the message, else why not."""

    def send(self, title: str, body: str, urgent: bool) -> str: ...


class Letter(NamedTuple):
    """One try of one message, and what it stands for."""

    place: Place
    round: int
    closing: bool
    tries: int  # this one included
    title: str
    body: str
    urgent: bool


class Outcome(NamedTuple):
    """What became of a letter; one that was given up on may still have a second, better one."""

    letter: Letter
    error: str


class Post:
    """Use from one thread. services: maker of each service, anew after one has hung.

    Times are any seconds that run on; wake: called from a sending thread when it is done.
    """

    def __init__(
        self,
        services: Mapping[str, Callable[[], Sends]],
        timeout_s: float,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._makers = services
        self._services = {name: make() for name, make in services.items()}
        self._timeout_s = timeout_s
        self._wake = wake
        self._out: dict[str, tuple[Letter, float]] = {}
        self._stuck: dict[str, int] = {}
        self._news = threading.Event()
        self._done: SimpleQueue[Outcome] = SimpleQueue()

    def free(self, service: str) -> bool:
        """Whether nothing is on its way by this service, or has been given up on."""
        return service not in self._out

    def stuck(self, service: str) -> bool:
        """Whether a service has so many threads that hang that it gets no other."""
        return self._stuck.get(service, 0) >= MAX_STUCK

    @property
    def waiting(self) -> bool:
        return bool(self._out)

    def start(self, letter: Letter, now_s: float) -> None:
        """Send, if it is free() and not stuck()."""
        service = self._services[letter.place.service]
        self._out[letter.place.service] = (letter, now_s)
        threading.Thread(
            target=self._send, args=(service, letter), name="notify", daemon=True
        ).start()

    def wait(self, timeout_s: float) -> None:
        """Until something is done, or for so long."""
        self._news.wait(timeout_s)
        self._news.clear()

    def outcomes(self, now_s: float) -> list[Outcome]:
        """What has become known since the last call."""
        found = []
        while True:
            try:
                outcome = self._done.get_nowait()
            except Empty:
                break
            name = outcome.letter.place.service
            if self._out.get(name, (None,))[0] is outcome.letter:
                del self._out[name]
            else:
                self._stuck[name] -= 1
            found.append(outcome)
        for name, (letter, started_s) in list(self._out.items()):
            if now_s - started_s >= self._timeout_s:
                del self._out[name]
                self._stuck[name] = self._stuck.get(name, 0) + 1
                self._services[name] = self._makers[name]()
                found.append(Outcome(letter, f"{NO_ANSWER} in {self._timeout_s:g} s"))
        return found

    def _send(self, service: Sends, letter: Letter) -> None:
        try:
            error = service.send(letter.title, letter.body, letter.urgent)
        except BaseException as fault:  # a thread that ends unseen would count as sending for ever
            error = f"{type(fault).__name__}: {fault}"
        self._done.put(Outcome(letter, error))
        self._news.set()
        self._wake()
