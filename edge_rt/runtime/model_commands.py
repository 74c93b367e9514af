"""Commands about models: what runs and where an update stands."""

from __future__ import annotations

from edge_rt.runtime.commands import NoArgs
from edge_rt.runtime.control import Command
from edge_rt.runtime.update_service import UpdateService


class ModelCommands:
    """Rows of the command table; model_rollback is in runtime.device_commands."""

    def __init__(self, updates: UpdateService) -> None:
        self._updates = updates

    def table(self) -> dict[str, Command]:
        """Every command by its name."""
        return {"model_status": Command(NoArgs, lambda _: self._updates.status())}
