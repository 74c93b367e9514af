"""A certificate's end is said in time, once, and only by a clock that can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_rt.fleet.certificates import Authority, make_request
from edge_rt.runtime.certificate_watch import LOOK_S, CertificateWatch

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY_S = 86400.0


class Site:
    """A certificate of 100 days, clocks that the test sets, and what was announced."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.make(folder / "ca", "home", NOW)
        self.request = make_request("dev1", "home")
        self.path = folder / "dev1.crt"
        self.wall_s, self.monotonic_s, self.trusted = NOW.timestamp(), 0.0, True
        self.told: list[Mapping[str, Any]] = []
        self.sign(100)
        self.watch = CertificateWatch(
            self.path,
            30,
            self.announce,
            wall_s=lambda: self.wall_s,
            monotonic_s=lambda: self.monotonic_s,
            clock_trusted=lambda: self.trusted,
        )

    def announce(self, kind: str, what: str, data: Mapping[str, Any]) -> None:
        assert (kind, what) == ("device", "certificate_ending")
        self.told.append(data)

    def sign(self, days: int) -> None:
        new = self.path.with_name("new")
        new.write_bytes(self.authority.sign_device(self.request.csr, "dev1", NOW, days))
        new.replace(self.path)

    def on_day(self, day: float) -> str:
        self.wall_s = NOW.timestamp() + day * DAY_S
        self.monotonic_s += LOOK_S
        self.watch.look()
        return self.watch.problem


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_it_is_a_problem_in_time_and_one_event(site: Site) -> None:
    assert site.on_day(69) == ""
    assert site.watch.status() == {"ends": "2026-09-09T00:00:00.000Z", "days": 31.0}
    assert site.told == []
    assert "ends on 2026-09-09; see edge-rt provision renew" in site.on_day(71)
    assert site.on_day(72)
    assert site.told == [{"ends": "2026-09-09T00:00:00.000Z", "days": 29.0}]
    assert "ended on 2026-09-09" in site.on_day(101)
    assert len(site.told) == 1


def test_a_renewed_one_is_seen(site: Site) -> None:
    assert site.on_day(90)
    site.sign(730)
    assert site.on_day(90) == ""
    assert site.on_day(701)
    assert len(site.told) == 2


def test_a_clock_that_was_never_set_concludes_nothing(site: Site) -> None:
    site.trusted = False
    assert site.on_day(200) == ""
    assert site.watch.status() == {"ends": "2026-09-09T00:00:00.000Z", "days": None}
    site.trusted = True
    assert site.on_day(99)
    assert len(site.told) == 1


def test_a_missing_one_is_a_problem_until_it_is_back(site: Site) -> None:
    assert site.watch.status() is None
    away = site.path.rename(site.path.with_name("away"))
    assert "cannot be read" in site.on_day(1)
    away.rename(site.path)
    site.watch.look()
    assert site.watch.problem, "a look a minute is enough"
    assert site.on_day(1) == ""
