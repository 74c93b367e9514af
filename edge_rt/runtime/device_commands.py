"""Commands about the device itself: examine it, restart a part of it, let a person be enrolled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edge_rt.core.config import Config
from edge_rt.core.errors import CameraError, ConfigError, InputError
from edge_rt.core.remote_command import Refused
from edge_rt.runtime.commands import ENROL_TIMEOUT_S, Args, NoArgs, What
from edge_rt.runtime.control import Command
from edge_rt.runtime.face_service import FaceService
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.presence import Presence

# Long enough to walk to the device, short enough that nobody forgets an open window.
DEFAULT_WINDOW_S, MAX_WINDOW_S = 60.0, 300.0

Rollback = Callable[[str], Mapping[str, Any]]


class EnrolWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """name: shown in lists, never sent off the device; window_s: so long the device waits for a
    sign that somebody is there."""

    name: Args
    window_s: Annotated[float, Meta(ge=5, le=MAX_WINDOW_S)] = DEFAULT_WINDOW_S


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of which models: a bundle's task, such as `fall`."""

    task: Args


class DeviceCommands:
    """Builds the rows. falls, faces: None where the config has them off; status: the daemon's.

    Commands that take long are answered when they are done: ask in a thread of its own.
    """

    def __init__(
        self,
        config: Config,
        falls: FallService | None,
        faces: FaceService | None,
        presence: Presence,
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._config = config
        self._falls = falls
        self._faces = faces
        self._presence = presence
        self._status = status
        # Takes a bundle's task, goes back to the model before, and says what is left to say of it;
        # raises an EdgeRtError if it cannot. Set by whoever keeps earlier models.
        self.rollback: Rollback | None = None

    def table(self) -> dict[str, Command]:
        """Every command by its name."""
        return {
            "self_test": Command(NoArgs, lambda _: self._self_test()),
            "restart_pipeline": Command(What, self._restart),
            "enrol_window": Command(EnrolWindow, self._enrol_window),
            "present": Command(NoArgs, lambda _: self._present()),
            "model_rollback": Command(Task, self._roll_back),
        }

    def _self_test(self) -> dict[str, Any]:
        # The doctor's imports are for this moment only.
        from edge_rt.runtime.self_test import self_test

        checks = {check.name: check.state for check in self_test(self._config, self._status())}
        failed = [name for name, state in checks.items() if state == "failed"]
        if failed:
            message = f"failed: {', '.join(failed)}; see edge-rt doctor at the device"
            raise Refused("checks_failed", message, checks=checks)
        return {"checks": checks}

    def _restart(self, args: What) -> dict[str, Any]:
        if args.what == "falls":
            if self._falls is None:
                raise ConfigError("fall detection is off; set falls.enabled = true in the config")
            return self._falls.restart()
        self._camera().restart()
        return {}

    def _camera(self) -> FaceService:
        if self._faces is None:
            raise ConfigError("face unlock is off; set faces.enabled = true in the config")
        return self._faces

    def _present(self) -> dict[str, Any]:
        """For buttons: somebody is at the device."""
        self._presence.shown()
        return {}

    def _enrol_window(self, args: EnrolWindow) -> dict[str, Any]:
        faces = self._camera()
        if not self._presence.wait(args.window_s):
            raise Refused("no_presence", f"nobody showed up in {args.window_s:g} s; try again")
        # The one who showed up may still stand there: only a new face is taken.
        wanted = {"name": args.name, "images": [], "new": True}
        try:
            faces.ask("enrol", wanted, ENROL_TIMEOUT_S)
        except (CameraError, InputError) as error:
            # Its words may hold the name; they stay here.
            raise Refused("not_possible", f"not enrolled: {error}") from None
        return {}

    def _roll_back(self, args: Task) -> dict[str, Any]:
        if self.rollback is None:
            raise ConfigError("no earlier model is kept on this device; install one by an update")
        return dict(self.rollback(args.task))
