"""Model updates of one task as a table: where an update stands, what moves it, what a start does.

python -m edge_rt.core.update        prints the table as Markdown

Pure: `step` takes a record and gives the next one. Whoever drives it (runtime.update_task) writes
the record down first and acts on it then, so that after a kill it says what is to be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from edge_rt.core.manifest import version_tuple
from edge_rt.core.table import markdown
from edge_rt.core.update_record import Candidate, Notice, Record, State, spare


class Event(StrEnum):
    """What moves it."""

    CHOSEN = "chosen"  # the signed catalog has a release for this device
    STAGED = "staged"  # fetched, hashes checked, unpacked
    PASSED = "passed"  # the present stage is done
    REFUSED = "refused"  # the present stage says no; not tried again
    # Not shown to be the candidate's fault (disk, time, our own process, power); tried again later.
    FAILED = "failed"
    WITHDRAWN = "withdrawn"  # the release is aborted or withdrawn
    ROLLBACK = "rollback"  # a person asks for the previous model
    BROKEN = "broken"  # the live slot cannot be opened, or its starts keep failing
    ACTIVE = "active"  # the candidate judges the live samples
    SETTLED = "settled"  # this start has held
    START = "start"  # the daemon starts


_S, _E = State, Event
# What ends in IDLE by REFUSED, WITHDRAWN, ROLLBACK or BROKEN leaves the pinned model live.
_CANDIDATE: dict[Event, State] = {
    _E.REFUSED: _S.IDLE,
    _E.FAILED: _S.IDLE,
    _E.WITHDRAWN: _S.IDLE,
    _E.ROLLBACK: _S.IDLE,
    _E.BROKEN: _S.IDLE,
}


def _row(state: State, **moves: State) -> dict[Event, State]:
    return {_E.START: state, _E.SETTLED: state, **{_E(name): to for name, to in moves.items()}}


TABLE: dict[State, dict[Event, State]] = {
    _S.IDLE: {
        **_row(_S.IDLE, chosen=_S.FETCHING),
        # Of the confirmed model:
        _E.WITHDRAWN: _S.IDLE,
        _E.ROLLBACK: _S.IDLE,
        _E.BROKEN: _S.IDLE,
    },
    _S.FETCHING: {**_row(_S.FETCHING, staged=_S.TESTING), **_CANDIDATE},
    _S.TESTING: {**_row(_S.TESTING, passed=_S.CHALLENGING), **_CANDIDATE},
    _S.CHALLENGING: {**_row(_S.CHALLENGING, passed=_S.SHADOWING), **_CANDIDATE},
    _S.SHADOWING: {**_row(_S.SHADOWING, passed=_S.INSTALLING), **_CANDIDATE},
    _S.INSTALLING: {**_row(_S.INSTALLING, passed=_S.TRIAL), **_CANDIDATE},
    _S.TRIAL: {
        **_row(_S.TRIAL, active=_S.TRIAL, passed=_S.IDLE),
        **_CANDIDATE,
    },
}

# Starts that did not hold. On trial: two, then the previous slot. A confirmed model has held
# before and gets one more, as many as core.crash_loop waits before it takes things away. A
# candidate that is not live yet is given up after three.
MAX_TRIAL_LOADS, MAX_LOADS, MAX_TRIES = 2, 3, 3
# Starts in a row that ended with the machine: a plug that is pulled, mains that flicker. Those come
# in twos and threes; six in a row, none of which held, is a board that this model brings down.
MAX_CUTS = 6
MAX_REFUSED = 16  # versions refused; the catalog moves on long before
MAX_NOTICES = 32  # an update tells at most seven things; the oldest go if the log is full for days


def step(
    record: Record,
    event: Event,
    *,
    reason: str = "",
    figures: Mapping[str, Any] | None = None,
    candidate: Candidate | None = None,
    manifest: str = "",
) -> Record:
    """The next record, with what is to be told in `notices`.

    reason, figures  go into the notice; candidate: with CHOSEN; manifest: with STAGED, the sha256
    of its model.toml
    Raises ValueError, naming state and event, for a missing entry.
    """
    state = record.state
    row = TABLE[state]
    if event not in row:
        raise ValueError(f"a model update has no entry for {event} while {state}")
    target = row[event]
    new = msgspec.structs.replace(
        record,
        step=record.step + 1,
        state=target,
        tries=record.tries if target is state else 0,
        cuts=record.cuts if target is state else 0,
    )
    said: list[tuple[str, Candidate]] = []
    match event:
        case Event.CHOSEN:
            if candidate is None:
                raise ValueError("chosen without a candidate")
            new = msgspec.structs.replace(new, candidate=candidate)
        case Event.STAGED:
            said = [("staged", _candidate(record))]
            if manifest:
                manifests = {**record.manifests, _candidate(record).sha256: manifest}
                new = msgspec.structs.replace(new, manifests=manifests)
        case Event.ACTIVE:
            said = [] if record.active else [("activated", _candidate(record))]
            new = msgspec.structs.replace(new, active=True)
        case Event.PASSED:
            new, said = _passed(record, new)
        case Event.START:
            loads = record.loads + (record.live != "factory")
            new = msgspec.structs.replace(new, loads=loads, tries=record.tries + 1)
        case Event.SETTLED:
            new = msgspec.structs.replace(new, loads=0, tries=0, cuts=0)
        case _:
            new, said = _ended(record, new, event)
    return _with_notices(_pruned(new), said, event, state, reason, figures or {})


def start(record: Record, boot_id: str) -> Record:
    """What a start of the daemon makes of it: resumed or repeated, or given up after too many.

    boot_id  of the present boot, the kernel's
    """
    record = _without_cut(record, boot_id)
    while True:
        event, reason = _at_start(record)
        record = step(record, event, reason=reason)
        if event is Event.START:
            return record


def _without_cut(record: Record, boot_id: str) -> Record:
    """A start that did not hold, and after which the machine started anew, was no crash of ours.

    A kill, the watchdog or a native crash ends the process, and the next one is of the same boot.
    """
    unheld = record.loads or record.tries
    if not unheld or record.boot_id in ("", boot_id):
        return record
    return msgspec.structs.replace(
        record,
        loads=max(0, record.loads - 1),
        tries=max(0, record.tries - 1),
        cuts=record.cuts + 1,
    )


def _at_start(record: Record) -> tuple[Event, str]:
    state = record.state
    if record.cuts >= MAX_CUTS and (state in _GIVEN_UP or record.live != "factory"):
        event = Event.BROKEN if state in (State.IDLE, State.FETCHING) else Event.FAILED
        return event, f"cut off or reset soon after {record.cuts} starts in a row while {state}"
    if state in _GIVEN_UP and record.tries >= MAX_TRIES:
        return Event.REFUSED, f"{record.tries} starts in a row did not hold while {state}"
    limit = MAX_TRIAL_LOADS if state is State.TRIAL else MAX_LOADS
    if record.live != "factory" and record.loads >= limit:
        return Event.BROKEN, f"{record.loads} starts in a row did not hold with this model"
    return Event.START, ""


_Told = tuple[Record, list[tuple[str, Candidate]]]
# States in which the device itself works on the candidate.
_GIVEN_UP = frozenset({State.TESTING, State.CHALLENGING, State.SHADOWING, State.INSTALLING})


def objection(record: Record, candidate: Candidate, floor: int, factory: str) -> str:
    """Why this candidate is not to be taken; empty if it may be.

    floor    the security epoch below which nothing new comes in
    factory  version of the bundle that the configuration names
    """
    if candidate.security_epoch < floor:
        return f"security epoch {candidate.security_epoch} is below {floor}"
    if candidate.sha256 in {refused.sha256 for refused in record.refused}:
        return "it was refused before"
    running = record.running
    version = factory if running is None else running.version
    if len(record.refused) >= MAX_REFUSED and version_tuple(candidate.version) <= max(
        version_tuple(refused.version) for refused in record.refused
    ):
        # What was refused before those is not known any more: else they came round for ever.
        return f"{MAX_REFUSED} versions were refused, newer ones among them"
    if version_tuple(candidate.version) <= version_tuple(version):
        # Back to an older version leads withdrawing the newer one, never an offer.
        return f"it is not newer than {version}, which is live"
    return ""


def objection_to_rollback(record: Record, floor: int, factory_epoch: int) -> str:
    """Why a person cannot have the previous model; empty if that works.

    factory_epoch  security epoch of the bundle that the configuration names

    A model below the security floor is known to be vulnerable. When the live one breaks, it still
    is better than none: only the wish of a person is refused.
    """
    if record.live == "factory":
        return "the factory model is live; there is nothing to go back to"
    previous = record.contents.get(record.previous)
    if previous is None:
        low = factory_epoch < floor
        return f"the factory model is below the security epoch {floor}" if low else ""
    if previous.security_epoch < floor:
        return f"{previous.name} {previous.version} is below the security epoch {floor}"
    return ""


def _passed(record: Record, new: Record) -> _Told:
    candidate = _candidate(record)
    match record.state:
        case State.SHADOWING:
            # From here on the spare slot is overwritten: nothing may go back to it.
            slot = spare(record.live)
            kept = "factory" if record.previous == slot else record.previous
            contents = {place: c for place, c in record.contents.items() if place != slot}
            new = msgspec.structs.replace(new, previous=kept, contents=contents)
            return new, [("shadow", candidate)]
        case State.INSTALLING:
            slot = spare(record.live)
            contents = {**record.contents, slot: candidate}
            return msgspec.structs.replace(
                new,
                live=slot,
                previous=record.live,
                contents=contents,
                active=False,
                loads=1,  # the swap itself is a load that may not hold
            ), []
        case State.TRIAL:
            return msgspec.structs.replace(new, candidate=None, loads=0), [("confirmed", candidate)]
    return new, []


def _ended(record: Record, new: Record, event: Event) -> _Told:
    """REFUSED, FAILED, WITHDRAWN, ROLLBACK or BROKEN: the candidate, the live model or both go."""
    state, candidate = record.state, record.candidate
    said: list[tuple[str, Candidate]] = []
    new = msgspec.structs.replace(new, candidate=None, active=False)
    goes_back = event in (Event.ROLLBACK, Event.BROKEN) or state in (State.TRIAL, State.IDLE)
    if candidate is not None and state is not State.TRIAL:
        if event is Event.FAILED:
            # Told once: a full disk may fail it again each hour.
            if record.failed != candidate:
                said.append(("rejected", candidate))
            new = msgspec.structs.replace(new, failed=candidate)
        else:
            if state is State.SHADOWING and event is Event.REFUSED:
                said.append(("shadow", candidate))
            said.append(("rejected", candidate))
        if event is Event.REFUSED:
            new = _refuse(new, candidate)
    if goes_back and record.live != "factory":
        left = record.contents.get(record.live)
        contents = {place: c for place, c in record.contents.items() if place != record.live}
        new = msgspec.structs.replace(
            new, live=record.previous, previous="factory", contents=contents, loads=0, cuts=0
        )
        if left is not None:
            said.append(("rolled_back", left))
            # What broke while confirmed (a bad sector) may come again and prove itself anew, and
            # so may, once, what may have been nobody's fault.
            if event is Event.FAILED and record.failed != left:
                new = msgspec.structs.replace(new, failed=left)
            elif event in (Event.ROLLBACK, Event.REFUSED, Event.FAILED) or (
                state is State.TRIAL and event is Event.BROKEN
            ):
                new = _refuse(new, left)
    return new, said


def _refuse(record: Record, candidate: Candidate) -> Record:
    others = tuple(c for c in record.refused if c.sha256 != candidate.sha256)
    kept = (*others, candidate)[-MAX_REFUSED:]
    return msgspec.structs.replace(record, refused=kept)


def _candidate(record: Record) -> Candidate:
    if record.candidate is None:
        raise ValueError(f"a model update is {record.state} without a candidate")
    return record.candidate


def _pruned(record: Record) -> Record:
    """Without manifests of what lies nowhere any more."""
    here = {c.sha256 for c in (record.candidate, *record.contents.values()) if c is not None}
    manifests = {blob: sha256 for blob, sha256 in record.manifests.items() if blob in here}
    return msgspec.structs.replace(record, manifests=manifests)


def _with_notices(
    record: Record,
    said: list[tuple[str, Candidate]],
    event: Event,
    state: State,
    reason: str,
    figures: Mapping[str, Any],
) -> Record:
    if not said:
        return record
    made = []
    for what, who in said:
        data: dict[str, Any] = {"name": who.name, "version": who.version, "sha256": who.sha256}
        data |= {"stage": state.value, "step": record.step}
        if reason:
            data["reason"] = reason[:300]
        put_off = event is Event.FAILED and who not in record.refused
        if put_off or (event is Event.WITHDRAWN and what == "rejected"):
            data["final"] = False  # not the candidate's fault
        if figures:
            data["figures"] = dict(figures)
        made.append(Notice(what, data))
    return msgspec.structs.replace(record, notices=(*record.notices, *made)[-MAX_NOTICES:])


def table_markdown() -> str:
    """TABLE for people."""
    return markdown(TABLE, Event)


if __name__ == "__main__":
    print(table_markdown())
