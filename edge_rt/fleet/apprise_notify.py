"""One service of apprise (https://github.com/caronc/apprise): send, and say what went wrong."""

from __future__ import annotations

import logging
import threading

from edge_rt.core.errors import ConfigError, InputError

try:
    import apprise
except ImportError:
    raise InputError("telling people needs apprise; pip install apprise") from None


class _LastWords(logging.Handler):
    """apprise reports failures only to its log: keeps each thread's last warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self._said.text = record.getMessage()

    def take(self) -> str:
        text = str(getattr(self._said, "text", ""))
        self._said.text = ""
        return " ".join(text.split())[:200]


_last_words = _LastWords()
_logger = logging.getLogger("apprise")
_logger.addHandler(_last_words)
# What it says is kept beside the notice; on stderr it would stand a second time.
_logger.propagate = False

_TYPES = {True: apprise.NotifyType.FAILURE, False: apprise.NotifyType.INFO}


class Service:
    """Use from one thread at a time. Raises ConfigError for a URL that apprise cannot use.

    label  the URL up to its host, without secrets
    """

    def __init__(self, url: str) -> None:
        asset = apprise.AppriseAsset(app_id="edge_rt", app_desc="edge_rt", async_mode=False)
        found = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if found is None:
            schema, found_any, _ = url.partition("://")
            shown = f"{schema:.20}://..." if found_any else "without ://"
            raise ConfigError(  # apprise's own words would show the whole URL
                f"apprise cannot use the URL {shown}: no such service, or a part is missing"
            )
        together = apprise.Apprise(found, asset=asset)
        scheme, _, rest = together.urls(privacy=True)[0].partition("://")
        # What follows the host may be a telephone number, or a topic that is as good as a password.
        self.label = f"{scheme}://{rest.split('/', 1)[0]}"[:80]
        # Not Apprise.notify(): that one sends in threads of its own, where no warning is ours.
        self._notify = found.notify

    def send(self, title: str, body: str, urgent: bool) -> str:
        """Empty if the service took it, else why not. May take as long as the service likes."""
        _last_words.take()
        try:
            taken = self._notify(body=body, title=title, notify_type=_TYPES[urgent])
        except Exception as error:  # a plugin's own fault, of any kind: the other services go on
            return f"{type(error).__name__}: {error}"[:200]
        return "" if taken else _last_words.take() or "the service did not take it"
