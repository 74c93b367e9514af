"""Tries outputs and buttons one by one: through the daemon where one runs, else directly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from edge_rt.adapters.statedir import held_by
from edge_rt.core.config import Config
from edge_rt.core.errors import DaemonError, DeniedError, EdgeRtError
from edge_rt.runtime.check import Check, failed
from edge_rt.runtime.client import Client
from edge_rt.runtime.presence import Presence
from edge_rt.runtime.room import PRESS_S, Room

# What is about to happen, by the name in the config: whoever is asked has to know.
ASKS = {
    "siren": "Sound the siren, briefly?",
    "lock": "Open the door for one pulse?",
    "led": "Flash the LED for some seconds?",
    "cancel": f"Wait {PRESS_S:g} s for a press of the cancel button?",
    "help": f"Wait {PRESS_S:g} s for a press of the help button? It will call nobody.",
}
# Whether it worked is for a person to say; a button says so itself.
SAW = {"siren": "Did it sound?", "lock": "Did it open?", "led": "Did it flash?"}

Ask = Callable[[str], bool]


def exercise(config: Config, consents: Ask, saw: Ask) -> Generator[Check, None, None]:
    """One line for each output and button that has a driver of its own.

    consents  whether a person agrees to what is asked; saw: whether they saw it work
    """
    with contextlib.ExitStack() as stack:
        try:
            client = _client(config)
        except DeniedError as error:
            # Driving what a daemon drives would silence the siren of somebody who needs it.
            yield failed("exercise", str(error), "use sudo")
            return
        if client is not None:
            stack.callback(client.close)
            items = _configured(config)
        elif (pid := held_by(Path(config.runtime.state_dir))) is not None:
            # Its siren may sound for somebody, and would fall silent with our try.
            remedy = "see the service's log, or stop the daemon"
            yield Check("exercise", "failed", f"process {pid} runs and cannot be asked", remedy)
            return
        else:
            room = stack.enter_context(_room(config))
            items = room.items()
        if not items:
            yield Check("exercise", "ok", "no output or button with a driver of its own")
        for item in items:
            if item == "lock" and client is not None:
                remedy = "stop the daemon to try it: no command opens the door"
                yield Check(item, "warning", "not tried, the daemon runs", remedy)
            elif not consents(ASKS[item]):
                yield Check(item, "ok", "not tried")
            else:
                try:
                    if client is not None:
                        client.call("exercise", item=item)
                    else:
                        room.exercise(item)
                except EdgeRtError as error:
                    yield failed(item, str(error), "see docs/wiring.md")
                    continue
                yield _judged(item, saw)


def _judged(item: str, saw: Ask) -> Check:
    if item not in SAW:
        return Check(item, "ok", "its press came")
    if saw(SAW[item]):
        return Check(item, "ok", "works")
    return Check(item, "failed", "its line was driven, nothing was seen of it", "check its wiring")


def _configured(config: Config) -> list[str]:
    """As Room.items, without making one."""
    outputs, inputs = config.outputs, config.inputs
    found = [(name, getattr(outputs, name)) for name in ("siren", "lock", "led")]
    found += [(name, getattr(inputs, name)) for name in inputs.__struct_fields__]
    return [n for n, item in found if type(item).__struct_config__.tag not in ("log", "none")]


def _client(config: Config) -> Client | None:
    try:
        client = Client(Path(config.runtime.run_dir))
        client.call("status")
    except DeniedError:
        raise
    except DaemonError:
        return None
    return client


@contextlib.contextmanager
def _room(config: Config) -> Iterator[Room]:
    room = Room(config)
    room.start()
    room.watch({}, Presence(), lambda kind, what, data: None)
    try:
        yield room
    finally:
        room.close()
