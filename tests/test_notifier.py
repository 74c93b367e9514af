"""People are told: real store, real apprise, a real HTTP service; time is the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inbox import Inbox, until
from test_store import SOURCE, arrived

from edge_rt.core.uplink_wire import Topics
from edge_rt.fleet.escalation import Kind, Person, Rules
from edge_rt.fleet.incidents import unix_s
from edge_rt.fleet.notifier import Notifier, Said
from edge_rt.fleet.notify_config import NotifyConfig
from edge_rt.fleet.receiver import Device
from edge_rt.fleet.store import Arrived, Store

T0 = unix_s("2026-01-01T00:00:00.000Z")  # as test_store.arrived() has it


class Site:
    """The other side without its broker: a store, a notifier that can be killed, a clock."""

    def __init__(self, folder: Path, config: NotifyConfig) -> None:
        self.folder = folder
        self.config = config
        self.now_s = T0
        self.devices: dict[str, Device] = {}
        self.online = True
        self.said: list[Said] = []
        self.start()

    def start(self) -> None:
        self.store = Store(self.folder)
        self.notifier = Notifier(self.config, self.store, said=self.said.append)

    def kill(self) -> None:
        """As a kill leaves it: nothing is finished, only the files stay."""
        self.notifier.notices.close()
        self.store.close()

    def event(self, sequence: int, kind: str, what: str, incident: str = "i1") -> None:
        self.arrive(arrived(sequence, kind, what, incident=incident))

    def arrive(self, item: Arrived) -> None:
        for fresh in self.store.add([item])[0]:
            self.notifier.take(fresh)

    def at(self, second: float) -> None:
        """Let it become that second after T0, and everything that is due be sent."""
        self.now_s = T0 + second
        self.turn()
        until(lambda: not self.notifier.waiting, self.turn)

    def turn(self) -> None:
        self.notifier.turn(self.now_s, self.devices, self.online)
        self.notifier._post.wait(0.01)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as made:
        yield made


MakeSite = Callable[[NotifyConfig], Site]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    made: list[Site] = []

    def make(config: NotifyConfig) -> Site:
        made.append(Site(tmp_path, config))
        return made[-1]

    yield make
    for site in made:
        site.kill()


def people(inbox: Inbox, how: str = "ok", **rules: float) -> NotifyConfig:
    return NotifyConfig(
        people=(
            Person(name="Ada", urls=(inbox.url("ada", how),)),
            Person(name="Ben", urls=(inbox.url("ben"),), after_s=300),
        ),
        escalation=Rules(**rules),
    )


def test_an_alarm_goes_to_one_then_the_other_until_it_is_resolved(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox))
    site.event(1, "fall", "prealarm")
    site.at(0)
    assert inbox.taken == []
    site.event(2, "fall", "alarm")
    site.at(0)
    assert inbox.taken == ["ada: ALARM: dev1"]
    site.at(299)
    assert len(inbox.taken) == 1
    site.at(300)
    site.at(600)
    assert inbox.taken[1:] == ["ben: ALARM: dev1", "ada: ALARM: dev1"]
    assert inbox.bodies[2].endswith("Still open after 10 min.")
    site.event(3, "fall", "resolved")
    site.at(601)
    assert sorted(inbox.taken[3:]) == ["ada: ALARM over: dev1", "ben: ALARM over: dev1"]
    site.at(100_000)
    assert len(inbox.taken) == 5
    assert site.notifier.notices.matters == site.notifier.notices.told == {}


def test_one_who_was_never_told_does_not_hear_of_the_end(make_site: MakeSite, inbox: Inbox) -> None:
    site = make_site(people(inbox))
    site.event(1, "fall", "alarm")
    site.at(0)
    site.event(2, "fall", "resolved")
    site.at(10)
    site.at(1000)
    assert inbox.taken == ["ada: ALARM: dev1", "ada: ALARM over: dev1"]


def test_a_prealarm_is_told_if_wanted_and_its_alarm_takes_its_place(
    make_site: MakeSite, inbox: Inbox
) -> None:
    eager = Person(name="Ada", urls=(inbox.url("ada"),), about=(Kind.PREALARM, Kind.ALARM))
    site = make_site(NotifyConfig(people=(eager,)))
    site.event(1, "fall", "prealarm")
    site.at(0)
    site.event(2, "fall", "alarm")
    site.at(5)
    site.event(3, "fall", "resolved")
    site.event(4, "fall", "prealarm", "i2")
    site.at(50)
    site.event(5, "fall", "cancelled", "i2")
    site.at(60)
    assert [title.removeprefix("ada: ") for title in inbox.taken] == [
        *("PREALARM: dev1", "ALARM: dev1", "ALARM over: dev1"),
        *("PREALARM: dev1", "PREALARM over: dev1"),
    ]


def test_what_is_written_but_not_marked_is_told_again_after_a_kill(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox))
    site.event(1, "fall", "alarm")
    site.turn()  # written and on its way; the outcome is never seen
    until(lambda: inbox.taken, lambda: site.notifier._post.wait(0.01))
    site.kill()
    site.start()
    site.at(1)
    assert inbox.taken == ["ada: ALARM: dev1"] * 2
    site.kill()
    site.start()
    site.at(299)
    assert len(inbox.taken) == 2, "what was marked is not told again"
    site.at(300)
    assert inbox.taken[2:] == ["ben: ALARM: dev1"], "delays run on over a restart"


def test_an_alarm_that_was_stored_but_never_seen_is_told_after_a_kill(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox))
    site.store.add([arrived(1, "fall", "alarm", incident="i1")])
    site.kill()
    site.start()
    site.at(7)
    assert inbox.taken == ["ada: ALARM: dev1"]
    site.store.add([arrived(2, "fall", "resolved", incident="i1")])
    site.kill()
    site.start()
    site.at(8)
    assert inbox.taken[1:] == ["ada: ALARM over: dev1"]


def test_a_service_that_refuses_is_asked_again_and_holds_up_nobody(
    make_site: MakeSite, inbox: Inbox
) -> None:
    both = Person(name="Ada", urls=(inbox.url("ada", "no"), inbox.url("phone")))
    site = make_site(NotifyConfig(people=(both,)))
    site.event(1, "fall", "alarm")
    site.at(0)
    assert (inbox.taken, inbox.refused) == (["phone: ALARM: dev1"], 1)
    for second, refused in ((4, 1), (5, 2), (19, 2), (20, 3), (80, 4), (380, 5)):
        site.at(second)
        assert inbox.refused == refused, second
    assert {said.tries for said in site.said if "500" in said.error} == {1, 2, 3, 4, 5}
    (failing,) = [row for row in site.notifier.notices.rows() if not row.told.done]
    assert (failing.told.tries, "500" in failing.told.error) == (5, True)
    assert inbox.taken == ["phone: ALARM: dev1"]


def test_a_service_that_hangs_is_given_up_on_and_holds_up_nobody(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox, "hang", timeout_s=20))
    site.event(1, "fall", "alarm")
    site.turn()
    until(lambda: inbox.hung == 1, site.turn)
    site.now_s = T0 + 300
    until(lambda: inbox.taken, site.turn)
    assert inbox.taken == ["ben: ALARM: dev1"]
    assert site.said[0].error == "no answer in 20 s"
    for second in (330, 360, 400, 500):  # two threads hang: no third one is started
        site.now_s = T0 + second
        site.turn()
    assert inbox.hung == 2
    assert site.said[-1].error == "earlier messages still hang in it"
    inbox.let_go()
    until(lambda: not site.said[-1].error, site.turn)
    assert inbox.taken[1:2] == ["ada: ALARM: dev1"]


def test_a_silent_device_is_told_once_over_a_restart_and_when_it_is_back(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox))
    there = Device(Topics("home", "dev1"), "online", 1.0)
    gone = there._replace(status="offline", offline_since_s=1.0)
    site.devices["dev1"] = gone
    site.at(0)
    site.devices["dev1"] = gone._replace(silent_told=True)
    site.at(60)
    site.at(61)
    site.kill()
    site.start()
    site.devices.clear()
    site.at(62)
    site.devices["dev1"] = gone  # retained: still called offline, not for long by the new count
    site.at(63)
    site.devices["dev1"] = gone._replace(silent_told=True)
    site.at(120)
    assert inbox.taken == ["ada: SILENT: dev1"]
    site.devices["dev1"] = there._replace(heard_s=0.0)
    site.at(125)
    assert len(inbox.taken) == 1, "what the broker remembers is no word of it"
    site.devices["dev1"] = there
    site.at(130)
    site.at(140)
    assert inbox.taken[1:] == ["ada: SILENT over: dev1"]
    site.devices["dev1"] = gone._replace(silent_told=True)
    site.at(150)
    assert inbox.taken[2:] == ["ada: SILENT: dev1"]


def test_silent_again_before_its_end_was_told_is_told_again(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox))
    there = Device(Topics("home", "dev1"), "online", 1.0)
    gone = there._replace(offline_since_s=1.0, silent_told=True)
    site.devices["dev1"] = gone
    site.at(0)
    inbox.refusing = True
    site.devices["dev1"] = there
    site.at(10)
    inbox.refusing = False
    site.devices["dev1"] = gone
    site.at(12)
    assert inbox.taken == ["ada: SILENT: dev1"] * 2


def test_a_receiver_without_its_broker_says_so(make_site: MakeSite, inbox: Inbox) -> None:
    site = make_site(people(inbox, blind_after_s=120))
    site.online = False
    site.at(0)
    site.at(119)
    assert inbox.taken == []
    site.at(120)
    assert inbox.taken == ["ada: BLIND: receiver"]
    site.online = True
    site.at(130)
    assert inbox.taken[1:] == ["ada: BLIND over: receiver"]


def test_a_gap_counts_when_it_does_not_close_and_is_told_once(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox, gap_after_s=3600))
    site.arrive(arrived(1))
    site.arrive(arrived(5))
    site.at(3599)
    assert inbox.taken == []
    site.at(3620)
    assert inbox.taken == ["ada: GAP: dev1"]
    assert inbox.bodies == ["dev1: 3 events never came: 2-4."]
    site.arrive(arrived(3))
    site.at(3800)
    assert len(inbox.taken) == 1, "a part came late: the name is the newest missing event's"
    site.arrive(arrived(2))
    site.arrive(arrived(4))
    site.at(3820)
    assert len(inbox.taken) == 1
    assert site.notifier.notices.matters == {}


def test_a_clock_that_goes_back_does_not_delay_the_first_message(
    make_site: MakeSite, inbox: Inbox
) -> None:
    site = make_site(people(inbox))
    site.at(0)
    site.event(1, "fall", "alarm")  # received at T0, and now it is a day earlier
    site.at(-86400)
    assert inbox.taken == ["ada: ALARM: dev1"]


def test_alarms_go_before_all_else(make_site: MakeSite, inbox: Inbox) -> None:
    site = make_site(people(inbox))
    silent = Device(Topics("home", "dev2"), "offline", 0.0, 1.0, True)
    site.devices = {f"dev{k}": silent for k in range(2, 7)}
    site.event(1, "fall", "alarm")
    site.at(0)
    site.at(1)
    assert inbox.taken[0] == "ada: ALARM: dev1"
    assert len(inbox.taken) == 6
    assert SOURCE.endswith("dev1")
