"""`fleet report`: what a receiver's store says of a version, and what to do with its rollout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from math import inf
from pathlib import Path
from typing import NamedTuple

from edge_rt.core.comparison import (
    Arm,
    ComparePolicy,
    Exposure,
    Outcomes,
    Recommendation,
    compare,
    pooled,
)
from edge_rt.core.errors import InputError
from edge_rt.core.wire import Event
from edge_rt.fleet.exposure import DAY_S, Span, Story, tell
from edge_rt.fleet.incidents import unix_s
from edge_rt.fleet.store import read_store

LOOK_BACK_DAYS = 28.0  # four whole weeks, for weekends differ
_FAILED = ("rejected", "rolled back")


class Arms(NamedTuple):
    """treated: with the version. others: devices that never ran it, since the first one did.
    before: those that ran it, in the days before they did. What comes after a rollback is left out:
    it is neither."""

    treated: dict[str, Exposure]
    others: dict[str, Exposure]
    before: dict[str, Exposure]

    @property
    def control(self) -> Arm:
        return pooled((self.others, self.before))


class Report(NamedTuple):
    """states: how many devices are where with the version; reasons: of failures, how often each.
    unclocked: boots left out for want of a trusted clock."""

    name: str
    version: str
    arms: Arms
    outcomes: Outcomes
    states: dict[str, int]
    reasons: dict[str, int]
    unclocked: int
    recommendation: Recommendation


def report(
    folder: Path,
    version: str,
    policy: ComparePolicy,
    *,
    name: str = "",
    look_back_days: float = LOOK_BACK_DAYS,
) -> Report:
    """Read a store, beside who writes it.

    name: of the bundle; empty: the only one that has this version
    Raises InputError without a store, or if nobody has the version or several names do.
    """
    if not name:
        with read_store(folder) as kept:
            name = _only_name(kept.events, folder, version)
    with read_store(folder) as kept:
        presence = {_device(source): value for source, value in kept.presence.items()}
        stories: dict[str, Story] = {}
        for source, group in groupby(kept.events, key=lambda pair: pair[0]):
            events = [event for _, event in group]
            status, since = presence.get(_device(source), ("", ""))
            since_s = unix_s(since) if since else 0.0
            story = tell(events, name, version, status, since_s, kept.listened_s)
            stories[_device(source)] = story
    if not any(story.outcome.state or story.first_s is not None for story in stories.values()):
        raise InputError(f"{folder}: no device has told of {name} {version} yet")
    arms = _arms(stories, look_back_days)
    outcomes = _outcomes(stories, {d: status for d, (status, _) in presence.items()})
    return Report(
        name,
        version,
        arms,
        outcomes,
        dict(Counter(s.outcome.state for s in stories.values() if s.outcome.state)),
        dict(Counter(outcomes.reasons).most_common()),
        sum(story.unclocked for story in stories.values()),
        compare(arms.treated, arms.control, outcomes, policy),
    )


def _only_name(events: Iterable[tuple[str, Event]], folder: Path, version: str) -> str:
    names = set()
    for _, event in events:
        if event.kind == "model" and event.data.get("version") == version:
            names.add(str(event.data.get("name")))
        elif isinstance(event.modelversion, str) and event.modelversion.endswith(f" {version}"):
            names.add(event.modelversion.rsplit(" ", 1)[0])
    if len(names) != 1:
        found = ", ".join(sorted(names))
        raise InputError(
            f"{folder}: {version} is a version of {found}; say which with --name"
            if names
            else f"{folder}: no device has told of a model {version} yet"
        )
    return names.pop()


def _arms(stories: dict[str, Story], look_back_days: float) -> Arms:
    firsts = [story.first_s for story in stories.values() if story.first_s is not None]
    arms = Arms({}, {}, {})
    for device, story in stories.items():
        first_s = story.first_s
        if first_s is not None:
            arms.treated[device] = _exposure(story, True, 0.0, inf)
            from_s = first_s - look_back_days * DAY_S
            arms.before[device] = _exposure(story, False, from_s, first_s)
        elif firsts:
            arms.others[device] = _exposure(story, False, min(firsts), inf)
    return arms


def _exposure(story: Story, treated: bool, from_s: float, to_s: float) -> Exposure:
    def part_s(span: Span) -> float:
        return max(0.0, min(span.end_s, to_s) - max(span.start_s, from_s))

    made = Exposure(sum(part_s(s) for s in story.spans if s.treated is treated) / DAY_S)
    for happened in story.happened:
        if happened.treated is treated and from_s <= happened.at_s < to_s:
            made.counts[happened.metric] += 1
    return made


def _outcomes(stories: dict[str, Story], statuses: dict[str, str]) -> Outcomes:
    states = [story.outcome.state for story in stories.values()]
    failed = [s.outcome.reason for s in stories.values() if s.outcome.state in _FAILED]

    def away(treated: bool) -> tuple[int, int]:
        # A clean end says `stopped`: somebody wished it.
        running = [d for d, s in stories.items() if s.treated is treated and d in statuses]
        return sum(statuses[device] == "offline" for device in running), len(running)

    return Outcomes(states.count("confirmed"), len(failed), tuple(failed), away(True), away(False))


def _device(source: str) -> str:
    return source.rsplit("/", 1)[-1]
