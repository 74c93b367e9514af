"""The command table of the control socket: what may be asked of a running daemon."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_rt.adapters.eventreader import EventReader
from edge_rt.core.errors import ConfigError, OperatorError
from edge_rt.core.fall import Event as FallEvent
from edge_rt.core.remote_command import Refused
from edge_rt.runtime.control import Command
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.room import Room
from edge_rt.runtime.teller import Notice

ENROL_TIMEOUT_S = 45.0  # several good frames of a person who first has to find the camera
ASK_TIMEOUT_S = 15.0
FOLLOW_BEAT_S = 10.0  # an empty item now and then finds out that a follower has gone
MAX_FOLLOW_BACKLOG = 1024  # a follower that reads slower than this is told to start again

Args = Annotated[str, Meta(min_length=1, max_length=64)]


class NoArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For commands without arguments."""


class What(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which pipeline."""

    what: Literal["falls", "faces"]


class OfIncident(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """incident: only if this is the one that is open; empty: whichever is."""

    incident: Annotated[str, Meta(max_length=64)] = ""


class EventsArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """after: sequence to start behind, by default so that the newest `limit` come; follow: go on
    with new ones."""

    after: Annotated[int, Meta(ge=0)] | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    follow: bool = False


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """images: base64 of JPEG or PNG files; empty: use the camera."""

    images: Annotated[list[str], Meta(max_length=8)] = []


class Enrol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """name: shown in lists, never sent off the device."""

    name: Args
    images: Annotated[list[str], Meta(max_length=8)] = []


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One enrolled person."""

    name: Args


class Exercise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be tried: an output or a button by its name in the config."""

    item: Args


# Command -> what it is to the alarm machine.
FALLS = {
    "cancel": FallEvent.CANCEL,
    "resolve": FallEvent.RESOLVE,
    "help_now": FallEvent.HELP,
}


class Commands:
    """Builds the table. falls, faces: None where the config has them off."""

    def __init__(
        self,
        recorder: Recorder,
        log_path: Path,
        falls: FallService | None,
        faces: FaceService | None,
        room: Room,
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._recorder = recorder
        self._log_path = log_path
        self._falls = falls
        self._faces = faces
        self._room = room
        self._status = status

    def table(self, by: str = "control") -> dict[str, Command]:
        """Every command by its name; by: who will ask, for the record."""
        return {
            "status": Command(NoArgs, lambda _: self._status()),
            "events": Command(EventsArgs, self._events),
            "cancel": Command(OfIncident, lambda args: self._end(FallEvent.CANCEL, args, by)),
            "resolve": Command(OfIncident, lambda args: self._end(FallEvent.RESOLVE, args, by)),
            "help_now": Command(NoArgs, lambda _: self._fall(FallEvent.HELP, by)),
            "arm": Command(What, lambda args: self._arm(args.what, True, by)),
            "disarm": Command(What, lambda args: self._arm(args.what, False, by)),
            "face_enrol": Command(Enrol, self._enrol),
            "face_verify": Command(Images, self._verify),
            "face_list": Command(NoArgs, lambda _: self._face().ask("list", {}, ASK_TIMEOUT_S)),
            "face_remove": Command(Named, self._remove),
            "face_anew": Command(Named, self._anew),
            "exercise": Command(Exercise, lambda args: self._exercise(args.item)),
        }

    def pressed(self) -> dict[str, Callable[[], Any]]:
        """What a button may do, by the name of the command."""
        table = self.table("button")
        return {name: partial(table[name].handler, table[name].arguments()) for name in FALLS}

    def _fall(self, event: FallEvent, by: str) -> dict[str, Any]:
        if self._falls is None:
            raise ConfigError("fall detection is off; set falls.enabled = true in the config")
        return self._falls.command(event, by=by)

    def _end(self, event: FallEvent, args: OfIncident, by: str) -> dict[str, Any]:
        if args.incident and self._falls is not None:
            # Between the look and the deed no other incident opens: the table of core.fall_table
            # leads from the end of one to the next only by way of new samples, seconds later.
            _, incident = self._falls.alarm_state()
            if incident != args.incident:
                raise Refused("other_incident", "that incident is not the one at hand; look again")
        return self._fall(event, by)

    def _face(self) -> FaceService:
        if self._faces is None:
            raise ConfigError("face unlock is off; set faces.enabled = true in the config")
        return self._faces

    def _arm(self, what: str, on: bool, by: str) -> dict[str, Any]:
        if what == "falls":
            return self._fall(FallEvent.ARM if on else FallEvent.DISARM, by)
        self._face().arm(on)
        return {"armed": on}

    def _exercise(self, item: str) -> dict[str, Any]:
        # Unlocking by command does not exist: the lock is tried with the daemon stopped.
        if item == "lock":
            raise OperatorError("the lock is not opened by command; stop the daemon to try it")
        return self._room.exercise(item)

    def _enrol(self, args: Enrol) -> dict[str, Any]:
        return self._face().ask("enrol", msgspec.to_builtins(args), ENROL_TIMEOUT_S)

    def _verify(self, args: Images) -> dict[str, Any]:
        return self._face().ask("verify", msgspec.to_builtins(args), ASK_TIMEOUT_S)

    def _remove(self, args: Named) -> dict[str, Any]:
        return self._face().ask("remove", msgspec.to_builtins(args), ASK_TIMEOUT_S)

    def _anew(self, args: Named) -> dict[str, Any]:
        return self._face().ask("anew", msgspec.to_builtins(args), ASK_TIMEOUT_S)

    def _events(self, args: EventsArgs) -> Iterator[dict[str, Any]]:
        # Listen first, read then: what is committed in between comes from both and is sent once.
        news: queue.Queue[Notice] = queue.Queue(MAX_FOLLOW_BACKLOG)
        overrun = []

        def take(notice: Notice) -> None:
            try:
                news.put_nowait(notice)
            except queue.Full:
                overrun.append(True)

        forget = self._recorder.listen(take) if args.follow else None
        try:
            reader = EventReader(self._log_path)
            try:
                left = args.limit
                last = args.after
                if last is None:
                    last = reader.before(left)
                while left > 0 and (page := reader.read(last, min(left, 200))):
                    for stored in page:
                        yield msgspec.to_builtins(stored.event)
                    last, left = page[-1].sequence, left - len(page)
            finally:
                reader.close()
            while args.follow and not overrun:
                try:
                    event = news.get(timeout=FOLLOW_BEAT_S).event
                except queue.Empty:
                    yield {}
                    continue
                if int(event.sequence) > last:
                    last = int(event.sequence)
                    yield msgspec.to_builtins(event)
        finally:
            if forget is not None:
                forget()
