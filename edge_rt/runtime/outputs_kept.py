"""The outputs as they were when the daemon opened them, for whoever brings them to rest after it.

The configuration may have been edited since, wrongly or to other lines.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edge_rt.adapters.statefile import StateFile
from edge_rt.core.config import Config
from edge_rt.core.errors import StorageError
from edge_rt.core.pin_config import GpiodChip, ModelChip, OutputConfig

log = logging.getLogger(__name__)

KEPT_NAME = "outputs.json"


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gpio: GpiodChip | ModelChip
    outputs: OutputConfig


def keep_outputs(config: Config) -> None:
    """Write chip, lines and programs into the run folder, the service's own as they are."""
    folder = Path(config.runtime.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        StateFile(folder / KEPT_NAME, _Kept).save(_Kept(config.gpio, config.outputs))
    except (StorageError, OSError) as error:  # the configuration will have to do
        log.warning("the outputs in use are not noted down: %s", error)


def kept_outputs(folder: Path) -> Config | None:
    """What `keep_outputs` has written there, as a configuration of outputs alone; None if nothing.
    Raises StorageError."""
    kept = StateFile(folder / KEPT_NAME, _Kept).load()
    return None if kept is None else Config(gpio=kept.gpio, outputs=kept.outputs)
