"""The services of everybody: named without their secrets, and tried out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial

from edge_rt.fleet.apprise_notify import Service
from edge_rt.fleet.notices import Place
from edge_rt.fleet.notify_config import NotifyConfig
from edge_rt.fleet.post import HANGS, Letter, Post

TITLE = "edge_rt test"
BODY = "This is a test: nothing has happened. You are told here when something does."


def digest(url: str) -> str:
    """Names a service in the table without its secrets: the same as long as its URL is."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def services_of(
    config: NotifyConfig, wake: Callable[[], None] = lambda: None
) -> tuple[Post, dict[str, str]]:
    """What sends, and each service's label by its digest.

    Raises ConfigError for a URL that apprise cannot use.
    """
    urls = {digest(url): url for person in config.people for url in person.urls}
    labels = {name: Service(url).label for name, url in urls.items()}
    makers = {name: partial(Service, url) for name, url in urls.items()}
    return Post(makers, config.escalation.timeout_s, wake), labels


def try_out(config: NotifyConfig) -> list[str]:
    """Send everybody a test; for each URL in the file's order, empty or what went wrong.

    Takes as long as the slowest service, asked once a person who names it, at most timeout_s each.
    """
    post, _ = services_of(config)
    urls = [(person.name, url) for person in config.people for url in person.urls]
    letters = [
        Letter(Place(str(k), name, digest(url)), 0, False, 1, TITLE, BODY, False)
        for k, (name, url) in enumerate(urls)
    ]
    results: dict[str, str] = {}
    started: set[str] = set()
    while len(results) < len(letters):
        now_s = time.monotonic()
        for outcome in post.outcomes(now_s):
            results.setdefault(outcome.letter.place.key, outcome.error)
        for letter in letters:
            key, _, name = letter.place
            if key in started or not post.free(name):
                continue
            started.add(key)
            if post.stuck(name):
                results[key] = HANGS
            else:
                post.start(letter, now_s)
        post.wait(0.1)
    return [results[letter.place.key] for letter in letters]
