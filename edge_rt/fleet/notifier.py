"""Tells people: what is open by the store and the broker, escalated, sent, and remembered.

Written before it is sent and marked after: whatever is killed in between is told again. So a
person may hear twice, and never not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edge_rt.core.uplink_wire import Range
from edge_rt.fleet.escalation import (
    URGENCY,
    Kind,
    Matter,
    Person,
    Told,
    Wanted,
    retry_s,
    settled,
    text,
    wanted,
)
from edge_rt.fleet.incidents import Incidents, unix_s
from edge_rt.fleet.notices import Notices, Place
from edge_rt.fleet.notify_config import NotifyConfig
from edge_rt.fleet.post import HANGS, Letter
from edge_rt.fleet.receiver import Device
from edge_rt.fleet.services import digest, services_of
from edge_rt.fleet.store import Arrived, Store

# Delays are minutes: looking once a second is early enough when nothing has come.
LOOK_S = 1.0
GAPS_S = 10.0
MAX_GAPS = 64  # of one log, each a look into the store; beyond that nobody reads the list
SENDING = "sending"
_FALLS = (Kind.ALARM, Kind.PREALARM)


class Said(NamedTuple):
    """One try, for a person to read; error: empty if the service took it."""

    title: str
    person: str
    service: str
    error: str
    tries: int


class Notifier:
    """Give it each stored event, and turn() again and again; use from the store's thread.

    Raises ConfigError for a URL that apprise cannot use, StorageError when notices cannot be kept.
    """

    def __init__(
        self,
        config: NotifyConfig,
        store: Store,
        *,
        said: Callable[[Said], None] = lambda said: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._rules = config.escalation
        self._said = said
        self._store = store
        self._post, self._labels = services_of(config, wake)
        self.notices = Notices(store.folder)
        self._incidents = Incidents()
        for event, received in store.falls():
            self._incidents.take(event, received)
        for place, told in list(self.notices.told.items()):
            if told.error == SENDING:  # killed in the middle: nobody knows, so at once again
                self.notices.told[place] = told._replace(due_s=0.0)
        self._changed = True
        self._look_s = self._gaps_s = 0.0
        self._gaps: dict[str, Matter] = {}
        self._blind_since_s: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether something is being sent."""
        return self._post.waiting

    def take(self, arrived: Arrived) -> None:
        """An event that is stored."""
        if arrived.event.kind == "fall":
            self._incidents.take(arrived.event, arrived.received)
            self._changed = True

    def turn(self, now_s: float, devices: Mapping[str, Device], online: bool) -> None:
        """now_s: Unix seconds; devices: as the receiver sees them; online: it has its broker."""
        for outcome in self._post.outcomes(now_s):
            self._changed = True
            self._mark(outcome.letter, outcome.error, now_s)
        # A clock that went back must not keep us from looking.
        if not self._changed and 0 < self._look_s - now_s <= LOOK_S:
            return
        self._changed, self._look_s = False, now_s + LOOK_S
        self._compare(now_s, devices, online)
        self._tell(now_s)

    def close(self) -> None:
        """What is being sent is left to itself, and told again after the next start."""
        self.notices.close()

    # ---- helpers ----

    def _compare(self, now_s: float, devices: Mapping[str, Device], online: bool) -> None:
        """Bring the open matters in step with what is the case."""
        found = {m.key: m for m in self._incidents.open()}
        for name in (name for name, device in devices.items() if device.silent_told):
            key, plain = f"{Kind.SILENT} {name}", _plain(name)
            found[key] = Matter(key, Kind.SILENT, plain, now_s, "the device is silent")
        if online:
            self._blind_since_s = None
        elif self._blind_since_s is None or self._blind_since_s > now_s:
            self._blind_since_s = now_s
        elif now_s - self._blind_since_s >= self._rules.blind_after_s:
            what = "no connection to the broker, no event can arrive"
            found["blind"] = Matter("blind", Kind.BLIND, "", self._blind_since_s, what)
        if not 0 < self._gaps_s - now_s <= GAPS_S:
            self._gaps_s = now_s + GAPS_S
            self._gaps = self._find_gaps(now_s)
        found |= self._gaps
        put, forget = [], []
        for matter in found.values():
            old = self.notices.matters.get(matter.key)
            if old is not None and old.end:  # it began again before its end was told
                forget.append(matter.key)
            if old is None or old.end:
                # Received before the clock went back: that must not delay the first message.
                put.append(matter._replace(since_s=min(matter.since_s, now_s)))
        for old in self.notices.matters.values():
            if old.key in found or old.end or not self._is_over(old, devices, online):
                continue
            end = self._end_of(old)
            # A pre-alarm that became an alarm and a gap that closed end without a word.
            if end:
                put.append(old._replace(end=end))
            else:
                forget.append(old.key)
        # One transaction, however many devices fell silent at once: receipts wait for it.
        self.notices.change(put, forget)

    def _is_over(self, matter: Matter, devices: Mapping[str, Device], online: bool) -> bool:
        """Whether what is not found any more has ended, or we only cannot know yet."""
        if matter.kind is Kind.SILENT:
            device = devices.get(matter.key.split(" ", 1)[1])
            return device is not None and device.offline_since_s is None and device.heard_s > 0
        if matter.kind is Kind.GAP:
            _, source, _, logid = matter.key.split(" ", 3)
            return (source, logid) in self._store.logs
        return online or matter.kind is not Kind.BLIND

    def _end_of(self, matter: Matter) -> str:
        if matter.kind in _FALLS:
            return self._incidents.end_of(matter.key)
        return {Kind.SILENT: "it is back", Kind.BLIND: "connected again"}.get(matter.kind, "")

    def _find_gaps(self, now_s: float) -> dict[str, Matter]:
        found = {}
        for (source, logid), state in self._store.logs.items():
            ranges: list[Range] = []
            for first, last in state.gaps()[:MAX_GAPS]:
                since = self._store.received_after(source, logid, last)
                if since and now_s - unix_s(since) >= self._rules.gap_after_s:
                    ranges.append((first, last))
            if ranges:
                # Named after the newest: one more is news, one less is not.
                key = f"{Kind.GAP} {source} {ranges[-1][1]} {logid}"
                many = sum(last - first + 1 for first, last in ranges)
                shown = ", ".join(f"{a}-{b}" for a, b in ranges[:5])
                what = f"{many} events never came: {shown}"
                found[key] = Matter(key, Kind.GAP, source.rsplit("/", 1)[-1], now_s, what)
        return found

    def _tell(self, now_s: float) -> None:
        ranked = sorted(
            self.notices.matters.values(), key=lambda m: (URGENCY.index(m.kind), m.since_s)
        )
        done = []
        for matter in ranked:
            tolds = []
            for person in self._config.people:
                for url in person.urls:
                    place = Place(matter.key, person.name, digest(url))
                    told = self.notices.told.get(place)
                    want = wanted(matter, person, told, self._rules, now_s)
                    if want is not None and self._post.free(place.service):
                        self._send(matter, person, place, want, now_s)
                    told = self.notices.told.get(place)
                    if told is not None and matter.kind in person.about:
                        tolds.append(told)
            if settled(matter, tolds):
                done.append(matter.key)
        self.notices.change((), done)

    def _send(
        self, matter: Matter, person: Person, place: Place, want: Wanted, now_s: float
    ) -> None:
        tries = want.tries + 1
        title, body = text(matter, want.closing, now_s)
        urgent = matter.kind in _FALLS and not want.closing
        letter = Letter(place, want.round, want.closing, tries, title, body, urgent)
        told = Told(want.round, want.closing, False, tries, now_s + retry_s(tries), SENDING)
        self.notices.say(place, self._labels[place.service], told)
        if self._post.stuck(place.service):
            self._mark(
                Letter(place, want.round, want.closing, tries, title, body, False), HANGS, now_s
            )
            return
        urgent = matter.kind in _FALLS and not want.closing
        letter = Letter(place, want.round, want.closing, tries, title, body, urgent)
        self._post.start(letter, now_s)

    def _mark(self, letter: Letter, error: str, now_s: float) -> None:
        place, label = letter.place, self._labels[letter.place.service]
        told = self.notices.told.get(place)
        # A late answer to what has long been said anew, or is over, changes nothing.
        same = told and (told.round, told.closing) == (letter.round, letter.closing)
        if told and same and not told.done:
            due_s = now_s + retry_s(letter.tries)
            self.notices.say(place, label, told._replace(done=not error, due_s=due_s, error=error))
        self._said(Said(letter.title, place.person, label, error, letter.tries))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name[:64])
