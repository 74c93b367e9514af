"""fleet.toml: what is refused, and that no secret shows."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from edge_rt.core.errors import ConfigError
from edge_rt.fleet.escalation import Kind, Rules
from edge_rt.fleet.notify_config import parse_notify_config
from edge_rt.fleet.services import services_of

ADA = '[[people]]\nname = "Ada"\nurls = ["json://user:s3cret@host"]\n'


def test_a_file_with_delays_and_kinds() -> None:
    text = ADA + 'after_s = 60\nabout = ["alarm", "prealarm"]\n[escalation]\nrepeat_s = 120\n'
    config = parse_notify_config(text.encode(), "fleet.toml")
    assert config.people[0].about == (Kind.ALARM, Kind.PREALARM)
    assert (config.people[0].after_s, config.escalation.repeat_s) == (60, 120)
    assert config.escalation.timeout_s == 20


def test_the_manual_s_example_is_one(repository: Path) -> None:
    manual = (repository / "docs/mqtt.md").read_text()
    block = manual[manual.index("    [[people]]") : manual.index("| kind |")]
    config = parse_notify_config(textwrap.dedent(block).encode(), "docs/mqtt.md")
    assert config.escalation == Rules(), "the manual shows the defaults"
    _, labels = services_of(config)
    assert len(labels) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("people = []", "nobody to tell"),
        ("", "people"),
        (ADA + ADA, "two people have one name"),
        (ADA + "after = 5", "did you mean 'after_s'"),
        (ADA + "[escalation]\nrepeat = 5", "did you mean 'repeat_s'"),
        (ADA + "[esclation]", "did you mean 'escalation'"),
        (ADA + "[escalation]\nrepeat_s = 1", ">= 30"),
        (ADA + 'about = ["weather"]', "weather"),
        ('[[people]]\nname = "Ada"\nurls = []', "length >= 1"),
        ("[[people", "not valid TOML"),
        (ADA.replace('["json', '["' + "x" * 3000 + "json"), "length <= 2048"),
        ("".join(ADA.replace("Ada", f"P{k}") for k in range(101)), "more than 100 services"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^fleet\.toml: ") as error:
        parse_notify_config(text.encode(), "fleet.toml")
    assert says in str(error.value)
    assert "s3cret" not in str(error.value)
