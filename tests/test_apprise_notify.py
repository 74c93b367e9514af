"""apprise itself, against a real HTTP service."""

from __future__ import annotations

import pytest
from inbox import Inbox

from edge_rt.core.errors import ConfigError
from edge_rt.fleet.apprise_notify import Service


def test_a_message_arrives_and_a_refusal_has_a_reason() -> None:
    with Inbox() as inbox:
        assert Service(inbox.url("ada")).send("title", "body", True) == ""
        assert "500" in Service(inbox.url("ada", "no")).send("title", "body", True)
    assert (inbox.taken, inbox.bodies, inbox.refused) == (["ada: title"], ["body"], 1)
    gone = Service(inbox.url("ada"))
    assert "onnection" in gone.send("title", "body", False)


def test_a_label_shows_no_secret() -> None:
    service = Service("json://user:s3cret@localhost:1/s3cret/?+X-Token=s3cret")
    assert service.label == "json://user:****@localhost:1"


@pytest.mark.parametrize("url", ["nonsense://s3cret", "json://", "tgram://s3cret", "s3cret", ""])
def test_a_url_of_no_use_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="apprise cannot use") as error:
        Service(url)
    assert "s3cret" not in str(error.value)
